"""Plain HTTP on the WebSocket's port: the upgrade, /healthz, /metrics. No socket."""

from __future__ import annotations

import http
import ipaddress
from collections.abc import Callable, Sequence
from email.utils import formatdate
from typing import cast

from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics import exposition
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

# The library has no types for it.
_generate = cast("Callable[[CollectorRegistry], bytes]", exposition.generate_latest)  # pyright: ignore[reportUnknownMemberType]


def respond(status: int, text: str, *, kind: str = "text/plain; charset=utf-8") -> Response:
    """A whole HTTP response that ends the connection."""
    body = text.encode("utf-8", "backslashreplace")
    headers = Headers(
        [
            ("Date", formatdate(usegmt=True)),
            ("Connection", "close"),
            ("Content-Length", str(len(body))),
            ("Content-Type", kind),
        ]
    )
    return Response(status, http.HTTPStatus(status).phrase, headers, body)


def exposed(registry: CollectorRegistry) -> Response:
    """The figures of a registry, as OpenMetrics."""
    return respond(200, _generate(registry).decode(), kind=CONTENT_TYPE_LATEST)


def is_loopback(address: str) -> bool:
    """Does who has this address run on this machine?"""
    try:
        return ipaddress.ip_address(address.partition("%")[0]).is_loopback
    except ValueError:
        # Who was relayed has none.
        return False


class Gate:
    """Answers the HTTP request with which every connection begins."""

    def __init__(
        self,
        refused_origin: Callable[[str, Sequence[str]], str | None],
        crowded: Callable[[str], bool],
        health: Callable[[], list[str]],
        metrics: Callable[[str, Request], Response],
    ) -> None:
        """refused_origin: of those of a request from this address. crowded: is there no place
        for it? health: what is wrong, a line each."""
        self._refused_origin = refused_origin
        self._crowded = crowded
        self._health = health
        self._metrics = metrics

    def __call__(
        self, address: str, request: Request, accept: Callable[[], Response]
    ) -> Response:
        if request.method not in ("GET", "HEAD"):
            refused = respond(405, "Only GET is answered, and HEAD.\n")
            refused.headers["Allow"] = "GET, HEAD"
            return refused
        response = self._answer(address, request, accept)
        if request.method == "HEAD":
            # RFC 9110, 9.3.2: the headers as for GET, and nothing behind them.
            response.body = b""
        return response

    def _answer(
        self, address: str, request: Request, accept: Callable[[], Response]
    ) -> Response:
        path = request.path.partition("?")[0]
        if path == "/healthz":
            reasons = self._health()
            return respond(503, "\n".join([*reasons, ""])) if reasons else respond(200, "ok\n")
        if path == "/metrics":
            return self._metrics(address, request)
        if path != "/":
            return respond(404, "There is /, a WebSocket, and /healthz and /metrics.\n")
        if self._refused_origin(address, request.headers.get_all("Origin")) is not None:
            return respond(403, "This origin is not in server.origins of the configuration.\n")
        if self._crowded(address):
            return respond(503, "The daemon has server.max_clients clients; try again later.\n")
        return accept()
