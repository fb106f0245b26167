"""The outer edge of a connection: what fails there ends that one alone."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import wraps
from typing import Any, Protocol

log = logging.getLogger(__name__)


class Failing(Protocol):
    """What can be ended after a defect of ours."""

    address: str

    def fail(self) -> None: ...


def outer_edge(work: Callable[..., None]) -> Callable[..., None]:
    """For what loop, listener and hub call: a defect there ends this connection alone."""

    @wraps(work)
    def guarded(self: Failing, *args: Any) -> None:
        try:
            work(self, *args)
        except Exception:  # the outer edge: nothing that a peer says ends the daemon
            log.exception("%s: reading from it or writing to it failed", self.address)
            self.fail()

    return guarded
