"""A connection to a bridge, for either side: login, presence, messages. Decides nothing.

Source: events.rst, "Bridge"; docs/bridge.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from typing import Any, Final, Protocol, cast

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import WebSocketException

from sysadmd.keys import PrivateKey, Side, as_text
from sysadmd.opening import opened, reason
from sysadmd.target import Target, Unreachable

# How long the login may take; s.
LOGIN_TIMEOUT: Final = 30.0
# The ids of what a bridge asks. Source: the original's BridgeConnection.
IDENT: Final = "sysadm_bridge_request_ident"
CHECKSUMS_ID: Final = "bridge_request_list_keys"
_LOGIN: Final = "login"
_PEERS: Final = "peers"


class Receiver(Protocol):
    """Who uses a link."""

    def heard(self, sender: str, payload: str) -> None:
        """A message has come."""

    def listed(self, ids: Sequence[str]) -> None:
        """These are there, and no others."""

    def refused(self, destination: str, why: str) -> None:
        """A message to it was not passed on."""


class BridgeLink:
    """A peer of a bridge, which has logged in. Made by `join`."""

    def __init__(
        self,
        socket: ClientConnection,
        identity: dict[str, str],
        checksums: Callable[[], Sequence[str]],
        receiver: Receiver,
    ) -> None:
        """identity: the answer to rpc/identify. checksums: of the keys that it accepts."""
        self._socket = socket
        self._identity = identity
        self._checksums = checksums
        self._receiver = receiver
        self._replies: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def send(self, destination: str, payload: str) -> None:
        """Send a message. Raises: Unreachable."""
        await self._say(f"{destination}\n{payload}")

    async def tell_checksums(self) -> None:
        """Say which keys are accepted now. Raises: Unreachable."""
        args = {"md5_keys": list(self._checksums())}
        await self._say(_frame("rpc", "response", CHECKSUMS_ID, args))

    async def log_in(self, key: PrivateKey, side: Side, pin: str) -> None:
        """Prove a key, and say who we are; pin: of the bridge. Raises: Unreachable."""
        try:
            async with asyncio.timeout(LOGIN_TIMEOUT):
                given = await self._ask("auth_ssl", {})
                signature = key.prove(side, pin, str(given["test_string"]))
                public = as_text(key.public.pem)
                await self._ask("auth_ssl", {"public_key": public, "signature": signature})
                await self.tell_checksums()
                # Behind that: whom we see now.
                await self._say(_frame("events", "bridge", _PEERS, {}))
                self._list((await self._reply())["available_connections"])
        except TimeoutError as error:
            raise Unreachable(f"no login at the bridge within {LOGIN_TIMEOUT:g} s") from error
        except (KeyError, TypeError) as error:
            raise Unreachable(f"what answers there is no bridge: {error!r}") from error

    async def read(self) -> None:
        """Sort what comes, until the connection ends. Raises: Unreachable, always."""
        try:
            async for text in self._socket:
                await self._take(str(text))
        except (WebSocketException, OSError) as error:
            raise Unreachable(f"the bridge was lost: {reason(error)}") from error
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            raise Unreachable(f"what answers there is no bridge: {error!r}") from error
        why = self._socket.close_reason or "it has ended the connection"
        raise Unreachable(f"the bridge was lost: {why}")

    async def _take(self, text: str) -> None:
        if not text.startswith("{"):
            sender, _, payload = text.partition("\n")
            self._receiver.heard(sender, payload)
            return
        frame = cast("dict[str, Any]", json.loads(text))
        namespace, name, id = frame["namespace"], frame["name"], frame["id"]
        if (namespace, name) == ("events", "bridge") and id == "":
            self._list(frame["args"]["available_connections"])
        elif name == "error" and id not in (_LOGIN, _PEERS):
            self._receiver.refused(str(id), _detail(frame))
        elif name in ("response", "error"):
            self._replies.put_nowait(frame)
        elif id == IDENT:
            await self._say(_frame("rpc", "response", id, self._identity))
        elif id == CHECKSUMS_ID:
            await self.tell_checksums()

    def _list(self, ids: list[Any]) -> None:
        self._receiver.listed([str(id) for id in ids])

    async def _ask(self, name: str, args: dict[str, str]) -> Any:
        await self._say(_frame("rpc", name, _LOGIN, args))
        return await self._reply()

    async def _reply(self) -> Any:
        frame = await self._replies.get()
        if frame["name"] == "error":
            raise Unreachable(f"the bridge lets us not in: {_detail(frame)}")
        return frame["args"]

    async def _say(self, text: str) -> None:
        try:
            await self._socket.send(text)
        except (WebSocketException, OSError) as error:
            raise Unreachable(f"the bridge was lost: {reason(error)}") from error


@contextlib.asynccontextmanager
async def join(
    target: Target,
    key: PrivateKey,
    side: Side,
    receiver: Receiver,
    *,
    hostname: str = "",
    checksums: Callable[[], Sequence[str]] | None = None,
) -> AsyncGenerator[BridgeLink, None]:
    """Be a peer of the bridge at a target's address; when the link is lost, the body is
    cancelled. checksums: of the keys that are accepted; our own otherwise.

    Raises: Unreachable; BadRequest if the target's cafile can't be used.
    """
    own = [key.public.checksum]
    identity = {"type": side, **({"hostname": hostname} if hostname else {})}
    async with contextlib.AsyncExitStack() as stack:
        socket, pin = await opened(target, stack)
        link = BridgeLink(socket, identity, checksums or (lambda: own), receiver)
        with unreachable_alone():
            async with asyncio.TaskGroup() as group:
                reader = group.create_task(link.read())
                await link.log_in(key, side, pin)
                yield link
                reader.cancel()


@contextlib.contextmanager
def unreachable_alone() -> Generator[None]:
    """Of a group of errors that says how a link was lost, the first one alone is raised."""
    try:
        yield
    except* Unreachable as errors:
        lost: BaseException = errors
        while isinstance(lost, BaseExceptionGroup):
            several = cast("BaseExceptionGroup[BaseException]", lost)
            lost = several.exceptions[0]
        raise lost from None


def _frame(namespace: str, name: str, id: str, args: object) -> str:
    frame = {"namespace": namespace, "name": name, "id": id, "args": args}
    return json.dumps(frame)


def _detail(frame: dict[str, Any]) -> str:
    return str(frame["args"]["detail"])
