"""The client library: requests, and events that survive everything. Prints and decides nothing.

    async with connect(Target.local(Path("/var/db/sysadmd"))) as client:
        await client.request("rpc", "dispatcher", {"action": "list"})
    async for event in events(target, ["dispatcher"], since="oldest"):
        ...

`events` reconnects by itself, resumes where it was, and checks that nothing is missing: each
event names the one before it. Source: docs/protocol.md, "Resume".
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import random
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Callable,
    Generator,
    Iterator,
    Sequence,
)
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, cast

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import (
    WebSocketException,
)

from sysadmd.backoff import backoff
from sysadmd.errors import GARBLED, BadRequest, SysadmdError, no_sysadmd
from sysadmd.no_opening import reason
from sysadmd.opening import opened
from sysadmd.target import Target, Unreachable

if TYPE_CHECKING:
    from sysadmd.keys import PrivateKey

__all__ = [
    "PASSING",
    "ChainBroken",
    "Client",
    "EventFrame",
    "NotPermitted",
    "Refused",
    "Target",
    "Unreachable",
    "connect",
    "events",
    "pauses",
]

# The server sends a heartbeat after 20 s without an event: with three missing it is gone; s.
SILENCE: Final = 60.0
# How long a reply may take; s.
REPLY_TIMEOUT: Final = 60.0
# Pauses between attempts to reconnect: the first, and the longest; s. Half to all of it is
# waited, so that clients of a daemon that was restarted do not come back in one moment.
FIRST_PAUSE: Final = 0.2
LONGEST_PAUSE: Final = 15.0
# Events that wait for who reads them; above, the socket is not read, and the server waits. A
# reply waits behind them: who asks and listens on one connection must go on reading.
EVENTS_WAITING: Final = 64
# Refusals that pass: too many logins, and a daemon that stops.
PASSING: Final = (429, 503)
BAD_REQUEST: Final = 400


class Refused(SysadmdError):
    """The server answered with an error. number: 400, 404 and so on."""

    code = "refused"

    def __init__(self, number: int, message: str, detail: str) -> None:
        super().__init__(detail or message)
        self.number = number
        self.message = message
        self.detail = detail


class NotPermitted(Refused):
    """Not logged in, or the role does not allow it."""

    code = "not-permitted"


class ChainBroken(SysadmdError):
    """An event does not follow the one before it: something is missing."""

    code = "chain-broken"


@dataclass(frozen=True, slots=True)
class EventFrame:
    """One frame of a subscription.

    name: dispatcher, life_preserver, system_state, gap, snapshot, or caught_up, which is no
    event: all that there was has been told. cursor: resume from here.
    merged: how many events it stands for. frame: as it came; of a snapshot, its last part.
    """

    name: str
    args: dict[str, Any]
    cursor: str
    time: str
    merged: int = 1
    frame: dict[str, Any] = field(default_factory=dict[str, Any], repr=False)


class Client:
    """A connection that is logged in. Made by `connect`."""

    def __init__(self, socket: ClientConnection, pin: str) -> None:
        """pin: the SHA-256 of the server's public key (SPKI) in base64."""
        self.pin = pin
        self._socket = socket
        self._numbers = itertools.count(1)
        self._replies: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self._frames: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue(EVENTS_WAITING)
        self._gone: str | None = None

    async def request(self, namespace: str, name: str, args: object = None) -> Any:
        """The reply's `args`.

        Raises: Refused, NotPermitted, Unreachable; BadRequest if `args` is not UTF-8 text.
        """
        if self._gone is not None:
            raise Unreachable(self._gone)
        id = f"r{next(self._numbers)}"
        reply: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        request: dict[str, object] = {
            "namespace": namespace,
            "name": name,
            "id": id,
            "args": {} if args is None else args,
        }
        text = json.dumps(request, ensure_ascii=False)
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise BadRequest("only UTF-8 text can be sent to a server") from error
        self._replies[id] = reply
        try:
            async with asyncio.timeout(REPLY_TIMEOUT):
                await self._socket.send(text)
                frame = await reply
        except (WebSocketException, OSError, TimeoutError) as error:
            raise Unreachable(f"the connection was lost: {reason(error)}") from error
        finally:
            del self._replies[id]
        with _understanding():
            refusal = _refusal(frame)
            args = frame["args"]
        if refusal is not None:
            raise refusal
        return args

    async def frames(self) -> AsyncIterator[dict[str, Any]]:
        """Frames of the subscription as they come.

        Raises: Unreachable at the connection's end, or when nothing came for a minute.
        """
        while True:
            try:
                async with asyncio.timeout(SILENCE):
                    frame = await self._frames.get()
            except TimeoutError:
                raise Unreachable(f"nothing was heard for {SILENCE:g} s") from None
            if frame is None:
                raise Unreachable(self._gone or "the connection was lost")
            yield frame

    async def read(self) -> None:
        """Sort what comes in until the connection ends; `connect` runs it."""
        gone = "the server ended the connection"
        try:
            async for text in self._socket:
                await self._sort(cast("dict[str, Any]", json.loads(text)))
        except (WebSocketException, OSError) as error:
            gone = f"the connection was lost: {reason(error)}"
        except GARBLED as error:
            gone = no_sysadmd(error)
        self._gone = gone
        for waiting in self._replies.values():
            if not waiting.done():
                waiting.set_exception(Unreachable(gone))
                # Who asked may have been cancelled meanwhile.
                waiting.exception()
        await self._frames.put(None)

    async def _sort(self, frame: dict[str, Any]) -> None:
        waiting = self._replies.get(frame["id"])
        if frame["id"] == "" and frame["name"] == "error" and len(self._replies) == 1:
            # A request that the server could not read far enough to find its id.
            waiting = next(iter(self._replies.values()))
        if waiting is not None and frame["name"] in ("response", "error"):
            if not waiting.done():
                waiting.set_result(frame)
        elif frame["namespace"] == "events":
            await self._frames.put(frame)


