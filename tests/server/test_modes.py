"""What is below the state directory is its owner's alone."""

from __future__ import annotations

import contextlib
import stat
from pathlib import Path

import pytest

from dispatcher import tending
from tests.kit import QUIET, Daemon, wait_for


@pytest.mark.parametrize("mask", ["000", "022", "777"])
def test_nobody_else_may_read_anything_whatever_the_umask(tmp_path: Path, mask: str) -> None:
    wrapper = ("sh", "-c", f'umask {mask}; exec "$@"', "sh")
    with (
        Daemon(tmp_path / "state", QUIET, wrapper=wrapper) as daemon,
        daemon.client() as client,
    ):

        def run(command: str, cwd: Path = tmp_path) -> None:
            job = {"commands": [command, "true"], "cwd": str(cwd)}
            client.ask("rpc", "dispatcher", {"action": "submit", "job": job})

        state_dir, keeper = daemon.state_dir, daemon.state_dir / "keeper"
        client.ask("events", "subscribe", {"systems": ["dispatcher"]})
        run('sh -c "umask >asked; yes | head -c 40000000; exec sleep 60"')
        (first,) = wait_for(lambda: list(keeper.glob("*.1.book")), "a book")
        with first.open("ab") as book:
            book.write(b" " * tending.BOOK_SIZE + b"\n")
        run("true")
        wait_for(lambda: list(keeper.glob("*.2.book")), "its next generation")
        wait_for(lambda: list(state_dir.glob("jobs/*/*.more/*")), "a long log")
        assert list(keeper.glob("*.sock"))
        for path in (state_dir, *state_dir.rglob("*")):
            # What is through goes meanwhile: a book, a pipe.
            with contextlib.suppress(FileNotFoundError):
                assert not stat.S_IMODE(path.lstat().st_mode) & 0o077, path
        # Commands have the usual one.
        assert (tmp_path / "asked").read_text().strip() == "0022"
