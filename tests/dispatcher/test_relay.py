"""What a command writes: kept, whoever dies meanwhile, whatever the command does with it."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import tempfile
import time
from collections.abc import Generator, Iterator
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher import logs, output_files, relay, transits
from dispatcher.pace import PAUSE, Pace
from dispatcher.relay import Relay
from dispatcher.relays import Relays
from dispatcher.transits import Transit, Transits
from tests.kit import wait_for
from tests.kit.disks import fill, small_disk
from tests.kit.driver import Driver
from tests.kit.processes import begun, end, end_pairs, held, holders, runs, starters

JOB = (7, 0)
MIB = 1024 * 1024


# That the bytes can take.
PATHS = ("moved", "carried", "copied")


@contextlib.contextmanager
def taking(path: str) -> Generator[Transit | None]:
    """This path, and what they pass through on it."""
    with pytest.MonkeyPatch.context() as patch:
        if path == "copied":
            patch.setattr(transits, "FORCED_PORTABLE", True)
        if path != "carried" or not transits.can_move():
            yield None
            return
        # From the first byte on.
        patch.setattr(relay, "_MUCH", 1)
        transit = Transit(*os.pipe())
        yield transit
        os.close(transit.outlet)
        os.close(transit.inlet)


@pytest.fixture(params=PATHS)
def way(request: pytest.FixtureRequest) -> Generator[Transit | None]:
    """All of them."""
    with taking(request.param) as transit:
        yield transit


@contextlib.contextmanager
def inside(place: Path) -> Generator[None]:
    """All paths are relative to the state directory."""
    before = Path.cwd()
    os.chdir(place)
    try:
        yield
    finally:
        os.chdir(before)


def begin(limit: int, way: Transit | None = None) -> tuple[Relay, int, int]:
    """An output, what the command is given, and an end of the pipe for who keeps it."""
    kept = output_files.make_pipe(*JOB)
    log = output_files.make_log(*JOB)
    assert log is not None
    served = Relay(*JOB, log, output_files.open_pipe(*JOB), limit, way)
    served.begin()
    return served, served.open(), kept


def let_die(*survivors: int) -> None:
    """Close what a killed process would have open here: all but these."""
    for file in [*Path("/proc/self/fd").iterdir()]:
        with contextlib.suppress(OSError):
            is_here = file.readlink().is_relative_to(Path.cwd())
            if is_here and int(file.name) not in survivors:
                os.close(int(file.name))


def parts_of(log: Path, at_once: int = 1000) -> Iterator[tuple[int, bytes]]:
    """All that is there, as a reader finds it."""
    at = 0
    while True:
        start, data = logs.read(log, at, at_once)
        if not data:
            return
        yield start, data
        at = start + len(data)


# How much is written at once; and if the process that moves it dies then, how much of that it
# has under way.
STEPS = st.lists(st.tuples(st.integers(0, 3000), st.none() | st.integers(0, 3000)), max_size=40)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("limit", [4096, 1 << 20], ids=["short", "long"])
@given(steps=STEPS)
def test_every_byte_is_at_its_place_or_counted(
    path: str, limit: int, steps: list[tuple[int, int | None]]
) -> None:
    written = bytes(number * 7 % 251 for number in range(sum(size for size, _ in steps)))
    with taking(path) as way, tempfile.TemporaryDirectory() as place, inside(Path(place)):
        served, pipe, kept = begin(limit, way)
        sent = 0
        for size, under_way in steps:
            os.write(pipe, written[sent : sent + size])
            sent += size
            if under_way is not None:
                if way and min(size, under_way):
                    os.splice(served.source, way.inlet, under_way)
                let_die(pipe, kept)
                taken = Relay.take_over(*JOB, limit, way)
                assert taken is not None
                served = taken
            served.drain()
        os.close(pipe)
        assert served.take() == 0
        assert served.through
        served.close()
        os.close(kept)
        log = Path(output_files.log_path(*JOB))
        assert served.size == logs.size(log) == len(written)
        found = list(parts_of(log))
        for start, data in found:
            assert written[start : start + len(data)] == data
        there = sum(len(data) for _, data in found)
        assert there <= limit
        if len(written) <= limit // 2:
            assert there == len(written)
        else:
            # Both ends.
            head, tail = logs.ends(log, 0, len(written), limit // 4)
            assert written.startswith(head)
            assert written.endswith(tail)
            assert len(head) == len(tail) == limit // 8
        assert not Path(output_files.pipe_path(*JOB)).exists()


def test_on_a_full_disk_what_is_dropped_is_counted(way: Transit | None, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 1) as disk, inside(disk):
        served, pipe, kept = begin(16 * MIB, way)
        os.write(pipe, b"before\n")
        served.drain()
        fill(disk / "filler")
        for _ in range(3):
            os.write(pipe, b"x" * 40_000)
            served.drain()
        (disk / "filler").unlink()
        os.write(pipe, b"after\n")
        os.close(pipe)
        served.drain()
        served.take()
        served.close()
        os.close(kept)
        log = Path(output_files.log_path(*JOB))
        assert logs.size(log) == 120_000 + 13
        parts = list(parts_of(log))
        assert parts[0][1].startswith(b"before\n")
        assert parts[-1][1].endswith(b"after\n")
        assert sum(len(data) for _, data in parts) < 120_000


# What is taken each time of 64 KiB, how long after the one before it, s; is a pause due then?
PACES = {
    "line by line": (2000, PAUSE, True),
    "now and then": (2000, 10 * PAUSE, False),
    "as much as there is room for": (40_000, PAUSE, False),
    "nothing any more": (0, PAUSE, False),
}


@pytest.mark.parametrize(("taken", "later", "due"), PACES.values(), ids=PACES)
def test_who_writes_line_by_line_is_given_a_moment(taken: int, later: float, due: bool) -> None:
    pace, now = Pace(), 1000.0
    for _ in range(10):
        now += later
        pace.count(taken, 1 << 16, now)
    assert pace.is_pause_due() == due
    # Who does not write is not waited for again.
    assert not pace.is_pause_due()
    now += later
    pace.count(taken, 1 << 16, now)
    assert pace.is_pause_due() == due


def test_nobody_takes_over_what_is_served(tmp_path: Path) -> None:
    with inside(tmp_path):
        served, pipe, kept = begin(4096)
        assert Relay.take_over(*JOB, 4096) is None
        os.close(pipe)
        served.close()
        os.close(kept)
        # Nor what is through.
        assert Relay.take_over(*JOB, 4096) is None
        assert Relay.take_over(8, 0, 4096) is None


def test_what_lost_its_log_is_emptied_all_the_same_by_one_alone(tmp_path: Path) -> None:
    with inside(tmp_path):
        served, pipe, kept = begin(4096)
        Path(output_files.log_path(*JOB)).unlink()
        assert Relay.take_over(*JOB, 4096, lost=True) is None
        let_die(pipe, kept)
        assert Relay.take_over(*JOB, 4096) is None
        taken = Relay.take_over(*JOB, 4096, lost=True)
        assert taken is not None
        os.write(pipe, b"x" * 100)
        taken.drain()
        assert relay.unread(pipe) == 0
        os.close(pipe)
        taken.take()
        assert taken.through
        taken.close()
        os.close(kept)
        del served


def looks(wanting: Relays, times: int) -> None:
    """As often as it says that it wants to look."""
    for _ in range(times):
        patience = wanting.patience
        assert patience is not None
        time.sleep(patience / 1000)
        wanting.look()


def test_the_pipe_of_who_may_still_begin_is_not_taken_away(tmp_path: Path) -> None:
    with inside(tmp_path):
        kept = output_files.make_pipe(*JOB)
        wanting = Relays(select.poll(), Transits())
        wanting.want([*JOB], 4096, os.dup(kept), begun=False)
        looks(wanting, 3)
        # Nobody has it for his output by now.
        assert Path(output_files.pipe_path(*JOB)).exists()
        # Of what has begun it is known that nothing will come.
        wanting.forget([*JOB])
        wanting.want([*JOB], 4096, os.dup(kept))
        looks(wanting, 2)
        assert not Path(output_files.pipe_path(*JOB)).exists()
        assert not wanting.waits_for([*JOB])
        os.close(kept)


def test_a_new_attempt_is_left_alone(tmp_path: Path) -> None:
    with inside(tmp_path):
        kept = output_files.make_pipe(*JOB)
        wanting = Relays(select.poll(), Transits())
        wanting.want([*JOB], 4096, os.dup(kept))
        looks(wanting, 1)
        wanting.forget([*JOB])
        assert wanting.patience is None
        wanting.look()
        assert Path(output_files.pipe_path(*JOB)).exists()
        os.close(kept)


def test_a_range_is_shown_as_far_as_it_is_there_and_no_further(tmp_path: Path) -> None:
    log = tmp_path / "0.log"
    log.write_bytes(b"a" * 100)
    more = log.with_suffix(".more")
    more.mkdir()
    (more / "500").write_bytes(b"b" * 49 + "é".encode()[:1])
    (more / "550").write_bytes("é".encode()[1:] + b"c" * 29)
    (more / ".nfs1").touch()
    # Within one file, over a boundary, into a gap, out of one, in one.
    assert logs.ends(log, 10, 20, 1000) == (b"a" * 10, b"")
    assert logs.ends(log, 545, 555, 1000) == (b"bbbb" + "é".encode() + b"cccc", b"")
    assert logs.ends(log, 90, 130, 1000) == (b"a" * 10, b"")
    assert logs.ends(log, 490, 502, 1000) == (b"", b"bb")
    assert logs.ends(log, 200, 240, 1000) == (b"", b"")
    assert logs.ends(log, 0, 580, 20) == (b"a" * 10, b"c" * 10)
    assert logs.read(log, 540, 1000) == (540, b"b" * 9 + "é".encode() + b"c" * 29)
    assert logs.whole_characters(log, 500, 550) == 549


WAYS = {
    "redirection": "echo one; echo two >/dev/stderr; echo three",
    "standard output": "echo one; echo two >/dev/stdout; echo three",
    "descriptor": "echo one; echo two >/dev/fd/2; echo three",
    "tee": "echo one; echo two | tee /dev/stderr >/dev/null; echo three",
    "cut": "echo one; echo two; truncate -s 0 /dev/stdout 2>/dev/null; echo three",
}


@pytest.mark.parametrize("script", WAYS.values(), ids=WAYS.keys())
def test_a_command_that_opens_its_output_anew_takes_nothing_away(
    daemon: Driver, script: str
) -> None:
    uid = daemon.submit(["sh", "-c", script])
    job = daemon.finished(uid)
    assert daemon.output(uid) == b"one\ntwo\nthree\n"
    assert job.commands[0].log_size == 14


NUMBERS = 200_000
ALL = b"".join(b"%d\n" % number for number in range(1, NUMBERS + 1))
# Lines, as programs write them; then a wait for `go`, and a last word.
COUNTS = f"seq {NUMBERS}; while [ ! -e go ]; do sleep 0.02; done; echo last"


@pytest.mark.parametrize("victims", ["starter", "keeper", "all", "starter, then keeper"])
def test_output_survives_whoever_moves_it(daemon: Driver, victims: str) -> None:
    uid = daemon.submit(["sh", "-c", COUNTS], cwd=str(daemon.state_dir))
    wait_for(lambda: daemon.output(uid) and begun(daemon.state_dir))
    dying: list[int] = []
    if victims == "all":
        dying += reversed(holders(daemon.state_dir))
    if victims.startswith(("starter", "all")):
        dying += starters(daemon.state_dir, busy=True)
    if victims.endswith("keeper"):
        dying += holders(daemon.state_dir, "keeper")
    for process in [psutil.Process(pid) for pid in dying]:
        end(process.pid)
        wait_for(lambda: not runs(process))  # noqa: B023 - called here
    wait_for(lambda: daemon.output(uid) == ALL)
    # Somebody goes on with it.
    wait_for(lambda: held(daemon.state_dir))
    (daemon.state_dir / "go").touch()
    job = daemon.finished(uid)
    assert daemon.output(uid) == ALL + b"last\n"
    assert job.commands[0].log_size == len(ALL) + 5


BLOCK = b"".join(b"%015d\n" % number for number in range(8 * MIB // 16))
# Where bytes are copied out of the pipe, those are lost with who has them.
NOTHING_IS_LOST = pytest.mark.skipif(not transits.can_move(), reason="bytes are copied")


class Pouring:
    """A job that writes much at once, at each place something else, until it is stopped."""

    def __init__(self, daemon: Driver) -> None:
        self._daemon = daemon
        place = daemon.state_dir
        if not (place / "block").exists():
            (place / "block").write_bytes(BLOCK)
        others = starters(place, busy=True)
        self._go = place / f"go{time.monotonic_ns()}"
        script = f"while [ ! -e {self._go} ]; do cat block; done"
        self.uid = daemon.submit(["sh", "-c", script], cwd=str(place))
        self._log = logs.path(place, self.uid, 0)
        self.pours(4)
        (self.starter,) = {*starters(place, busy=True)} - {*others}

    def pours(self, blocks: int) -> None:
        """Wait until it has written so many more."""
        least = self._size() + blocks * len(BLOCK)
        wait_for(lambda: self._size() > least)

    def stop(self) -> None:
        """See all that it has written."""
        self._go.touch()
        size = self._daemon.finished(self.uid).commands[0].log_size
        assert size
        assert size == self._size()
        assert size % len(BLOCK) == 0
        for start, data in parts_of(self._log, MIB):
            assert (BLOCK + BLOCK[:MIB])[start % len(BLOCK) :].startswith(data), start

    def _size(self) -> int:
        return logs.size(self._log) or 0 if self._log.exists() else 0


def kill(*pids: int) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


@NOTHING_IS_LOST
@pytest.mark.parametrize(
    "victims", ["starter", "guard starter", "keeper starter", "starter keeper"]
)
def test_of_much_output_nothing_is_lost_or_doubled_whoever_moves_it(
    tmp_path: Path, victims: str
) -> None:
    with Driver(tmp_path) as daemon:
        for _ in range(10):
            job = Pouring(daemon)
            there = {role: holders(tmp_path, role) for role in ("guard", "keeper")}
            there["starter"] = [job.starter]
            kill(*(pid for role in victims.split() for pid in there[role]))
            job.pours(2)
            job.stop()


@NOTHING_IS_LOST
def test_what_was_under_way_of_one_comes_into_no_others_log(tmp_path: Path) -> None:
    with Driver(tmp_path) as daemon:
        for _ in range(5):
            first = Pouring(daemon)
            kill(first.starter)
            first.pours(1)
            second = Pouring(daemon)
            kill(*holders(tmp_path, "keeper"), second.starter)
            for job in (first, second):
                job.pours(2)
            for job in (first, second):
                job.stop()


def test_who_is_left_behind_by_a_job_is_served_on(daemon: Driver) -> None:
    script = f"(while [ ! -e go ]; do sleep 0.02; done; seq {NUMBERS}) & echo end"
    uid = daemon.submit(["sh", "-c", script], cwd=str(daemon.state_dir))
    assert daemon.finished(uid).commands[0].log_size == 4
    daemon.kill()
    end_pairs(daemon.state_dir)
    daemon.start()
    (daemon.state_dir / "go").touch()
    wait_for(lambda: daemon.output(uid) == b"end\n" + ALL)
    wait_for(lambda: not held(daemon.state_dir))


def test_of_a_long_log_both_ends_are_kept(tmp_path: Path) -> None:
    limit = 128 * 1024
    with Driver(tmp_path, command_log_limit=limit) as daemon:
        uid = daemon.submit(["seq", str(NUMBERS)])
        job = daemon.finished(uid)
        assert job.commands[0].log_size == len(ALL)
        log = logs.path(tmp_path, uid, 0)
        files = [log, *log.with_suffix(".more").iterdir()]
        assert sum(file.stat().st_size for file in files) <= limit
        head, tail = logs.ends(log, 0, len(ALL), limit // 2)
        assert (len(head), len(tail)) == (limit // 4, limit // 4)
        assert ALL.startswith(head)
        assert ALL.endswith(tail)


@pytest.mark.long
def test_twenty_gigabytes_cost_the_daemon_no_memory(tmp_path: Path) -> None:
    size = 20 * 1024 * MIB
    with Driver(tmp_path) as daemon:
        daemon.finished(daemon.submit("true"))
        assert daemon.process is not None
        ours = [daemon.process.pid, *holders(tmp_path), *starters(tmp_path)]
        before = {pid: psutil.Process(pid).memory_info().rss for pid in ours}
        uid = daemon.submit(["sh", "-c", f"head -c {size} /dev/zero; echo end"])
        most = dict(before)
        while daemon.job(uid).state != "finished":
            for pid in ours:
                most[pid] = max(most[pid], psutil.Process(pid).memory_info().rss)
        assert daemon.job(uid).commands[0].log_size == size + 4
        assert logs.ends(logs.path(tmp_path, uid, 0), 0, size + 4, 10)[1] == b"\0end\n"
        for pid in ours:
            assert most[pid] - before[pid] <= 16 * MIB


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("size", [0, 3, 50_000])
def test_what_dead_ones_left_is_followed_by_its_end(tmp_path: Path, size: int) -> None:
    with inside(tmp_path):
        Path("jobs/1").mkdir(parents=True)
        kept = output_files.make_pipe(1, 0)
        log = output_files.make_log(1, 0)
        assert log is not None
        # Its starter has died, and then the command.
        writer = os.open(output_files.pipe_path(1, 0), os.O_RDWR | os.O_NONBLOCK)
        assert os.write(writer, b"x" * size) == size
        os.close(writer)
        os.close(log)
        relays = Relays(select.poll(), Transits())
        relays.want([1, 0], MIB, kept)
        relays.look()
        assert not relays.serves
        assert not relays.waits_for([1, 0])
        assert Path(output_files.log_path(1, 0)).stat().st_size == size
        assert not [*Path(output_files.PIPES).iterdir()]
