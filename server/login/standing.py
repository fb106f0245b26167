"""What the machine says of an account: its password, its standing, its role. No asyncio.

PAM is asked by the library `pam`, an object for each question. Only the result "success" lets
anybody in. All of this may hang: `accounts` calls it in threads.
"""

from __future__ import annotations

import ctypes
import grp
import logging
import os
import pwd
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import pam

from server.login.roles import Role
from sysadmd.errors import SysadmdError
from sysadmd.machine import plainly
from sysadmd.settings import AuthSettings

log = logging.getLogger(__name__)

# pam_authenticate(3); the same number in Linux-PAM and OpenPAM.
DISALLOW_NULL_AUTHTOK: Final = 1
PAM_SUCCESS: Final = 0
# pam_set_item(3); the same numbers, too.
PAM_TTY: Final = 3
PAM_RHOST: Final = 4
# What stands for a terminal, as "ssh" does for sshd. pam_login_access needs a host or this, and
# holds what has no dot for local: so do rules about LOCAL.
TERMINAL: Final = "sysadmd"
# Longer than any account's name or sane password; PAM modules copy them around.
TEXT_LENGTH: Final = 512
# Results which say that PAM can't tell; all others but success refuse.
# Source: Linux-PAM 1.5, _pam_types.h (open, symbol, service, system, buffer, authinfo-unavail,
# cred-unavail, conversation, try-again, ignore, abort, module-unknown, bad-item, incomplete).
_LINUX_CAN_NOT_TELL: Final = frozenset({1, 2, 3, 4, 5, 9, 15, 19, 24, 25, 26, 28, 29, 31})
# Source: OpenPAM, pam_constants.h (the same; 29 to 33 are its own: domain-unknown and what is
# bad: handle, item, feature, constant).
_OPENPAM_CAN_NOT_TELL: Final = frozenset(
    {1, 2, 3, 4, 5, 6, 12, 14, 25, 26, 27, 28, 29, 30, 31, 32, 33}
)
CAN_NOT_TELL: Final = (
    _LINUX_CAN_NOT_TELL if sys.platform.startswith("linux") else _OPENPAM_CAN_NOT_TELL
)
# What `pw lock` puts before the hash; pw(8).
LOCKED_PREFIX: Final = "*LOCKED*"
SHADOW: Final = Path("/etc/shadow")
# Shells, wherever they are, of accounts that nobody is to log in to. Source: nologin(8) of both
# systems, false(1); an empty one stands for /bin/sh, passwd(5).
NO_SHELLS: Final = frozenset(("nologin", "false"))
# While one of these is there, only root logs in. Source: nologin(5) of FreeBSD; pam_nologin(8)
# of Linux, which has both.
NOLOGIN: Final = (Path("/var/run/nologin"), Path("/etc/nologin"))
_DEFAULTS: Final = AuthSettings()


class Busy(SysadmdError):
    """It can't be told just now whether an account may log in: who is in stays until the token
    runs out, and nothing is renewed."""

    code = "busy"


class UnknownAccount(SysadmdError):
    """There is no such account; or its directory or PAM can't tell, which looks the same."""

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
            f"there is no account {name!r}, or its directory is away; try again later"
        ) from error
    if _is_locked(name, entry.pw_passwd) or Path(entry.pw_shell).name in NO_SHELLS:
        return None
    for role, members in ((Role.FULL, settings.full), (Role.LIMITED, settings.limited)):
        if any(_is_member(name, groups, member) for member in members):
            return role
    return None


def standing(name: str, settings: AuthSettings) -> Role | None:
    """The role that an account has now, if PAM's account phase lets it in, too.

    Raises: UnknownAccount, Busy.
    """
    role = role_of(name, settings)
    if role is None or not _lets_in(name, settings.pam_service):
        return None
    return role


def uid_of(name: str) -> int | None:
    """The number of an account; None: there is none."""
    try:
        return pwd.getpwnam(name).pw_uid
    except (KeyError, OSError, ValueError):
        return None


def unknown_members(members: Sequence[str]) -> dict[str, str]:
    """Who of these, accounts and groups as `@wheel`, this machine does not have, and what to
    say of each."""
    found: dict[str, str] = {}
    for member in members:
        if not member.startswith("@"):
            if uid_of(member) is None:
                found[member] = f"this machine has no account {member!r}"
            continue
        group = member[1:]
        if _number(group) is not None:
            continue
        found[member] = f"this machine has no group {group!r}"
        # Debian's administrators; FreeBSD's, and those of most others, are in wheel.
        if group == "wheel" and "@sudo" not in members and _number("sudo") is not None:
            found[member] += '; its administrators are in sudo: add "@sudo"'
    return found


