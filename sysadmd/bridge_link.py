"""A connection to a bridge, for either side: login, presence, messages. Decides nothing.

Source: events.rst, "Bridge"; docs/bridge.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any, Final, Protocol, cast

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import WebSocketException

from sysadmd.errors import GARBLED, first_alone
from sysadmd.keys import PrivateKey, Side, as_text
from sysadmd.no_opening import reason
from sysadmd.opening import opened
from sysadmd.target import Target, Unreachable
from sysadmd.text import printable

# How long the login may take; s.
LOGIN_TIMEOUT: Final = 30.0
# The ids of what a bridge asks. Source: the original's BridgeConnection.
IDENT: Final = "sysadm_bridge_request_ident"
CHECKSUMS_ID: Final = "bridge_request_list_keys"
# Characters of a text to be signed, and ids that are listed; more is no bridge of ours.
NONCE: Final = 1024
LISTED: Final = 20_000
# Characters of what is told of a bridge's words.
TOLD: Final = 256
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
        # What was asked, as long as the answer is awaited.
        self._asked: asyncio.Future[dict[str, Any]] | None = None

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
                nonce = (await self._ask("auth_ssl", {}))["test_string"]
                if not isinstance(nonce, str) or not nonce.isascii() or len(nonce) > NONCE:
                    raise Unreachable("what the bridge wants to have signed is no nonce")
                signature = key.prove(side, pin, nonce)
                public = as_text(key.public.pem)
                await self._ask("auth_ssl", {"public_key": public, "signature": signature})
                await self.tell_checksums()
                # Behind that: whom we see now.
                seen = await self._ask("bridge", {}, namespace="events", id=_PEERS)
                self._list(seen["available_connections"])
        except TimeoutError as error:
            raise Unreachable(f"no login at the bridge within {LOGIN_TIMEOUT:g} s") from error
        except GARBLED as error:
            raise Unreachable(f"what answers there is no bridge: {error!r}") from error

    async def read(self) -> None:
        """Sort what comes, until the connection ends. Raises: Unreachable, always."""
        try:
            async for text in self._socket:
                await self._take(str(text))
        except (WebSocketException, OSError) as error:
            raise Unreachable(f"the bridge was lost: {reason(error)}") from error
        except GARBLED as error:
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
            if self._asked is None or self._asked.done():
                raise ValueError("an answer to what was not asked")
            self._asked.set_result(frame)
        elif id == IDENT:
            await self._say(_frame("rpc", "response", id, self._identity))
        elif id == CHECKSUMS_ID:
            await self.tell_checksums()

    def _list(self, ids: list[Any]) -> None:
        if len(ids) > LISTED or not all(isinstance(id, str) and id.isascii() for id in ids):
            raise ValueError("a list of ids that are none")
        self._receiver.listed(ids)

    async def _ask(
        self, name: str, args: dict[str, str], namespace: str = "rpc", id: str = _LOGIN
    ) -> Any:
        self._asked = asyncio.get_running_loop().create_future()
        await self._say(_frame(namespace, name, id, args))
        frame = await self._asked
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
        with first_alone():
            async with asyncio.TaskGroup() as group:
                reader = group.create_task(link.read())
                await link.log_in(key, side, pin)
                yield link
                reader.cancel()


def _frame(namespace: str, name: str, id: str, args: object) -> str:
    frame = {"namespace": namespace, "name": name, "id": id, "args": args}
    return json.dumps(frame)


def _detail(frame: dict[str, Any]) -> str:
    return told(str(frame["args"]["detail"]))


def told(text: str) -> str:
    """What somebody has said whom nobody vouches for, to be shown."""
    return printable(text[:TOLD])
