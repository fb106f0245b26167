"""The daemon's own log: nobody waits for who reads it, and what is missing is counted."""

import errno
import logging
import os
import re
import subprocess
import sys
import threading
from collections.abc import Generator
from pathlib import Path

import pytest

from server.own_log import HELD, Unhurried
from tests.kit.daemon import ROOT
from tests.kit.processes import ended
from tests.kit.waiting import DEADLINE, wait_for

MISSING = re.compile(r"(\d+) lines of this log are missing here")
# More than pipe and handler hold together.
LINES = 4 * HELD // 400


@pytest.fixture
def pipe() -> Generator[tuple[int, int]]:
    """Both ends; closing them is what lets the handler's thread go on."""
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


def logger_to(file: int) -> logging.Logger:
    log = logging.Logger("test")
    log.addHandler(Unhurried(file))
    return log


def program(
    text: str, *, stderr: int = subprocess.PIPE, stdout: int | None = None, **more: str
) -> subprocess.Popen[str]:
    """A program that has set up its log. more: environment."""
    start = """
import logging, sys
from server import own_log
own_log.set_up("info", "text")
log = logging.getLogger("test")
"""
    argv = [sys.executable, "-c", start + text]
    env = {**os.environ, **more}
    return subprocess.Popen(argv, text=True, cwd=ROOT, stdout=stdout, stderr=stderr, env=env)


@pytest.mark.parametrize("blocking", [True, False])
def test_who_logs_waits_for_nobody_and_what_is_missing_is_counted_where_it_is(
    pipe: tuple[int, int], blocking: bool
) -> None:
    os.set_blocking(pipe[1], blocking)
    log = logger_to(pipe[1])

    def write_all() -> None:
        for number in range(LINES):
            log.warning("%d %s", number, "x" * 400)

    writer = threading.Thread(target=write_all, daemon=True)
    writer.start()
    writer.join(DEADLINE)
    assert not writer.is_alive()
    seen: list[int] = []
    missing = 0
    with os.fdopen(os.dup(pipe[0])) as lines:
        for line in lines:
            if count := MISSING.search(line):
                missing = int(count[1])
                break
            seen.append(int(line.split()[0]))
        log.warning("after")
        assert lines.readline() == "after\n"
    assert seen == list(range(len(seen)))
    assert len(seen) + missing == LINES
    assert missing


def test_lines_that_come_while_it_is_read_are_there_or_counted(pipe: tuple[int, int]) -> None:
    log = logger_to(pipe[1])

    def write_all() -> None:
        for number in range(4 * LINES):
            log.warning("line %d %s", number, "x" * 400)

    threading.Thread(target=write_all, daemon=True).start()
    at = 0
    with os.fdopen(os.dup(pipe[0])) as lines:
        while at < 4 * LINES:
            line = lines.readline()
            if count := MISSING.search(line):
                at += int(count[1])
            else:
                assert line.startswith(f"line {at} ")
                at += 1
    assert at == 4 * LINES


@pytest.mark.parametrize("trouble", [errno.ENOSPC, errno.EPIPE])
def test_a_log_that_can_not_be_written_goes_on_when_it_can(
    tmp_path: Path, pipe: tuple[int, int], trouble: int
) -> None:
    if trouble == errno.ENOSPC:
        file = os.open("/dev/full", os.O_WRONLY)
    else:
        reader, file = os.pipe()
        os.close(reader)
    log = logger_to(file)
    for _ in range(3):
        log.warning("lost")
    log.handlers[0].flush()
    path = tmp_path / "log"
    with path.open("w") as room:
        os.dup2(room.fileno(), file)
    # It is the next line that has it tried again.
    log.warning("lost")
    wait_for(lambda: MISSING.search(path.read_text()))
    log.warning("after")
    wait_for(lambda: path.read_text().endswith("after\n"))
    os.close(file)
    first, second = path.read_text().splitlines()
    assert first.startswith("4 lines")
    assert second == "after"


def test_a_line_that_was_cut_short_is_not_continued_by_the_next(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("w") as log:
        cut_short = """
import resource
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
log.warning("x" * 200)
logging.getLogger().handlers[0].flush()
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
log.warning("lost")
"""
        with program(cut_short, stderr=log.fileno()) as done:
            assert done.wait(DEADLINE) == 0
    first, second = path.read_text().splitlines()
    assert len(first) == 100
    assert second.endswith("2 lines of this log are missing here: they could not be written")


def test_a_record_that_can_not_be_written_down_stops_nobody(pipe: tuple[int, int]) -> None:
    log = logger_to(pipe[1])
    log.warning("%d", "no number")
    log.warning("\ud800")
    with os.fdopen(os.dup(pipe[0])) as lines:
        assert lines.readline() == "a line for test can't be written down\n"
        assert lines.readline() == "\\ud800\n"


def test_the_last_words_are_out_before_the_end() -> None:
    text = "for number in range(1000): log.critical('%d', number)\nsys.exit(1)"
    with program(text) as done:
        _, errors = done.communicate(timeout=DEADLINE)
    assert done.returncode == 1
    assert [line.split()[-1] for line in errors.splitlines()] == [*map(str, range(1000))]


def test_who_reads_nothing_does_not_hold_up_the_end() -> None:
    text = f"for number in range({LINES}): log.critical('x' * 400)\nsys.exit(1)"
    with ended(program(text)) as held:
        assert held.wait(DEADLINE) == 1


def test_what_python_says_itself_goes_the_same_way() -> None:
    text = f"""
for number in range({LINES}):
    print("x" * 400, file=sys.stderr)
class Defect:
    def __del__(self):
        raise ValueError("nobody can catch this")
Defect()
print("here", flush=True)
"""
    with ended(program(text, stdout=subprocess.PIPE)) as held:
        assert held.stdout is not None
        assert held.stderr is not None
        assert held.stdout.readline() == "here\n"
        assert any(MISSING.search(line) for line in held.stderr)


@pytest.mark.parametrize("off", [0, 1])
def test_the_journal_gets_priorities_and_no_times(off: int, pipe: tuple[int, int]) -> None:
    found = os.fstat(pipe[1])
    named = f"{found.st_dev}:{found.st_ino + off}"
    text = "log.info('a'); log.warning('b\\nc'); log.error('d'); log.critical('e')"
    with program(text, stderr=pipe[1], JOURNAL_STREAM=named) as done:
        assert done.wait(DEADLINE) == 0
    lines = os.read(pipe[0], 4096).decode().splitlines()
    if off:
        # That is a stream of who has started us.
        assert [line[:2] for line in lines] == ["20"] * 4
        return
    assert lines == [
        "<6>info test: a",
        "<4>warning test: b | c",
        "<3>error test: d",
        "<2>critical test: e",
    ]
