"""Proofs of original programs: which registered key has given one? Tried apart from the loop.

Such a proof does not say by which key it is, so all are tried: 64 of them take some 30 ms.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from server.bridge.registry import BridgeKey
from sysadmd.apart import apart
from sysadmd.keys import is_proved_raw

# Between two keys, s: as long as one takes. The loop gets the interpreter then, which a thread
# that calculates holds for 5 ms at a time.
PAUSE: Final = 0.0005


@dataclass(frozen=True, slots=True)
class Proof:
    """What was given for a text. keys: that may have given it. is_wanted: who has given it is
    still there. then: is told whose it is, if so; None: nobody's."""

    keys: Sequence[BridgeKey]
    signature: bytes
    text: str
    is_wanted: Callable[[], bool]
    then: Callable[[BridgeKey | None], None]


class LegacyProofs:
    """Tries them one after the other: whoever comes, they take a thread and half a core. Each
    connection has one here at most, since it is held meanwhile."""

    def __init__(self) -> None:
        self._waiting: deque[Proof] = deque()
        self._is_busy = False

    def add(self, proof: Proof) -> None:
        """Have it tried in its turn."""
        self._waiting.append(proof)
        if not self._is_busy:
            self._next()

    def _next(self) -> None:
        while self._waiting:
            proof = self._waiting.popleft()
            if proof.is_wanted():
                self._is_busy = True
                found = apart(partial(_whose, proof), "proof")
                found.add_done_callback(partial(self._tried, proof))
                return

    def _tried(self, proof: Proof, found: asyncio.Future[BridgeKey | None]) -> None:
        self._is_busy = False
        try:
            if proof.is_wanted():
                proof.then(found.result())
        finally:
            if not self._is_busy:
                self._next()


def _whose(proof: Proof) -> BridgeKey | None:
    for key in proof.keys:
        if is_proved_raw(key.public, proof.signature, proof.text):
            return key
        time.sleep(PAUSE)
    return None
