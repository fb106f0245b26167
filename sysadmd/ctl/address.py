"""Addresses of servers as people write them, and what to call who is there. Opens nothing."""

from __future__ import annotations

from ipaddress import AddressValueError, IPv6Address, ip_address
from typing import Final
from urllib.parse import urlsplit

from sysadmd.errors import BadRequest

SERVER_PORT: Final = 12150
BRIDGE_PORT: Final = 12149
_SCHEME: Final = "wss://"


def server_url(text: str, port: int = SERVER_PORT) -> str:
    """The URL of HOST, HOST:PORT or wss://HOST:PORT. port: where none is written.

    An address of IPv6 may stand in brackets; with a port it has to. Raises: BadRequest.
    """
    refused = BadRequest(f"{text!r} is no address; allowed: HOST, HOST:PORT or wss://HOST:PORT")
    if text != text.strip() or not text.isprintable() or " " in text:
        raise refused
    whole = "://" in text
    url = text if whole else _SCHEME + _bracketed(text)
    try:
        parts = urlsplit(url)
        fits = parts.scheme == "wss" and bool(parts.hostname) and parts.port != 0
    except ValueError:
        raise refused from None
    # What stands behind the host would not be heard.
    if not fits or "@" in parts.netloc or parts.query or parts.fragment:
        raise refused
    if whole:
        return url
    if parts.path or parts.netloc.endswith(":"):
        raise refused
    return url if parts.port is not None else f"{url}:{port}"


def _bracketed(text: str) -> str:
    try:
        return f"[{IPv6Address(text)}]"
    except AddressValueError:
        return text


def shown(url: str) -> str:
    """The host of a URL, with its port if that is not the usual one."""
    parts = urlsplit(url)
    host = parts.hostname or url
    if ":" in host:
        host = f"[{host}]"
    return host if parts.port == SERVER_PORT else f"{host}:{parts.port or 443}"


def names(url: str) -> list[str]:
    """What a server may be called, the shortest first: its host's first label, or address."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    long = [host, f"{host}:{parts.port or 443}"]
    try:
        ip_address(host)
    except ValueError:
        return [host.partition(".")[0] or host, *long]
    return long
