"""Fixtures: a daemon with a dispatcher, in both ways of dealing with processes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.driver import WAYS, Driver


@pytest.fixture(params=WAYS)
def daemon(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Driver]:
    """A running daemon; in the second round the portable ways are forced."""
    portable = request.param == "portable"
    with Driver(tmp_path, portable=portable, kill_grace=0.3, progress_interval=0.1) as running:
        yield running


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What looks at one way alone is looked at in the other by another run."""
    for item in items:
        if isinstance(item, pytest.Function) and "room" in item.fixturenames:
            item.add_marker("portable")


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Driver]:
    """A running daemon, where both ways go through the same code."""
    with Driver(tmp_path, kill_grace=0.3, progress_interval=0.1) as running:
        yield running
