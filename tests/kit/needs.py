"""What a test needs of the machine, and what becomes of the test where it is missing."""

from __future__ import annotations

import os
import shutil
import sys
from typing import NoReturn

import pytest

from sysadmd.machine import FORCED_PORTABLE


def needed(what: str) -> NoReturn:
    """Skip the test, naming what is missing; fail where CI is set: all is to be there."""
    if os.environ.get("CI"):
        pytest.fail(f"needs {what}")
    pytest.skip(f"needs {what}")


def needs(*programs: str) -> None:
    """Go on only if these programs are there."""
    if not all(map(shutil.which, programs)):
        needed(", ".join(programs))


def needs_root(*programs: str) -> None:
    """Go on only if we are root and these programs are there."""
    if os.geteuid() != 0:
        needed("root")
    needs(*programs)


def needs_fast(what: str) -> None:
    """Go on only where the portable ways are not forced (SYSADMD_PORTABLE): `what` is none."""
    if FORCED_PORTABLE:
        pytest.skip(f"{what} is no portable way")


def needs_linux(what: str) -> None:
    """Go on only on Linux, whose own way `what` is; elsewhere there is nothing to be tested."""
    if not sys.platform.startswith("linux"):
        pytest.skip(f"{what} is Linux's")


def needs_freebsd(what: str) -> None:
    """Go on only on FreeBSD, whose own way `what` is."""
    if not sys.platform.startswith("freebsd"):
        pytest.skip(f"{what} is FreeBSD's")
