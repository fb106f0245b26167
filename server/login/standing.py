"""What the machine says of an account: its password, its standing, its role. No asyncio.

PAM is asked by the library `pam`, an object for each question. Only the result "success" lets
anybody in. All of this may hang: `accounts` calls it in threads.
"""

from __future__ import annotations

import grp
import logging
import os
import pwd
import sys
from pathlib import Path
from typing import Final

import pam

from server.login.roles import Role
from sysadmd.errors import SysadmdError
from sysadmd.settings import AuthSettings

log = logging.getLogger(__name__)

# pam_authenticate(3); the same number in Linux-PAM and OpenPAM.
DISALLOW_NULL_AUTHTOK: Final = 1
PAM_SUCCESS: Final = 0
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
    if _is_locked(name, entry.pw_passwd):
        return None
    for role, members in ((Role.FULL, settings.full), (Role.LIMITED, settings.limited)):
        if any(_is_member(name, groups, member) for member in members):
            return role
    return None


def standing(name: str, settings: AuthSettings) -> Role | None:
    """The role that an account has now, if PAM's account phase lets it in, too.

    Raises: UnknownAccount.
    """
    role = role_of(name, settings)
    if role is None or not _lets_in(name, settings.pam_service):
        return None
    return role


def authenticate(name: str, password: str, service: str) -> bool:
    """Is this the account's password, and does the account phase let it in?"""
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


def _lets_in(name: str, service: str) -> bool:
    """PAM's account phase alone: is it expired, closed now, ...? Raises: UnknownAccount."""

    def known(handle: object, flags: int) -> int:
        # Who it is was shown by a token or a certificate: PAM is asked for the rest.
        return PAM_SUCCESS

    try:
        checker = pam.PamAuthenticator()
        checker.pam_authenticate = known
        if checker.authenticate(name, "", service, resetcreds=False):
            return True
    except (ValueError, UnicodeError, OSError) as error:
        raise UnknownAccount(f"PAM can't be asked about {name!r}: {error}") from error
    if checker.code in CAN_NOT_TELL:
        raise UnknownAccount(
            f"PAM can't tell whether {name!r} may log in: {checker.reason}; see its service"
            f" {service!r}, or try again later"
        )
    return False


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
    try:
        return grp.getgrnam(member[1:]).gr_gid in groups
    except KeyError:
        return False
