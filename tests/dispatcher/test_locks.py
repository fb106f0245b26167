"""Who holds what: a look that fails is no answer."""

import contextlib
import resource
from collections.abc import Generator
from pathlib import Path

from dispatcher import keepers, logs


@contextlib.contextmanager
def no_descriptors() -> Generator[None, None, None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_what_can_not_be_looked_at_is_not_taken_for_dead(tmp_path: Path) -> None:
    log = tmp_path / "0.log"
    log.touch()
    (tmp_path / "pair.keeper").touch()
    with no_descriptors():
        blind = logs.is_held(log), keepers.lives(tmp_path, "pair", "keeper")
    assert blind == (True, True)
    assert not logs.is_held(log)
    assert not keepers.lives(tmp_path, "pair", "keeper")


def test_what_is_not_there_is_held_by_nobody(tmp_path: Path) -> None:
    assert not logs.is_held(tmp_path / "0.log")
    assert not keepers.lives(tmp_path, "pair", "keeper")
