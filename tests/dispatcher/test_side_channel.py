"""The socket by which a command tells what it does: real sockets, a real directory of a job."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Generator
from pathlib import Path

import pytest

from dispatcher import side_channel
from dispatcher.side_channel import SideChannel, events_path
from tests.kit.waiting import DEADLINE

JOB = (7, 0)


@pytest.fixture
def state_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "jobs" / "7").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@contextlib.contextmanager
def channel() -> Generator[SideChannel]:
    opened = SideChannel(*JOB)
    try:
        yield opened
    finally:
        opened.close()


def connect(opened: SideChannel) -> socket.socket:
    tool = socket.socket(socket.AF_UNIX)
    tool.connect(opened.path)
    return tool


def heard(state_dir: Path) -> bytes:
    return (state_dir / events_path(*JOB)).read_bytes()


def test_lines_are_kept_as_they_come(state_dir: Path) -> None:
    with channel() as opened, connect(opened) as tool:
        tool.sendall(b'{"type": "A"}\n\nnot ')
        opened.drain()
        assert heard(state_dir) == b'{"type": "A"}\n\n'
        tool.sendall(b"JSON\n")
        opened.drain()
    assert heard(state_dir) == b'{"type": "A"}\n\nnot JSON\n'


def test_lines_of_several_are_whole(state_dir: Path) -> None:
    with channel() as opened, connect(opened) as one, connect(opened) as other:
        opened.drain()
        for part in (b"a", b"bc", b"d\n"):
            one.sendall(part)
            other.sendall(part.upper())
            opened.drain()
    assert sorted(heard(state_dir).split()) == [b"ABCD", b"abcd"]


def test_who_ends_amid_a_line_has_it_kept(state_dir: Path) -> None:
    with channel() as opened:
        with connect(opened) as tool:
            tool.sendall(b"whole\ntorn")
        with connect(opened) as tool:
            tool.sendall(b"next\n")
        opened.drain()
    assert heard(state_dir) == b"whole\ntorn\nnext\n"


def test_sources_come_and_go(state_dir: Path) -> None:
    with channel() as opened:
        (listener,) = opened.sources
        with connect(opened):
            opened.take(listener)
            assert len(opened.sources) == 2
            source = opened.sources[1]
        opened.take(source)
        assert opened.sources == [listener]
        # It may have been closed by what came before it.
        opened.take(source)


def test_what_is_too_much_is_taken_and_counted(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(side_channel, "LIMIT", 10_000)
    with channel() as opened, connect(opened) as tool:
        tool.setblocking(False)
        line = b"x" * 99 + b"\n"
        for _ in range(1000):
            tool.sendall(line)
            opened.drain()
    kept = heard(state_dir)
    assert kept == line * 100
    assert "job 7, command 0: 90000 bytes of its events were not kept" in capfd.readouterr().err


def test_a_line_without_an_end_takes_bounded_memory(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(side_channel, "_LONGEST_LINE", 1000)
    with channel() as opened, connect(opened) as tool:
        for _ in range(20):
            tool.sendall(b"y" * 900)
            opened.drain()
        # No more than that waits for its end.
        assert len(heard(state_dir).replace(b"\n", b"")) >= 17_000
    assert heard(state_dir).replace(b"\n", b"") == b"y" * 18_000


def test_too_many_are_turned_away_and_nobody_waits(state_dir: Path) -> None:
    with channel() as opened, contextlib.ExitStack() as stack:
        tools = [stack.enter_context(connect(opened)) for _ in range(20)]
        opened.drain()
        assert len(opened.sources) == 1 + side_channel.CONNECTIONS
        tools[-1].settimeout(DEADLINE)
        assert tools[-1].recv(1) == b""
        tools[0].sendall(b"still here\n")
        opened.drain()
    assert heard(state_dir) == b"still here\n"


def test_a_long_way_to_the_state_directory_is_cut_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    far = tmp_path / ("far" * 30) / ("away" * 20)
    (far / "jobs" / "7").mkdir(parents=True)
    monkeypatch.chdir(far)
    with channel() as opened:
        assert len(opened.path) < 60
        link = Path(opened.path).parent
        with connect(opened) as tool:
            tool.sendall(b"here\n")
            opened.drain()
    assert heard(far) == b"here\n"
    assert not link.is_symlink()


def test_nothing_is_left_but_what_was_heard(state_dir: Path) -> None:
    with channel() as opened, connect(opened):
        opened.drain()
        sources = opened.sources
    for source in sources:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(source)
    assert [path.name for path in (state_dir / "jobs" / "7").iterdir()] == ["0.events"]


def test_a_socket_of_an_attempt_that_was_none_is_no_hindrance(state_dir: Path) -> None:
    left = socket.socket(socket.AF_UNIX)
    left.bind("jobs/7/0.sock")
    left.close()
    with channel() as opened, connect(opened) as tool:
        tool.sendall(b"new\n")
        opened.drain()
    assert heard(state_dir) == b"new\n"


def test_what_a_job_has_put_in_place_of_its_events_is_not_written_to(state_dir: Path) -> None:
    mine = state_dir / "mine"
    mine.write_bytes(b"as it was")
    (state_dir / events_path(*JOB)).symlink_to(mine)
    with pytest.raises(OSError, match="in its place"):
        SideChannel(*JOB)
    assert mine.read_bytes() == b"as it was"
    assert not (state_dir / "jobs" / "7" / "0.sock").exists()