@contextlib.asynccontextmanager
async def connect(target: Target) -> AsyncGenerator[Client, None]:
    """Connect and, with a key or a token, log in.

    Raises: Unreachable, NotPermitted, Refused; BadRequest if the cafile or the key can't be
    used.
    """
    target = target.resolved()
    key = _read_key(target)
    async with contextlib.AsyncExitStack() as stack:
        socket, pin = await _answering(target, stack)
        client = Client(socket, pin)
        reader = asyncio.create_task(client.read())
        try:
            if key is not None:
                await _prove(client, key, target)
            elif target.token:
                await client.request("rpc", "auth_token", {"token": target.token})
            yield client
        finally:
            reader.cancel()
            await asyncio.wait([reader])


async def _answering(
    target: Target, stack: contextlib.AsyncExitStack
) -> tuple[ClientConnection, str]:
    """A connection to the server that is meant, and its pin."""
    if target.server is None:
        return await opened(target, stack)
    # What seals is slow to load, and most need none.
    from sysadmd.bridge_call import called

    return await called(target, stack)


def _read_key(target: Target) -> PrivateKey | None:
    """The key that logs in, before a server is asked for anything."""
    if target.key is None:
        return None
    # What reads keys is slow to load, and most need none.
    from sysadmd.key_file import read_key

    return read_key(target.key)


async def _prove(client: Client, key: PrivateKey, target: Target) -> None:
    """Log in by a key; the proof is for the server that has answered on this connection alone.

    Source: docs/protocol.md, "Login by key".
    """
    from sysadmd.keys import as_text

    try:
        said = await client.request("rpc", "auth_ssl")
        with _understanding():
            signature = key.prove("client", client.pin, said["test_string"])
        args = {"public_key": as_text(key.public.pem), "signature": signature}
        await client.request("rpc", "auth_ssl", args)
    except Refused as error:
        if error.number in PASSING:
            raise
        raise NotPermitted(
            error.number,
            error.message,
            f"the key {target.key} does not log in at {target.url}: {error}. Log in with a"
            f" password (`sysadmctl login {target.url}`) and register it again (`sysadmctl key"
            f" register --file {target.key}`), or have an admin do so",
        ) from error


async def events(
    target: Target,
    systems: Sequence[str],
    *,
    since: str | float = "now",
    last: int | None = None,
    snapshot: bool = False,
    caught_up: bool = False,
    lost: Callable[[SysadmdError, float], None] = lambda error, pause: None,
    again: Callable[[], None] = lambda: None,
) -> AsyncGenerator[EventFrame, None]:
    """Events of these systems, each once and in order, for ever.

    since: a cursor, a time (RFC 3339), how many seconds ago by the server's clock, "oldest" or
    "now"; last: in place of that, begin with so many events. snapshot: begin with the truth as
    it is, once. caught_up: say so, once, when all that there was has been told. lost and again
    are told when the connection is lost (and how long until the next attempt) and when it is
    there again.
    Raises: Refused, NotPermitted, ChainBroken; Unreachable at the first attempt.
    """
    place = _Place(since, last, snapshot=snapshot, caught_up=caught_up)
    waits = pauses()
    begun = False
    while True:
        try:
            async with connect(target) as client:
                reply = await client.request("events", "subscribe", place.ask(systems))
                with _understanding():
                    place.begin(reply)
                if begun:
                    again()
                begun, waits = True, pauses()
                async for frame in client.frames():
                    with _understanding():
                        event = place.take(frame)
                    if event is not None:
                        yield event
        except (Unreachable, Refused) as error:
            if begun and isinstance(error, Refused) and error.number == BAD_REQUEST:
                # What it refuses is what it gave.
                raise Refused(
                    error.number,
                    error.message,
                    "the server has another history now than the one that was followed: a"
                    " backup was restored there, most likely, and what came after it is lost."
                    " Begin again with a snapshot, or with since 'oldest' (sysadmctl tail"
                    " --since oldest)",
                ) from error
            if not begun or (isinstance(error, Refused) and error.number not in PASSING):
                raise
            wait = next(waits)
            lost(error, wait)
            await asyncio.sleep(wait)


