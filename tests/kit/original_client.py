"""A model of the original Qt client, by the facts of what it sends and makes of answers.

On the wire: an `Origin` that is a word; requests 20 ms apart, `rpc/identify` first; a login by
password the first time, by its key from then on (but at 127.0.0.1, where it sends its user's
name and an empty password each time); after the login one subscription at a time;
`rpc/identify` and `rpc/query` every 90 s. After a cut it connects again a minute later, by
itself; after any error that answers a login, never.

On the screen: one message of each kind, which it drops if it equals the one that is there; a
warning for the worst pool of a system state that has `zpools`; a row for each command of a job.
"""

from __future__ import annotations

import contextlib
import json
import ssl
import time
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, Self, cast

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
from websockets.typing import Origin

from tests.kit.rsa_keys import RsaKey
from tests.kit.waiting import DEADLINE

Frame = dict[str, Any]

BETWEEN: Final = 0.02
IDENTIFY: Final = "sysadm_client_identify"
LOGIN: Final = "sysadm-client-auth-auto"
LOCAL: Final = "127.0.0.1"


@dataclass
class Screen:
    """What its user sees. messages: by kind, in the order in which they lit up."""

    messages: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    shown: dict[str, str] = field(default_factory=dict[str, str])
    priority: int = -1
    rows: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    states: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    logs: dict[str, str] = field(default_factory=dict[str, str])

    def take(self, frame: Frame) -> None:
        """An event."""
        args = frame["args"]
        if frame["name"] == "life-preserver":
            self._show("life-preserver", args["message"])
        elif frame["name"] == "system-state":
            self._state(args)
        elif frame["name"] == "dispatcher":
            self._job(args)

    def lit(self, kind: str) -> list[str]:
        """The messages of a kind that have lit up."""
        return [text for of, text in self.messages if of == kind]

    def _show(self, kind: str, text: str) -> None:
        if self.shown.get(kind) != text:
            self.shown[kind] = text
            self.messages.append((kind, text))

    def _state(self, args: dict[str, Any]) -> None:
        self.priority = _number(args["priority"])
        if "zpools" not in args:
            return
        worst = max((_number(pool["priority"]) for pool in args["zpools"].values()), default=-1)
        if worst <= 2:
            self.shown.pop("zfs", None)
        elif worst == 9:
            self._show("zfs", "zpool degraded")
        else:
            self._show("zfs", "zpool low on space" if worst == 6 else "zpool needs attention")

    def _job(self, args: dict[str, Any]) -> None:
        details = args.get("process_details", args)
        id = details["process_id"]
        self.states.setdefault(id, []).append(details["state"])
        if "cmd_list" in details:
            self.rows[id] = details["cmd_list"]
        for command in details.get("cmd_list", ()):
            self.logs[command] = details.get(command, "")


class Socket(Protocol):
    """What it has of one of these."""

    def send(self, text: str, /) -> None: ...
    def recv(self, timeout: float) -> str: ...
    def close(self) -> None: ...


