"""Addresses to listen on: taken, tried, or why that can't be. Accepts nothing."""

from __future__ import annotations

import errno
import socket
from typing import Final

from sysadmd.errors import CannotStart
from sysadmd.machine import plainly
from sysadmd.settings import Address

_BACKLOG: Final = 1024
# Of these port numbers most systems let only root have one. Source: ip(4) of FreeBSD; ip(7).
_ROOTS_PORTS: Final = 1024


def bind(address: Address) -> socket.socket:
    """A listening socket. Raises: CannotStart naming address and port."""
    sock = _socket(address, address.port)
    try:
        sock.listen(_BACKLOG)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        raise _refused(address, error) from error
    return sock


def why_not_here(address: Address) -> str:
    """Why this machine can't listen there, and what to do, whoever uses the port now; empty:
    it can."""
    try:
        # Whether the port is free, and whether we may have it, says nothing of the address.
        _socket(address, 0).close()
    except CannotStart as error:
        return str(error)
    return ""


def _socket(address: Address, port: int) -> socket.socket:
    """Raises: CannotStart."""
    try:
        found = socket.getaddrinfo(
            address.host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (socket.gaierror, UnicodeError) as error:
        raise CannotStart(
            f"can't listen on {address}: {address.host} is no address, and no name that this"
            " machine knows; name an address of this machine"
        ) from error
    family, kind, number, _, where = found[0]
    try:
        sock = socket.socket(family, kind, number)
    except OSError as error:
        raise _refused(address, error) from error
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # One listener, one family: FreeBSD's default, made certain everywhere.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(where)
    except OSError as error:
        sock.close()
        raise _refused(address, error) from error
    return sock


def _refused(address: Address, error: OSError) -> CannotStart:
    return CannotStart(f"can't listen on {address}: {why(address, error)}")


def why(address: Address, error: OSError) -> str:
    """What the system's refusal of an address means, and what to do."""
    number, host, port = error.errno, address.host, address.port
    if number == errno.EADDRINUSE:
        return f"{plainly(error)}; stop what uses that port, or name another with --listen"
    if number == errno.EADDRNOTAVAIL:
        every = "[::]" if ":" in host else "0.0.0.0"  # noqa: S104 - told, not bound
        return (
            f"{host} is no address of this machine; name one that is (ifconfig, or ip address,"
            f" shows them), or {every}:{port} for all that it has"
        )
    if number in (errno.EACCES, errno.EPERM):
        if port < _ROOTS_PORTS:
            return (
                f"ports below {_ROOTS_PORTS} are root's; name another one with --listen, or"
                " start as root"
            )
        return (
            "the system does not let this account listen there; name another address with"
            " --listen, or see what its rules say (of a jail, of MAC or SELinux)"
        )
    if number in (errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT):
        kind, other = ("IPv6", "IPv4") if ":" in host else ("IPv4", "IPv6")
        return f"this machine has no {kind}; name an {other} address"
    if number == errno.EINVAL and ":" in host and "%" not in host:
        return (
            "a link-local address needs its interface; name that, too, as in"
            f" [{host}%em0]:{port}"
        )
    return f"{plainly(error)}; name another address with --listen"
