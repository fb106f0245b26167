"""Chaos: cut and stalled connections, a daemon that is killed; every reader has every event."""

from pathlib import Path

import pytest

from tests.kit.chaos import run


def test_readers_lose_and_double_nothing_in_chaos(tmp_path: Path) -> None:
    outcome = run(tmp_path, 12, 7)
    assert outcome.clean, outcome
    assert outcome.kills >= 1
    assert outcome.ledgers > 0


@pytest.mark.long
def test_readers_lose_and_double_nothing_in_a_minute_of_chaos(tmp_path: Path) -> None:
    outcome = run(tmp_path, 60, 11)
    assert outcome.clean, outcome