@contextlib.contextmanager
def plain_socket(url: str) -> Generator[Socket]:
    """One that looks to a server as that of the original; any certificate is taken."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with connect(
        url,
        ssl=context,
        proxy=None,
        compression=None,
        max_size=None,
        origin=Origin("sysadm-client"),
        user_agent_header=None,
    ) as socket:
        yield cast("Socket", socket)


class OriginalClient:
    """One connection after the other, as one window of it."""

    def __init__(
        self,
        key: RsaKey,
        systems: tuple[str, ...],
        open_socket: Callable[[str], AbstractContextManager[Socket]] = plain_socket,
    ) -> None:
        self.key = key
        self.systems = systems
        self._url = ""
        self._open = open_socket
        self._socket: Socket | None = None
        self._stack = contextlib.ExitStack()
        self._user = self._password = ""
        self.screen = Screen()
        self.frames: list[Frame] = []
        # Of the present connection, those that came once it was logged in.
        self.since_login: list[Frame] = []
        # Does it connect again by itself?
        self.keeps_active = False
        self.authorized = False

    def log_in(self, user: str, password: str) -> None:
        """What its user has typed."""
        self._user, self._password = user, password
        self.keeps_active = True

    def connect(self, url: str) -> None:
        """Connect, and begin to log in; any certificate is taken."""
        self.authorized, self.screen.priority = False, -1
        self.since_login.clear()
        # By a name: at this address it would not use its key.
        self._url = url.replace(LOCAL, "localhost")
        self._stack.close()
        self._socket = self._stack.enter_context(self._open(self._url))
        self._send("rpc", "identify", IDENTIFY, "")

    def register(self) -> None:
        """Its user has added this connection to those that are kept."""
        args = {
            "action": "register_ssl_cert",
            "pub_key": self.key.text,
            "email": "",
            "nickname": "desk",
        }
        self._send("rpc", "settings", "sysadm-auto-cert-register", args)
        self.until(lambda frame: frame["id"] == "sysadm-auto-cert-register")

    def ping(self) -> None:
        """What it does every 90 s."""
        self._send("rpc", "identify", IDENTIFY, "")
        self._send("rpc", "query", "sysadm_client_ping", "")
        self.until(lambda frame: frame["id"] == "sysadm_client_ping")

    def until(self, condition: Callable[[Frame], bool]) -> Frame:
        """Take what comes up to the first frame for which this holds."""
        end = time.monotonic() + DEADLINE
        while time.monotonic() < end:
            frame = self._receive(end - time.monotonic())
            if condition(frame):
                return frame
        raise AssertionError("it did not come")

    def until_authorized(self) -> None:
        self.until(lambda _: self.authorized)
        for system in self.systems:
            self._send("events", "subscribe", "sysadm-client-event-auto", system)
        for _ in self.systems:
            self.until(lambda frame: frame["id"] == "sysadm-client-event-auto")

    def until_shown(self, condition: Callable[[Screen], bool]) -> None:
        """Take events until its user sees this."""
        if not condition(self.screen):
            self.until(lambda _: condition(self.screen))

    def until_cut(self) -> None:
        """Take what comes until the connection ends; forget what it forgets then."""
        with contextlib.suppress(ConnectionClosed):
            while True:
                self._receive(DEADLINE)
        self._socket = None

    def until_cut_by(self, cut: Callable[[], object]) -> None:
        """Have the connection cut."""
        cut()
        self.until_cut()

    def _send(self, namespace: str, name: str, id: str, args: object) -> None:
        assert self._socket is not None
        body = {"namespace": namespace, "name": name, "id": id, "args": args}
        self._socket.send(json.dumps(body, separators=(",", ":"), sort_keys=True))
        time.sleep(BETWEEN)

    def _receive(self, seconds: float) -> Frame:
        assert self._socket is not None
        frame: Frame = json.loads(self._socket.recv(timeout=max(0.01, seconds)))
        self.frames.append(frame)
        if self.authorized:
            self.since_login.append(frame)
        if frame["namespace"] == "events" and frame["name"] not in ("response", "error"):
            self.screen.take(frame)
        elif frame["id"] == IDENTIFY and not self.authorized:
            assert frame["args"]["type"] == "server"
            self.keeps_active = True
            self._authenticate()
        elif frame["id"] == LOGIN:
            self._answer(frame)
        return frame

    def _authenticate(self) -> None:
        if self._user:
            args: object = {"username": self._user, "password": self._password}
            self._send("rpc", "auth", LOGIN, args)
        else:
            self._send("rpc", "auth_ssl", LOGIN, "")
        self._password = ""
        if f"//{LOCAL}:" not in self._url:
            self._user = ""

    def _answer(self, frame: Frame) -> None:
        assert self._socket is not None
        if frame["name"] == "error":
            self.keeps_active = False
            self._socket.close()
        elif isinstance(frame["args"], list):
            self.authorized = True
        else:
            signature = self.key.sign(frame["args"]["test_string"])
            self._send("rpc", "auth_ssl", LOGIN, {"encrypted_string": signature})

    def close(self) -> None:
        """Its user has closed it."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _number(priority: str) -> int:
    """As it reads `9 - Urgent`."""
    return int(priority.partition("-")[0].strip() or 0)
