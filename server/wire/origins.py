"""Origins: which of them are web pages, and which web pages may connect. No socket.

A web page in an admin's browser must not ride on what the browser knows. A page's Origin is
`scheme://host[:port]`, or `null` where the browser does not say it (RFC 6454, 7.1): never a
bare word. Programs may send what they like; the original client sends `sysadm-client`.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Sequence
from typing import Final

from sysadmd.text import quoted

log = logging.getLogger(__name__)

_BARE_WORD: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", re.ASCII)
# A refused origin is logged again after so long, s; and no more of them in that time: who wants
# to fill the log can make up any number.
AGAIN: Final = 3600.0
LOGGED: Final = 32


class Origins:
    """Who is let in by what a request's Origin says."""

    def __init__(
        self,
        allowed: Callable[[], Sequence[str]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """allowed: server.origins, as of now."""
        self._allowed = allowed
        self._clock = clock
        # When each was logged last.
        self._logged: dict[str, float] = {}

    def refused(self, address: str, origins: Sequence[str]) -> str | None:
        """The first of a request's origins that may not connect, if one may not; logged."""
        allowed = self._allowed()
        origin = next((o for o in origins if o not in allowed and not _is_no_page(o)), None)
        if origin is not None:
            self._say(address, quoted(origin))
        return origin

    def _say(self, address: str, origin: str) -> None:
        now = self._clock()
        self._logged = {o: at for o, at in self._logged.items() if now - at < AGAIN}
        if origin in self._logged or len(self._logged) >= LOGGED:
            return
        self._logged[origin] = now
        log.warning(
            "%s: a web page of %s was refused; if it is one that may connect, add it to"
            " server.origins of the configuration",
            address,
            origin,
        )


def _is_no_page(origin: str) -> bool:
    return origin.lower() != "null" and _BARE_WORD.fullmatch(origin) is not None
