"""Fixtures that every room's tests share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon import Daemon

# No surprise from the machine that the tests run on: its pools and logs are not ours.
QUIET = """
[collectors.hostname]
enabled = false
[collectors.zpool]
enabled = false
[collectors.life_preserver]
enabled = false
"""


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    """A running daemon whose collectors are off."""
    with Daemon(tmp_path / "state", QUIET) as running:
        yield running
