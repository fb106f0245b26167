"""Fixtures: `sysadmctl`, and a daemon that its tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit import QUIET, Daemon
from tests.kit.ctl import Ctl


@pytest.fixture
def ctl(tmp_path: Path) -> Ctl:
    home = tmp_path / "home"
    home.mkdir()
    return Ctl(home)


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A running daemon for the tests that leave nothing behind that others mind."""
    with Daemon(tmp_path_factory.mktemp("shared") / "state", QUIET) as daemon:
        yield daemon
