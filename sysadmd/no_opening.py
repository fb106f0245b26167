"""Why no connection could be opened, for people: what happened, and what to do about it.

The libraries' own words name lines of C and numbers of errors. Decides nothing.
"""

from __future__ import annotations

import errno
import socket
import ssl
from http.client import responses
from typing import Final

from websockets.exceptions import (
    ConnectionClosed,
    InvalidHandshake,
    InvalidMessage,
    InvalidStatus,
)

_PORT: Final = "its port is 12150 unless it was configured otherwise"
_TRUST: Final = (
    "pin its key (`sysadmctl login` does, and names and dates count no more), or name a PEM"
    " that verifies it (cafile)"
)
_NETWORK: Final = {
    errno.ECONNREFUSED: f"nothing listens there; is the daemon running? {_PORT}",
    errno.ECONNRESET: f"the connection was cut while it was opened; is it sysadmd? {_PORT}",
    errno.ENETUNREACH: "no route leads there; check the network and the address",
    errno.EHOSTUNREACH: "that machine can't be reached; check the network and the address",
    errno.ETIMEDOUT: "no answer; check the address, and whether a firewall is in between",
    errno.EMFILE: "too many files are open here; close some, or raise the limit (ulimit -n)",
}
# Source: openssl, include/openssl/x509_vfy.h.
_EXPIRED: Final = 10
_NOT_YET_VALID: Final = 9
_OTHER_NAME: Final = 62
_OTHER_ADDRESS: Final = 64
_VERIFYING: Final = {
    _EXPIRED: "its certificate has expired; have it renewed there (a wrong clock here looks"
    " the same), or",
    _NOT_YET_VALID: "its certificate is not valid yet; compare the clocks of both machines, or",
    _OTHER_NAME: "its certificate is for other names; use one of those, or",
    _OTHER_ADDRESS: "its certificate is for other addresses; use a name or address in it, or",
}


def reason(error: BaseException) -> str:
    """What went wrong with a connection, for people."""
    if isinstance(error, ConnectionClosed) and error.rcvd is not None and error.rcvd.reason:
        # What the server said is meant for people; the library tells it twice.
        return error.rcvd.reason
    if isinstance(error, ConnectionClosed):
        return "it ended without a word: the daemon was killed, or the network was cut"
    if isinstance(error, ssl.SSLError):
        return _of_tls(error)
    if isinstance(error, OSError):
        return _of_network(error)
    if isinstance(error, InvalidHandshake):
        return _of_http(error)
    return str(error) or type(error).__name__


def _of_network(error: OSError) -> str:
    if isinstance(error, socket.gaierror):
        if error.errno == socket.EAI_AGAIN:
            return (
                "the name could not be looked up; check it, and whether a name server can be"
                " reached, or give the address"
            )
        return "no machine of that name is known; check it, or give the address"
    if isinstance(error, TimeoutError) and error.errno is None:
        return _NETWORK[errno.ETIMEDOUT]
    if error.errno in _NETWORK:
        return _NETWORK[error.errno]
    return error.strerror or str(error)


def _of_tls(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        known = _VERIFYING.get(error.verify_code)
        if known is None:
            known = f"nobody who is trusted here vouches for its key ({error.verify_message});"
        return f"{known} {_TRUST}"
    return f"what answers there does not speak TLS as sysadmd does; is it sysadmd? {_PORT}"


def _of_http(error: InvalidHandshake) -> str:
    if isinstance(error, InvalidStatus):
        status = error.response.status_code
        word = responses.get(status, "no such status")
        text = bytes(error.response.body or b"").decode("utf-8", "replace").strip()
        said = f": {text.splitlines()[0][:200]}" if text else ""
        return f"it takes no WebSocket ({status} {word}{said}); is it sysadmd? {_PORT}"
    if isinstance(error, InvalidMessage):
        return f"what answers there does not speak HTTP; is it sysadmd? {_PORT}"
    return f"{error}; is it sysadmd? {_PORT}"
