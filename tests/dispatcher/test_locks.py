"""Who holds what: a look that fails is no answer."""

import contextlib
import resource
from collections.abc import Generator
from pathlib import Path

from dispatcher import locks


@contextlib.contextmanager
def no_descriptors() -> Generator[None, None, None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_what_can_not_be_looked_at_is_not_taken_for_dead(tmp_path: Path) -> None:
    for role in ("keeper", "starts"):
        (tmp_path / f"pair.{role}").touch()
    with no_descriptors():
        blind = locks.lives(tmp_path, "pair", "keeper"), locks.tells(tmp_path, "pair")
    assert blind == (True, True)
    assert not locks.lives(tmp_path, "pair", "keeper")
    assert not locks.tells(tmp_path, "pair")


def test_what_is_not_there_is_held_by_nobody(tmp_path: Path) -> None:
    assert not locks.lives(tmp_path, "pair", "keeper")
    assert not locks.tells(tmp_path, "pair")
