"""Accounts of this machine, and services of its PAM, that are there for as long as a test.

By useradd(8) and its like where they are, else by FreeBSD's pw(8).
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Final

from tests.kit.daemon import ROOT
from tests.kit.needs import needed, needs_root

PASSWORD = "correct horse 7"
_SERVICES = Path("/etc/pam.d")
_PW: Final = shutil.which("pw") is not None
# For an account's end: a day of long ago, as each of the two has it.
_PAST: Final = "02-01-1970" if _PW else "1970-01-02"


def _run(*command: str, text: str = "", check: bool = True) -> None:
    subprocess.run(command, input=text.encode(), check=check, capture_output=True)


@contextlib.contextmanager
def account(
    name: str, *, group: str = "", also: str = "", expired: bool = False
) -> Generator[str]:
    """An account with PASSWORD; yields its name. group: its primary one; also: another."""
    needs_root("pw" if _PW else "useradd")
    delete(name)
    options = [*(("-g", group) if group else ()), *(("-G", also) if also else ())]
    options += ("-e", _PAST) if expired else ()
    try:
        if _PW:
            _run("pw", "useradd", name, "-s", "/bin/sh", *options, "-h", "0", text=PASSWORD)
        else:
            _run("useradd", "-M", "-N", "-s", "/bin/sh", *options, name)
            _run("chpasswd", text=f"{name}:{PASSWORD}")
        yield name
    finally:
        delete(name)


def delete(name: str) -> None:
    """Delete an account, if it is there."""
    _run(*(("pw", "userdel", name) if _PW else ("userdel", "-f", name)), check=False)


def expire(name: str) -> None:
    """Let an account be of yesterday."""
    _run(*(("pw", "usermod", name) if _PW else ("usermod", name)), "-e", _PAST)


def lock(name: str) -> None:
    """Let no password open it."""
    _run(*(("pw", "lock", name) if _PW else ("usermod", "-L", name)))


def take_shell(name: str, shell: str) -> None:
    """Give it another shell."""
    _run(*(("pw", "usermod", name) if _PW else ("usermod", name)), "-s", shell)


def leave(name: str, group: str) -> None:
    """Let it be in no group but its primary one. group: the other that it is in."""
    _run(*(("pw", "groupmod", group, "-d", name) if _PW else ("usermod", "-G", "", name)))


def take_password(name: str) -> None:
    """Let it have none at all."""
    _run(*(("chpass", "-p", "", name) if _PW else ("passwd", "-d", name)))


@contextlib.contextmanager
def group(name: str) -> Generator[str]:
    """A group; yields its name."""
    needs_root("pw" if _PW else "groupadd")
    command = ("pw", "groupadd", name) if _PW else ("groupadd", "-f", name)
    # One that a killed test has left will do.
    _run(*command, check=not _PW)
    try:
        yield name
    finally:
        _run(*(("pw", "groupdel", name) if _PW else ("groupdel", name)), check=False)


@contextlib.contextmanager
def pam_service(name: str, rules: str = "") -> Generator[str]:
    """A service of PAM with these rules, or with those that are shipped; yields its name."""
    needs_root()
    if not _SERVICES.is_dir():
        needed("PAM")
    file = _SERVICES / name
    system = "freebsd" if sys.platform.startswith("freebsd") else "linux"
    file.write_text(rules or (ROOT / f"rc.d/pam.d/sysadmd.{system}").read_text())
    try:
        yield name
    finally:
        file.unlink(missing_ok=True)
