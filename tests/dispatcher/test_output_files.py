"""Pipes and logs of commands, those made ahead among them."""

from __future__ import annotations

import os
import stat
from contextlib import ExitStack
from pathlib import Path

import pytest

from dispatcher import logs, output_files, relay
from dispatcher.relay import Relay
from tests.kit.processes import held

MIB = 1024 * 1024


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All paths are relative to the state directory."""
    monkeypatch.chdir(tmp_path)


def test_a_pipe_made_ahead_is_one_command_s_as_any_other(tmp_path: Path) -> None:
    spare = output_files.SparePipe()
    pipes = [output_files.make_pipe(1, 0, spare)]
    spare.make()
    spare.make()
    # What an attempt before has left stays: somebody may have it open.
    pipes.append(output_files.make_pipe(1, 0, spare))
    assert os.path.sameopenfile(*pipes)
    pipes.append(output_files.make_pipe(2, 0, spare))
    # Taken away, and made again.
    spare.make()
    output_files.remove_spares()
    pipes.append(output_files.make_pipe(3, 0, spare))
    for file, uid in zip(pipes, (1, 1, 2, 3), strict=True):
        assert os.path.samestat(os.fstat(file), Path(output_files.pipe_path(uid, 0)).stat())
        os.close(file)
    assert sorted(logs.pipes(tmp_path)) == [(1, 0), (2, 0), (3, 0)]
    assert len([*Path(output_files.PIPES).iterdir()]) == 3


def test_what_was_made_ahead_goes_whatever_is_in_its_place() -> None:
    room = Path(output_files.PIPES)
    room.mkdir()
    others = room / "1.0.pipe", Path("elsewhere")
    others[0].touch()
    others[1].mkdir()
    (others[1] / "file").touch()
    for left in ("spare.1", "spare.2.0", "spare.3"):
        (room / left).symlink_to(others[1].resolve())
    os.mkfifo(room / "spare.4.0")
    (room / "spare.5").mkdir()
    (room / "spare.5" / "0.log").touch()
    output_files.remove_spares()
    assert [*room.iterdir()] == [others[0]]
    assert (others[1] / "file").exists()


@pytest.mark.parametrize(
    "left", ["nothing", "reader", "writer", "mode", "link", "file", "directory"]
)
def test_a_pipe_is_used_again_if_nobody_has_anything_of_it(left: str) -> None:
    with ExitStack() as opened:
        Path("jobs/1").mkdir(parents=True)
        pipes = output_files.SparePipe()
        kept = output_files.make_pipe(1, 0, pipes)
        used = os.fstat(kept).st_ino
        log = output_files.make_log(1, 0)
        assert log is not None
        served = Relay(1, 0, log, output_files.open_pipe(1, 0), MIB)
        end = served.open()
        os.write(end, b"of the first")
        if left == "reader":
            opened.callback(os.close, output_files.open_pipe(1, 0))
        elif left == "writer":
            opened.callback(os.close, os.dup(end))
        elif left == "mode":
            os.fchmod(end, 0o666)
        elif left == "link":
            Path("other").hardlink_to(output_files.pipe_path(1, 0))
        os.close(end)
        served.close(again=True)
        os.close(kept)
        (spare,) = Path(output_files.PIPES).iterdir()
        if left in ("file", "directory"):
            spare.unlink()
            spare.touch() if left == "file" else spare.mkdir()
        pipes.reuse(1, 0)
        # Of one that never was.
        pipes.reuse(7, 7)
        pipes.make()
        pipe = output_files.make_pipe(2, 0, pipes)
        opened.callback(os.close, pipe)
        found = os.fstat(pipe)
        assert stat.S_ISFIFO(found.st_mode)
        assert os.path.samestat(found, Path(output_files.pipe_path(2, 0)).lstat())
        assert relay.unread(pipe) == 0
        if left == "nothing":
            assert found.st_ino == used
        if left in ("reader", "writer", "link"):
            assert found.st_ino != used
        assert stat.S_IMODE(found.st_mode) == 0o600
        assert len([*Path(output_files.PIPES).iterdir()]) == 1 + (left == "directory")


def test_a_log_made_ahead_decides_as_any_other(tmp_path: Path) -> None:
    Path("jobs").mkdir()
    Path(output_files.PIPES).mkdir()
    spare = output_files.SpareLog()
    assert spare.take(1) is None
    spare.make()
    # A kill was there before; then not.
    assert logs.bar(Path("jobs/2/0.log"))
    assert output_files.make_log(2, 0, spare) is None
    log = output_files.make_log(3, 0, spare)
    assert log is not None
    assert os.path.samestat(os.fstat(log), Path("jobs/3/0.log").stat())
    assert output_files.make_log(3, 0, spare) is None
    assert not logs.bar(Path("jobs/3/0.log"))
    assert held(tmp_path) == [tmp_path / "jobs/3/0.log"]
    # Taken away, and made again.
    spare.make()
    output_files.remove_spares()
    other = output_files.make_log(4, 0, spare)
    spare.make()
    third = output_files.make_log(5, 0, spare)
    assert not [*Path(output_files.PIPES).iterdir()]
    # And one that nobody is going to need.
    spare.make()
    spare.drop()
    spare.drop()
    assert not [*Path(output_files.PIPES).iterdir()]
    for file in (log, other, third):
        assert file is not None
        os.close(file)
