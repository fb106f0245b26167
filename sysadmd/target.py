"""Where a server is, how it is known, and who we are to it. Opens no connection."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from sysadmd.errors import BadRequest, SysadmdError
from sysadmd.machine import LOCAL_SOCKET, plainly
from sysadmd.pins import file_pin


class Unreachable(SysadmdError):
    """No server answers there, or it is not the one that is trusted."""

    code = "unreachable"


@dataclass(frozen=True, slots=True)
class Target:
    """Where a server is, how it is known, and who we are.

    cafile: the PEM that verifies it, the system's authorities otherwise; pin: SHA-256 of its
    public key in base64, which is then all that counts, whatever names and dates say; an empty
    one takes whoever answers. state_dir: the daemon of this directory, looked up anew for each
    connection: it may have another port after a restart. token: None: that daemon's own; an
    empty one does not log in. socket: the daemon's own in its state directory, which knows us
    by our account. key: a file with a private key, by which we log in instead of a token; a
    daemon of this machine needs none, and it is not used there. server: the id of a server, if
    what is at the URL is a bridge to it; the pin and the cafile are then the bridge's.
    Raises: BadRequest for a URL that is none.
    """

    url: str = ""
    token: str | None = field(default=None, repr=False)
    cafile: Path | None = None
    pin: str | None = None
    state_dir: Path | None = None
    socket: Path | None = None
    key: Path | None = None
    server: str | None = None

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.url)
            valid = parts.scheme == "wss" and parts.hostname and parts.port != 0
        except ValueError:
            valid = False
        if not valid and self.state_dir is None:
            raise BadRequest(f"{self.url!r} is not an address; allowed: wss://HOST:PORT")

    @staticmethod
    def local(state_dir: Path) -> Target:
        """The daemon of a state directory, whenever it runs."""
        return Target(state_dir=state_dir)

    def resolved(self) -> Target:
        """With the URL and token of a local daemon. Raises: Unreachable."""
        state_dir = self.state_dir
        if state_dir is None:
            return self
        try:
            endpoint = json.loads((state_dir / "endpoint.json").read_text(encoding="utf-8"))
            certificate = Path(endpoint["certificate"])
            socket = state_dir / LOCAL_SOCKET
            if socket.is_socket():
                pin = None
                # It is known by where it is, and its key only told.
                with contextlib.suppress(OSError, ValueError):
                    pin = file_pin(certificate)
                return Target(str(endpoint["url"]), self.token or "", pin=pin, socket=socket)
            # Known by its key: an address of this machine need not stand in the certificate.
            pin = file_pin(certificate)
            # A daemon that was started before there was one.
            token = self.token
            if token is None:
                token = Path(endpoint["token_file"]).read_text(encoding="ascii").strip()
            return Target(str(endpoint["url"]), token, pin=pin)
        except FileNotFoundError as error:
            raise nobody(state_dir) from error
        except PermissionError as error:
            raise Unreachable(
                f"the state directory {state_dir} is not yours to read; use"
                " `sysadmctl login localhost`"
            ) from error
        except (OSError, ValueError, KeyError, TypeError, BadRequest) as error:
            raise Unreachable(
                f"{state_dir}/endpoint.json can't be used: {plainly(error)}"
            ) from error


def nobody(state_dir: Path) -> Unreachable:
    """What is to be said of a state directory that no daemon serves."""
    return Unreachable(
        f"no daemon runs with the state directory {state_dir}; start one with"
        " `sysadmd serve`, or name another with --state-dir or --url"
    )
