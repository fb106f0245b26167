"""Accounts of this machine, and services of its PAM, that are there for as long as a test."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Generator
from pathlib import Path

from tests.kit.daemon import ROOT
from tests.kit.needs import needed, needs_root

PASSWORD = "correct horse 7"
_SERVICES = Path("/etc/pam.d")


@contextlib.contextmanager
def account(name: str, *options: str) -> Generator[str]:
    """An account with PASSWORD; yields its name. options: of useradd."""
    needs_root("useradd")
    delete(name)
    try:
        subprocess.run(["useradd", "-M", "-N", "-s", "/bin/sh", *options, name], check=True)
        subprocess.run(["chpasswd"], input=f"{name}:{PASSWORD}".encode(), check=True)
        yield name
    finally:
        delete(name)


def delete(name: str) -> None:
    """Delete an account, if it is there."""
    subprocess.run(["userdel", "-f", name], capture_output=True, check=False)


@contextlib.contextmanager
def pam_service(name: str, rules: str = "") -> Generator[str]:
    """A service of PAM with these rules, or with those that are shipped; yields its name."""
    needs_root()
    if not _SERVICES.is_dir():
        needed("PAM")
    file = _SERVICES / name
    file.write_text(rules or (ROOT / "rc.d/pam.d/sysadmd.linux").read_text())
    try:
        yield name
    finally:
        file.unlink(missing_ok=True)
