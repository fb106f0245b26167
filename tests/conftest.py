"""Fixtures that every room's tests share."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.kit import QUIET, Daemon


def pytest_configure() -> None:
    """In the background of a script SIGINT is ignored, and would be by all that we start."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # How long an example takes is the machine's matter.
    settings.register_profile("untimed", deadline=None)
    settings.load_profile("untimed")


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    """A running daemon whose collectors are off."""
    with Daemon(tmp_path / "state", QUIET) as running:
        yield running