def say_unknown_members(settings: AuthSettings) -> None:
    """Log who of the settings is not on this machine: nobody gets in by them."""
    lists = {"full": settings.full, "limited": settings.limited}
    for key, members in lists.items():
        # What ships with the program names groups of several systems.
        level = logging.INFO if members == getattr(_DEFAULTS, key) else logging.WARNING
        for member, what in unknown_members(members).items():
            log.log(level, "auth.%s names %s: %s; nobody gets in by it", key, member, what)


def authenticate(name: str, password: str, service: str, host: str | None) -> bool:
    """Is this the account's password, and do both phases let it in from there?

    host: the address of who gives it; None: he is on this machine.
    """
    if not name or not password or len(name) > TEXT_LENGTH or len(password) > TEXT_LENGTH:
        return False
    try:
        checker = pam.PamAuthenticator()
        inner = checker.pam_authenticate

        def authenticate(handle: object) -> int:
            # An account without a password is nobody's; the library has no argument for it.
            return int(inner(handle, DISALLOW_NULL_AUTHTOK))

        checker.pam_authenticate = _with_items(checker, host, authenticate)
        return bool(checker.authenticate(name, password, service, resetcreds=False))
    except (ValueError, UnicodeError):
        return False
    except OSError as error:
        log.error("PAM can't be used: %s; install it, or log in by token", plainly(error))
        return False


def _lets_in(name: str, service: str) -> bool:
    """PAM's account phase alone: is it expired, closed now, ...?

    Raises: UnknownAccount; Busy if it may be refused as all are, for as long as that is so.

    Asked without a host. PAM does not say why it refuses, and what follows ends all that the
    account has: so where somebody comes from must not be a reason.
    """
    # Before and behind the question: what PAM has seen may be gone by then.
    closed = _closed()
    try:
        checker = pam.PamAuthenticator()
        # Who it is was shown by a token or a certificate: PAM is asked for the rest.
        checker.pam_authenticate = _with_items(checker, None, lambda _: PAM_SUCCESS)
        if checker.authenticate(name, "", service, resetcreds=False):
            return True
    except (ValueError, UnicodeError, OSError) as error:
        raise UnknownAccount(f"PAM can't be asked about {name!r}: {plainly(error)}") from error
    if checker.code in CAN_NOT_TELL:
        raise UnknownAccount(
            f"PAM can't tell whether {name!r} may log in: {checker.reason}; see its service"
            f" {service!r}, or try again later"
        )
    closed = closed or _closed()
    if closed is not None:
        raise Busy(f"logins are closed as long as there is {closed}; try again later")
    return False


def _closed() -> Path | None:
    """The file that keeps everybody out now, if one does."""
    return next((file for file in NOLOGIN if file.exists()), None)


def _with_items(
    checker: Any, host: str | None, ask: Callable[[object], int]
) -> Callable[[object, int], int]:
    """What the library calls for the password: before that PAM is told where it comes from.

    The library has no argument for that either, and this is the first that has its handle.
    """
    items = {PAM_TTY: TERMINAL} | ({} if host is None else {PAM_RHOST: host})

    def authenticate(handle: object, _: int) -> int:
        for item, value in items.items():
            result = int(checker.pam_set_item(handle, item, ctypes.c_char_p(value.encode())))
            if result != PAM_SUCCESS:
                return result
        return ask(handle)

    return authenticate


def _is_locked(name: str, password: str) -> bool:
    """Was the account locked by `pw lock`, `usermod -L`, `passwd -l`?

    pam_unix looks at that only where a password is given. As OpenSSH does. "!" and "!*" alone
    are of accounts that never had a password; who has one by certificate is not locked.
    """
    hashed = _shadow(name) or password
    if hashed.startswith("!"):
        return hashed.lstrip("!") not in ("", "*")
    return hashed.startswith(LOCKED_PREFIX)


def _shadow(name: str) -> str | None:
    """The second field of shadow(5); None: there is none that we may read."""
    try:
        lines = SHADOW.read_bytes().splitlines()
    except OSError:
        return None
    start = os.fsencode(name) + b":"
    entry = next((line for line in lines if line.startswith(start)), None)
    return None if entry is None else os.fsdecode(entry.split(b":")[1])


def _is_member(name: str, groups: set[int], member: str) -> bool:
    if not member.startswith("@"):
        return name == member
    return _number(member[1:]) in groups


def _number(group: str) -> int | None:
    """Its gid; None: there is no such group."""
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        return None
