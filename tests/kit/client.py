"""A plain WebSocket client; it holds every event against the document."""

from __future__ import annotations

import contextlib
import json
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import pytest
from websockets.sync.client import connect, unix_connect

from sysadmd.pins import key_pin
from tests.kit.document import check_frame
from tests.kit.waiting import DEADLINE


class Client:
    """A plain client. Events that come between a request and its reply are kept."""

    def __init__(
        self, url: str, context: ssl.SSLContext | None, local: Path | None = None
    ) -> None:
        """local: the daemon's Unix socket, to come in by that."""
        self._stack = contextlib.ExitStack()
        if local is None:
            made = connect(url, ssl=context, max_size=None, proxy=None, compression=None)
        else:
            made = unix_connect(str(local), max_size=None, compression=None)
        self.socket = self._stack.enter_context(made)
        # Every event is held against the document; not in the other dialect.
        self.documented = True
        self.events: list[dict[str, Any]] = []
        self._number = 0

    def ask_raw(self, namespace: str, name: str, args: object = None) -> dict[str, Any]:
        """Send a request; returns the whole reply or error frame."""
        self._number += 1
        id = f"request-{self._number}"
        request: dict[str, object] = {"namespace": namespace, "name": name, "id": id}
        if args is not None:
            request["args"] = args
        self.socket.send(json.dumps(request))
        while True:
            frame = self.receive()
            if frame["namespace"] == "events" and frame["name"] not in ("response", "error"):
                self.events.append(frame)
            else:
                assert frame["id"] == id, frame
                return frame

    def ask(self, namespace: str, name: str, args: object = None) -> Any:
        """Send a request; returns the reply's args, fails on an error."""
        frame = self.ask_raw(namespace, name, args)
        assert frame["name"] == "response", frame
        return frame["args"]

    @property
    def pin(self) -> str:
        """That of the key which the server has shown."""
        secure = self.socket.socket
        assert isinstance(secure, ssl.SSLSocket)
        certificate = secure.getpeercert(True)
        assert certificate is not None
        return key_pin(certificate)

    def trail(self) -> list[str]:
        """Who did what: the texts of the audit trail."""
        args = {"action": "read_logs", "logs": ["hostinfo"]}
        return list(self.ask("rpc", "logs", args)["hostinfo"].values())

    def receive(self, seconds: float = DEADLINE) -> dict[str, Any]:
        """The next frame."""
        frame = self.socket.recv(timeout=seconds)
        assert isinstance(frame, str)
        value: dict[str, Any] = json.loads(frame)
        if self.documented:
            check_frame(value)
        return value

    def event(self, seconds: float = DEADLINE) -> dict[str, Any]:
        """The next event."""
        return self.events.pop(0) if self.events else self.receive(seconds)

    def until(self, condition: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
        """Events up to and including the first that fits."""
        found: list[dict[str, Any]] = []
        while not found or not condition(found[-1]):
            try:
                found.append(self.event())
            except TimeoutError:
                last = json.dumps(found[-3:])[:4000]
                pytest.fail(f"of {len(found)} events none fits; the last: {last}")
        return found

    def close(self) -> None:
        """Say goodbye, and wait for the other's."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
