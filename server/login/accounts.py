"""Passwords and roles of Unix accounts: PAM, each call in a thread. No wire, no token.

Only the result "success" counts: the numbers of failures differ between Linux-PAM and OpenPAM.
A wrong password, an account that is not listed and an expired one are refused alike, and after
the same time.
"""

from __future__ import annotations

import asyncio
import grp
import logging
import math
import os
import pwd
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import pam

from server.login.roles import Role
from sysadmd.apart import apart
from sysadmd.errors import SysadmdError
from sysadmd.settings import AuthSettings

log = logging.getLogger(__name__)

# A refusal is told this long after the request, or at a whole second after that; s. PAM's
# own delay after a wrong password is 2 s, give or take half: less must not be told apart.
REFUSED_AFTER: Final = 3.0
# pam_authenticate(3); the same number in Linux-PAM and OpenPAM.
DISALLOW_NULL_AUTHTOK: Final = 1
# Longer than any account's name or sane password; PAM modules copy them around.
TEXT_LENGTH: Final = 512


class Busy(SysadmdError):
    """All PAM calls that may run at once are under way, and none ended in time."""

    code = "busy"


class UnknownAccount(SysadmdError):
    """There is no such account; or its directory does not answer, which looks the same."""

    code = "unknown-account"


def role_of(name: str, settings: AuthSettings) -> Role | None:
    """The role that an account has by the configuration; None: it may not log in.

    Raises: UnknownAccount.
    """
    try:
        entry = pwd.getpwnam(name)
        # A primary group counts, which gr_mem does not show.
        groups = set(os.getgrouplist(name, entry.pw_gid))
    except (KeyError, OSError, ValueError) as error:
        raise UnknownAccount(
            f"there is no account {name!r}, or its directory is away"
        ) from error
    for role, members in ((Role.FULL, settings.full), (Role.LIMITED, settings.limited)):
        if any(_is_member(name, groups, member) for member in members):
            return role
    return None


def _is_member(name: str, groups: set[int], member: str) -> bool:
    if not member.startswith("@"):
        return name == member
    try:
        return grp.getgrnam(member[1:]).gr_gid in groups
    except KeyError:
        return False


class Accounts:
    """Asks for passwords and roles, so many at once; who hangs holds nobody else up."""

    def __init__(self, settings: Callable[[], AuthSettings]) -> None:
        self._settings = settings
        self._calls = asyncio.Semaphore(settings().pam_calls)

    async def check(self, name: str, password: str) -> Role | None:
        """The account's role if this is its password; None: refused. Raises: Busy."""
        begun, settings = time.monotonic(), self._settings()

        def ask() -> Role | None:
            if not _authenticate(name, password, settings.pam_service):
                return None
            with suppress(UnknownAccount):
                return role_of(name, settings)
            return None

        role = await self._in_thread(ask)
        if role is None:
            await asyncio.sleep(_refusal_time(time.monotonic() - begun))
        return role

    async def role(self, name: str) -> Role | None:
        """As `role_of`: accounts may be in a directory, too. Raises: Busy, UnknownAccount."""
        settings = self._settings()
        return await self._in_thread(lambda: role_of(name, settings))

    async def _in_thread(self, ask: Callable[[], Role | None]) -> Role | None:
        patience = self._settings().pam_wait
        try:
            async with asyncio.timeout(patience):
                await self._calls.acquire()
        except TimeoutError:
            raise Busy("too many logins are being checked; try again in a minute") from None
        answer = apart(ask, "pam")
        # Only then may another call start: one that hangs keeps its place.
        answer.add_done_callback(lambda _: self._calls.release())
        await asyncio.wait({answer}, timeout=patience)
        if not answer.done():
            raise Busy("the login could not be checked in time; try again later")
        return answer.result()


def _authenticate(name: str, password: str, service: str) -> bool:
    if not name or not password or len(name) > TEXT_LENGTH or len(password) > TEXT_LENGTH:
        return False
    try:
        checker = pam.PamAuthenticator()
        inner = checker.pam_authenticate

        def authenticate(handle: object, flags: int) -> int:
            # An account without a password is nobody's; the library has no argument for it.
            return int(inner(handle, flags | DISALLOW_NULL_AUTHTOK))

        checker.pam_authenticate = authenticate
        return bool(checker.authenticate(name, password, service, resetcreds=False))
    except (ValueError, UnicodeError):
        return False
    except OSError as error:
        log.error("PAM can't be used: %s; install it, or log in by token", error)
        return False


def _refusal_time(elapsed: float) -> float:
    """How long to wait until a refusal may be told."""
    return max(REFUSED_AFTER, math.ceil(elapsed)) - elapsed
