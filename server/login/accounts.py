"""Passwords and standing of Unix accounts, each question in a thread. No wire, no token.

A wrong password, an account that is not listed, a locked and an expired one are refused alike,
and after the same time.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Final, TypeVar

from server.login.roles import Role
from server.login.standing import (
    Busy,
    UnknownAccount,
    authenticate,
    role_of,
    say_unknown_members,
    standing,
)
from sysadmd.apart import apart
from sysadmd.settings import AuthSettings

T = TypeVar("T")

log = logging.getLogger(__name__)

# A refusal is told this long after the request, or at a whole second after that; s. PAM's
# own delay after a wrong password is 2 s, give or take half: less must not be told apart.
REFUSED_AFTER: Final = 3.0
LATE: Final = "the login could not be checked in time; try again later"


class Accounts:
    """Asks for passwords and standing, so many at once; who hangs holds nobody else up."""

    def __init__(self, settings: Callable[[], AuthSettings]) -> None:
        self._settings = settings
        # Strangers can use up the first; who is in is asked about all the same.
        self._passwords = asyncio.Semaphore(settings().pam_calls)
        self._standings = asyncio.Semaphore(settings().pam_calls)
        # An account that PAM hangs for keeps one call, however often it is asked about.
        self._asked: dict[tuple[str, AuthSettings], asyncio.Future[Role | None]] = {}
        # Of them, those that did not answer in time, which has been said: nobody else waits.
        self._hanging: set[tuple[str, AuthSettings]] = set()

    def look_at_members(self) -> None:
        """Have the log say who of the settings is not there; nobody waits for it."""
        # Where there is no thread for it, it is not said.
        with suppress(RuntimeError):
            apart(partial(say_unknown_members, self._settings()), "members")

    async def check(self, name: str, password: str, host: str | None) -> Role | None:
        """The account's role if this is its password; None: refused. Raises: Busy.

        host: the address of who gives it; None: he is on this machine.
        """
        begun, settings = time.monotonic(), self._settings()

        def ask() -> Role | None:
            if not authenticate(name, password, settings.pam_service, host):
                return None
            with suppress(UnknownAccount):
                return role_of(name, settings)
            return None

        await self._turn(self._passwords)
        role = await self._in_time(self._begin(self._passwords, ask))
        if role is None:
            await asyncio.sleep(_refusal_time(time.monotonic() - begun))
        return role

    async def role(self, name: str) -> Role | None:
        """The account's role as of now; None: it may not log in.

        Raises: Busy, UnknownAccount.
        """
        settings = self._settings()
        key = name, settings
        if key in self._hanging:
            raise Busy(LATE)
        if key not in self._asked:
            await self._turn(self._standings)
            if key in self._asked:
                self._standings.release()
            else:
                answer = self._begin(self._standings, lambda: standing(name, settings))
                self._asked[key] = answer

                def answered(_: object) -> None:
                    del self._asked[key]
                    self._hanging.discard(key)

                answer.add_done_callback(answered)
        answer = self._asked[key]
        try:
            return await self._in_time(answer)
        except Busy:
            if key in self._asked and key not in self._hanging:
                self._hanging.add(key)
                log.warning(
                    "PAM (service %s) does not say whether %s may still be logged in; until it"
                    " does, who is in stays, but tokens run out",
                    settings.pam_service,
                    name,
                )
            raise

    async def _turn(self, calls: asyncio.Semaphore) -> None:
        try:
            async with asyncio.timeout(self._settings().pam_wait):
                await calls.acquire()
        except TimeoutError:
            raise Busy("too many logins are being checked; try again in a minute") from None

    def _begin(
        self, calls: asyncio.Semaphore, ask: Callable[[], Role | None]
    ) -> asyncio.Future[Role | None]:
        try:
            answer = apart(ask, "pam")
        except RuntimeError as error:
            calls.release()
            raise Busy(f"the login can't be checked now: {error}; try again later") from error
        # Only then may another call start: one that hangs keeps its place.
        answer.add_done_callback(lambda _: calls.release())
        return answer

    async def _in_time(self, answer: asyncio.Future[Role | None]) -> Role | None:
        await asyncio.wait({answer}, timeout=self._settings().pam_wait)
        if not answer.done():
            raise Busy(LATE)
        return answer.result()


async def in_thread(work: Callable[[], T], what: str) -> T:
    """What a thread finds out for a login. Raises: Busy if none can be had."""
    try:
        answer = apart(work, what)
    except RuntimeError as error:
        raise Busy(f"the login can't be checked now: {error}; try again later") from error
    return await answer


def _refusal_time(elapsed: float) -> float:
    """How long to wait until a refusal may be told."""
    return max(REFUSED_AFTER, math.ceil(elapsed)) - elapsed
