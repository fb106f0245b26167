"""Who holds what: a look that fails is no answer."""

from __future__ import annotations

import contextlib
import resource
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

from dispatcher import locks
from tests.kit.processes import ended


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


def test_who_holds_a_lock_is_known_by_its_pid(tmp_path: Path) -> None:
    code = (
        "import fcntl, os, sys\n"
        "file = open(sys.argv[1], 'r+b')\n"
        "fcntl.lockf(file, fcntl.LOCK_EX, int(sys.argv[2]), os.getpid() * int(sys.argv[2]))\n"
        "print('held', flush=True)\n"
        "sys.stdin.read()\n"
    )

    def hold(role: str, number: int) -> subprocess.Popen[str]:
        (tmp_path / f"pair.{role}").touch()
        argv = [sys.executable, "-c", code, str(tmp_path / f"pair.{role}"), str(number)]
        pipe = subprocess.PIPE
        process = subprocess.Popen(argv, text=True, stdin=pipe, stdout=pipe)
        stack.enter_context(ended(process))
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        return process

    assert locks.holder(tmp_path, "pair", "guard") is None
    with contextlib.ExitStack() as stack:
        guard = hold("guard", 0)
        starters = [hold("starters", 1) for _ in range(5)]
        assert locks.holder(tmp_path, "pair", "guard") == guard.pid
        pids = [one.pid for one in starters]
        assert sorted(locks.starters(tmp_path, "pair")) == sorted(pids)
        starters[2].kill()
        starters[2].wait()
        del pids[2]
        assert sorted(locks.starters(tmp_path, "pair")) == sorted(pids)
    assert locks.holder(tmp_path, "pair", "guard") is None
    assert not locks.starters(tmp_path, "pair")
