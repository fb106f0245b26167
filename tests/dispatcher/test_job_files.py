"""What a job puts in the place of its own files holds nobody up and leads nowhere else."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dispatcher import logs, output_files
from dispatcher.job_files import Replaced
from dispatcher.logs import LogFiles
from dispatcher.relay import Relay
from dispatcher.writers import Writers

SECRET = b"it stands elsewhere\n"
KEPT = b"what it has written\n"
JOB = (7, 0)
LIMIT = 65536


def put_fifo(path: Path, elsewhere: Path) -> None:
    os.mkfifo(path)


def put_link(path: Path, elsewhere: Path) -> None:
    # The directory for a directory, so that what is sought below it is there.
    names = {"7": ".", "0.more": "0.more"}
    path.symlink_to(elsewhere / names.get(path.name, path.name))


def put_dangling_link(path: Path, elsewhere: Path) -> None:
    path.symlink_to(elsewhere / "nowhere")


def put_device(path: Path, elsewhere: Path) -> None:
    # As a link also where a device can't be made.
    path.symlink_to("/dev/tty")


def put_directory(path: Path, elsewhere: Path) -> None:
    path.mkdir()


def put_socket(path: Path, elsewhere: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(path.name)
    os.chdir(here)


def put_file(path: Path, elsewhere: Path) -> None:
    path.write_bytes(b"")


KINDS = [put_fifo, put_link, put_dangling_link, put_device, put_directory, put_socket, put_file]
PLACES = ["jobs/7/0.log", "jobs/7/0.more", "jobs/7/0.more/100", "jobs/7", "pipes/7.0.pipe"]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A state directory with a log of two files and its pipe, and a clock for who hangs."""

    def hangs(*_: object) -> None:
        raise AssertionError("it hangs")

    elsewhere, home = tmp_path / "elsewhere", tmp_path / "home"
    for where, text in ((elsewhere, SECRET), (home / "jobs" / "7", KEPT)):
        (where / "0.more").mkdir(parents=True)
        (where / "0.more" / "100").write_bytes(text)
        (where / "0.log").write_bytes(text)
    (elsewhere / "7.0.pipe").write_bytes(SECRET)
    (home / "pipes").mkdir()
    os.mkfifo(home / "pipes" / "7.0.pipe")
    monkeypatch.chdir(home)
    before = signal.signal(signal.SIGALRM, hangs)
    signal.alarm(20)
    yield home
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def replace(home: Path, place: str, put: Callable[[Path, Path], None]) -> None:
    path = home / place
    path.rename(home / "original")
    put(path, home.parent / "elsewhere")


def contents(directory: Path) -> dict[Path, bytes]:
    files = (file for file in directory.rglob("*") if file.is_file())
    return {file: file.read_bytes() for file in files}


@pytest.mark.parametrize("put", KINDS)
@pytest.mark.parametrize("place", PLACES)
def test_no_reader_waits_or_reads_elsewhere(
    home: Path, place: str, put: Callable[[Path, Path], None]
) -> None:
    replace(home, place, put)
    path = logs.path(home, *JOB)
    size = logs.size(path)
    assert LogFiles(home).size(*JOB) == size
    # Of the two files of the log what was not replaced.
    parts = {"jobs/7": 0, "pipes/7.0.pipe": 2}.get(place, 1)
    read = logs.read(path, 0, 100)[1], logs.read(path, 100, LIMIT)[1]
    assert b"".join(dict.fromkeys(read)) == KEPT * (parts > 0)
    assert size in ({None} if not parts else {len(KEPT), 100, 100 + len(KEPT)})
    head, tail = logs.ends(path, 0, 100 + len(KEPT), LIMIT)
    assert head + tail in (b"", KEPT, 2 * KEPT)
    assert logs.whole_characters(path, 0, 10) <= 10
    assert logs.unread(logs.pipe(home, *JOB)) == 0
    LogFiles(home).may_have_begun(*JOB)
    assert os.getpid() not in Writers([path, logs.pipe(home, *JOB)])


@pytest.mark.parametrize("put", KINDS)
@pytest.mark.parametrize("place", PLACES)
def test_nobody_who_writes_or_deletes_does_so_elsewhere(
    home: Path, place: str, put: Callable[[Path, Path], None]
) -> None:
    elsewhere = home.parent / "elsewhere"
    before = contents(elsewhere)
    replace(home, place, put)
    path = logs.path(home, *JOB)
    acts: list[Callable[[], object]] = [
        lambda: logs.bar(path),
        lambda: output_files.make_log(*JOB),
        take_over,
        lambda: LogFiles(home).forget(*JOB),
        lambda: output_files.make_log(7, 1),
        lambda: output_files.make_pipe(*JOB),
        lambda: logs.remove(home, [7]),
    ]
    for act in acts:
        try:
            act()
        except OSError as error:
            assert error.strerror
    assert contents(elsewhere) == before
    assert not (home / "jobs" / "7").is_symlink()
    assert not (home / "jobs" / "7").exists()


def take_over() -> None:
    """With more than the first file has room for."""
    writer = os.open(output_files.pipe_path(*JOB), os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW)
    try:
        taken = Relay.take_over(*JOB, 32, lost=True)
        if taken is not None:
            os.write(writer, b"x" * 500)
            taken.drain()
            assert not logs.unread(Path(output_files.pipe_path(*JOB)))
            taken.close()
    finally:
        os.close(writer)


def test_a_command_is_not_given_a_pipe_that_nobody_reads(home: Path) -> None:
    log = output_files.make_log(8, 0)
    assert log is not None
    os.close(output_files.make_pipe(8, 0))
    served = Relay(8, 0, log, output_files.open_pipe(8, 0), LIMIT)
    given = served.open()
    assert os.get_blocking(given)
    os.close(given)
    Path("pipes/8.0.pipe").unlink()
    os.mkfifo("pipes/8.0.pipe")
    with pytest.raises(Replaced):
        served.open()
    served.close()


def test_numbers_beyond_all_counting_are_nobodys(home: Path) -> None:
    for name in ("9" * 255, "9223372036854775807", "\u00b2", "x", "-1"):
        (home / "jobs" / name).mkdir()
        (home / "jobs" / "7" / "0.more" / name).write_bytes(b"x")
        (home / "pipes" / f"{name[:200]}.{name[:40]}.pipe").touch()
    assert logs.uids(home) == [7]
    assert list(logs.pipes(home)) == [JOB]
    assert logs.size(logs.path(home, *JOB)) == 100 + len(KEPT)
    os.truncate(home / "jobs" / "7" / "0.log", 2**40)
    assert logs.read(logs.path(home, *JOB), 2**40 - 1, LIMIT)[1] == b"\0"