def pauses() -> Iterator[float]:
    """How long to wait before each attempt to connect again; s."""
    for pause in backoff(FIRST_PAUSE, LONGEST_PAUSE):
        yield pause * (0.5 + random.random() / 2)  # noqa: S311 - no secret


class _Place:
    """Where a subscription is: what to ask for, and which event the next one must follow."""

    def __init__(
        self, since: str | float, last: int | None, *, snapshot: bool, caught_up: bool
    ) -> None:
        self._since = since
        # In place of `since`, as long as there is no cursor.
        self._last = last
        # Still to be said.
        self._caught_up = caught_up
        # Still to come whole; until then nothing was told, and we may begin anew.
        self._snapshot = snapshot
        self._start = since
        self._prev: str | None = None
        self._jobs: list[Any] = []
        self._states: dict[str, Any] = {}

    def ask(self, systems: Sequence[str]) -> dict[str, Any]:
        """The arguments of the request that goes on from here."""
        self._jobs, self._states = [], {}
        asked: dict[str, Any] = {"systems": list(systems), "snapshot": self._snapshot}
        if self._last is None:
            asked["since"] = self._since
        else:
            asked["last"] = self._last
        if self._caught_up:
            asked["caught_up"] = True
        return asked

    def begin(self, reply: dict[str, Any]) -> None:
        """Go on from the reply. Raises: ChainBroken."""
        prev = str(reply["prev"])
        # The event itself may be gone with retention: its place then stands for it.
        if self._prev is not None and prev not in (self._prev, self._since):
            raise ChainBroken(f"the server goes on behind {prev!r}, not {self._prev!r}")
        self._start = str(reply["cursor"])
        if not self._snapshot:
            self._since, self._last, self._prev = self._start, None, prev
        else:
            self._states["prev"] = prev

    def take(self, frame: dict[str, Any]) -> EventFrame | None:
        """The event that a frame completes. Raises: ChainBroken."""
        name, args = frame["name"], frame["args"]
        if name == "snapshot":
            return self._part(frame, args)
        prev = args["prev"] if name == "heartbeat" else frame["prev"]
        if prev != self._prev:
            raise ChainBroken(f"{name} follows {prev!r}, the last event was {self._prev!r}")
        if name == "heartbeat":
            return self._heard(frame, args)
        self._since = self._prev = str(frame["cursor"])
        return _event(frame, args)

    def _heard(self, frame: dict[str, Any], args: dict[str, Any]) -> EventFrame | None:
        """A heartbeat: of interest is the one that says that all has been told."""
        if not (self._caught_up and args.get("caught_up") is True):
            return None
        self._caught_up = False
        return replace(_event(frame, args), name="caught_up")

    def _part(self, frame: dict[str, Any], args: dict[str, Any]) -> EventFrame | None:
        self._states.update(args)
        self._jobs += args["jobs"]
        if frame.get("more"):
            return None
        self._snapshot, self._since, self._last = False, self._start, None
        self._prev = self._states.pop("prev")
        return _event(frame, {**self._states, "jobs": self._jobs})


def _event(frame: dict[str, Any], args: dict[str, Any]) -> EventFrame:
    return EventFrame(
        name=frame["name"],
        args=args,
        cursor=frame["cursor"],
        time=frame["time"],
        merged=frame.get("merged", 1),
        frame=frame,
    )


def _refusal(frame: dict[str, Any]) -> Refused | None:
    """What an error frame says; None for a reply."""
    if frame["name"] != "error":
        return None
    said = frame["args"]
    number = int(said["code"])
    kind = NotPermitted if number in (401, 403) else Refused
    return kind(number, str(said["message"]), str(said.get("detail", "")))


@contextlib.contextmanager
def _understanding() -> Generator[None]:
    """Reading what a server sent. Raises: Unreachable if it makes no sense."""
    try:
        yield
    except GARBLED as error:
        raise Unreachable(no_sysadmd(error)) from error
