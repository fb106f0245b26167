"""The stand-ins of class jobs' programs, held against the recordings that they replay."""

from __future__ import annotations

import contextlib
import errno
import http.client
import io
import os
import selectors
import signal
import socket
import subprocess
import tempfile
import time
import urllib.parse
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.kit.processes import runs
from tests.kit.replay import STEPS, Recorded, Served, Tools, recording
from tests.kit.waiting import DEADLINE, wait_for

# Of events that a FIFO holds even if nobody reads it.
CASES = (
    "fail-corrupt",
    "install-deps",
    "install-message-unicode",
    "install-several-tty",
    "kill-term-fetch",
    "audit-raw-json",
    "remove-unknown",
    "update-uptodate-quiet",
    "usage-error",
)
URL = "http://mirror.test/images/FreeBSD 14.iso"
LINE = b"        2929 kB  580 kBps    05s\n"


@pytest.fixture
def tools() -> Generator[Tools]:
    """In a folder with a short name: the path of a socket may not be long."""
    with tempfile.TemporaryDirectory(prefix="play") as folder:
        yield Tools(Path(folder))


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a run; connections: to the socket."""

    returncode: int
    output: bytes
    events: bytes
    connections: int = 0


def start(tools: Tools, *argv: str, **environment: str) -> subprocess.Popen[bytes]:
    """Start one of them in a process group of its own."""
    return subprocess.Popen(
        [tools.folder / argv[0], *argv[1:]],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
        process_group=0,
    )


def run(tools: Tools, *argv: str, pipe: str = "", close_after: int = -1) -> Outcome:
    """Run it while its events are read. pipe: fifo or socket; close_after: so many bytes."""
    path = tools.folder / f"events.{pipe}"
    output, events, connections = bytearray(), bytearray(), list[socket.socket]()
    with contextlib.ExitStack() as stack:
        selector = stack.enter_context(selectors.DefaultSelector())

        def read(file: int, into: bytearray) -> None:
            data = os.read(file, 4096)
            into += data
            enough = into is events and 0 < close_after <= len(events)
            if enough or not data:
                selector.unregister(file)
            if enough:
                connections[0].close()

        def accept(door: socket.socket) -> None:
            connections.append(stack.enter_context(door.accept()[0]))
            follow(connections[-1].fileno(), events)

        def follow(file: int, into: bytearray) -> None:
            selector.register(file, selectors.EVENT_READ, lambda: read(file, into))

        if pipe == "fifo":
            follow(stack.enter_context(fifo(path)).fileno(), events)
        elif pipe == "socket":
            door = stack.enter_context(socket.socket(socket.AF_UNIX))
            door.bind(str(path))
            door.listen()
            selector.register(door, selectors.EVENT_READ, lambda: accept(door))
        environment = {"EVENT_PIPE": str(path)} if pipe else {}
        process = stack.enter_context(start(tools, *argv, **environment))
        stack.callback(process.kill)
        assert process.stdout is not None
        stdout = process.stdout.fileno()
        follow(stdout, output)
        while stdout in selector.get_map() or selector.select(0):
            ready = selector.select(DEADLINE)
            assert ready, "it says nothing"
            for key, _ in ready:
                key.data()
        returncode = process.wait()
    path.unlink(missing_ok=True)
    return Outcome(returncode, bytes(output), bytes(events), len(connections))


def fifo(path: Path) -> io.FileIO:
    """A new one, open for reading though nobody writes to it yet."""
    os.mkfifo(path)
    return io.FileIO(path, opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))


@contextlib.contextmanager
def fetching(tools: Tools, target: Path) -> Generator[subprocess.Popen[bytes]]:
    """A fetch, which is killed at the end: it may be held."""
    with start(tools, "fetch", "-o", str(target), URL) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for_size(file: Path, size: int) -> None:
    """Wait until it has just that."""
    wait_for(lambda: file.exists() and file.stat().st_size == size, f"{size} bytes")


def lines(events: list[bytes]) -> bytes:
    return b"".join(line + b"\n" for line in events)


def start_held(
    tools: Tools, held_before: int, speed: float | None = None
) -> tuple[subprocess.Popen[bytes], int]:
    """A slowpkg that stops there, once all before it is out; and the pid of its worker."""
    tools.install("pkg")
    hold = (held_before, tools.folder / "go")
    told = tools.play("pkg", "install-slow-scripts", speed=speed, hold=hold)
    before = b"".join(data for _, kind, data, _ in told.items[:held_before] if kind == "text")
    process = start(tools, *told.argv)
    assert process.stdout is not None
    assert process.stdout.read(len(before)) == before
    return process, tools.workers()[-1]


def is_alive(pid: int) -> bool:
    try:
        return runs(psutil.Process(pid))
    except psutil.NoSuchProcess:
        return False


def go_on(tools: Tools) -> None:
    (tools.folder / "go").touch()


@pytest.mark.parametrize("pipe", ["fifo", "socket"])
@pytest.mark.parametrize("case", CASES)
def test_pkg_does_what_it_was_recorded_to_do(tools: Tools, case: str, pipe: str) -> None:
    tools.install("pkg")
    told = tools.play("pkg", case, speed=None)
    done = run(tools, *told.argv, pipe=pipe)
    assert done.output == told.output
    assert done.events == lines(told.events)
    assert done.returncode == told.returncode


def test_a_socket_loses_no_event(tools: Tools) -> None:
    tools.install("pkg")
    told = tools.play("pkg", "upgrade", speed=None)
    done = run(tools, "pkg", "upgrade", "-y", pipe="socket")
    assert (done.events, done.connections) == (lines(told.events), 1)


def test_a_full_fifo_loses_whole_events(tools: Tools) -> None:
    tools.install("pkg")
    told = tools.play("pkg", "upgrade", speed=None)
    path = tools.folder / "events"
    with fifo(path) as pipe:
        with start(tools, *told.argv, EVENT_PIPE=str(path)) as process:
            assert process.stdout is not None
            assert process.stdout.read() == told.output
        got = pipe.readall()
    assert got.endswith(b"\n")
    read = got.split(b"\n")[:-1]
    assert 10 < len(read) < len(told.events)
    assert set(read) <= set(told.events)


def test_times_are_kept(tools: Tools) -> None:
    tools.install("pkg")
    told = tools.play("pkg", "install-slow-scripts", speed=10)
    begun = time.monotonic()
    with start(tools, *told.argv) as process:
        assert process.stdout is not None
        came = [(time.monotonic() - begun, line) for line in process.stdout]
    assert time.monotonic() - begun >= told.elapsed / 10
    for wanted in (b"step 2", b"step 4"):
        recorded = next(at for at, _, data, _ in told.items if wanted in data)
        assert next(at for at, line in came if wanted in line) >= recorded / 10


@pytest.mark.parametrize(
    ("kind", "complaint"),
    [
        ("none", "No such event pipe: {}"),
        ("file", "{} is not a fifo or socket"),
        ("fifo", "Open event pipe({}): " + os.strerror(errno.ENXIO)),
        ("socket", "Connect event pipe({}): " + os.strerror(errno.ECONNREFUSED)),
    ],
)
def test_pkg_goes_on_without_events(tools: Tools, kind: str, complaint: str) -> None:
    tools.install("pkg")
    told = tools.play("pkg", "install-deps", speed=None)
    path = tools.folder / "events"
    if kind == "file":
        path.touch()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as door:
            door.bind(str(path))
    with start(tools, *told.argv, EVENT_PIPE=str(path)) as process:
        output = process.communicate()[0]
    assert output == f"pkg: {complaint.format(path)}\n".encode() + told.output
    assert process.returncode == 0


def test_a_complaint_that_was_recorded_is_not_made_twice(tools: Tools) -> None:
    tools.install("pkg")
    told = tools.play("pkg", "events-missing", speed=None)
    with start(tools, *told.argv, EVENT_PIPE="/nonexistent") as process:
        assert process.communicate()[0] == told.output


def test_pkg_connects_once(tools: Tools) -> None:
    tools.install("pkg")
    told = tools.play("pkg", "upgrade", speed=None)
    done = run(tools, *told.argv, pipe="socket", close_after=2000)
    assert done.output == told.output
    assert (done.returncode, done.connections) == (0, 1)
    assert 0 < len(done.events) < len(lines(told.events))


def test_pkg_without_event_pipe_sends_none(tools: Tools) -> None:
    tools.install("pkg")
    told = tools.play("pkg", "install-no-event-pipe", speed=None)
    assert run(tools, *told.argv) == Outcome(0, told.output, b"")


def test_the_worker_of_pkg_outlives_who_was_started(tools: Tools) -> None:
    told = recording("pkg", "install-slow-scripts")
    place = told.before("step 2")
    process, worker = start_held(tools, place)
    with process:
        assert worker != process.pid == tools.calls("pkg")[0].pid
        assert os.getpgid(worker) == process.pid
        process.terminate()
        assert process.wait() == -signal.SIGTERM
        assert is_alive(worker)
        go_on(tools)
        assert process.stdout is not None
        rest = b"".join(data for _, kind, data, _ in told.items[place:] if kind == "text")
        assert process.stdout.read() == rest
        wait_for(lambda: not is_alive(worker), "the end of the worker")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_signal_to_the_group_ends_pkg_without_a_word(
    tools: Tools, number: signal.Signals
) -> None:
    process, worker = start_held(tools, 5)
    with process:
        os.killpg(process.pid, number)
        assert process.communicate()[0] == b""
        assert process.returncode == -number
        wait_for(lambda: not is_alive(worker), "the end of the worker")


def test_pkg_tells_what_killed_its_worker(tools: Tools) -> None:
    process, worker = start_held(tools, 5)
    with process:
        os.kill(worker, signal.SIGKILL)
        text = f"Child process pid={worker} terminated abnormally: Killed\n"
        assert process.communicate()[0] == text.encode()
        assert process.returncode == 128 + signal.SIGKILL


def test_a_signal_to_pkg_alone_is_replayed(tools: Tools) -> None:
    tools.install("pkg")
    told = tools.play("pkg", "kill-term-parent-only", speed=None)
    done = run(tools, *told.argv, pipe="socket")
    assert done == Outcome(-signal.SIGTERM, told.output, lines(told.events), 1)


def test_what_is_held_goes_on_where_it_was(tools: Tools) -> None:
    place = recording("pkg", "install-slow-scripts").before("Extracting")
    # From there on it takes half a second.
    process, worker = start_held(tools, place, speed=16)
    with process, selectors.DefaultSelector() as selector:
        assert process.stdout is not None
        selector.register(process.stdout, selectors.EVENT_READ)
        assert not selector.select(0.6)
        assert is_alive(worker)
        go_on(tools)
        begun = time.monotonic()
        assert process.stdout.readline().startswith(b"[1/1] Extracting")
        process.communicate()
        assert time.monotonic() - begun > 0.2


def test_it_can_be_held_before_its_end(tools: Tools) -> None:
    told = recording("pkg", "install-slow-scripts")
    process, _ = start_held(tools, len(told.items))
    with process:
        assert process.poll() is None
        go_on(tools)
        assert process.communicate()[0] == b""


def test_the_last_that_fits_is_played(tools: Tools) -> None:
    tools.install("pkg")
    audit = tools.play("pkg", "audit-qr", when=("audit", "-qr"), speed=None)
    upgrade = tools.play("pkg", "upgrade-check", when=("upgrade",), speed=None)
    tools.say("pkg", "none\n", 1, when=("upgrade", "-n"))
    tools.say("pkg", "just so\n", argv=("audit", "-qr", "-x"))
    assert run(tools, "pkg", "audit", "-qr").output == audit.output
    assert run(tools, "pkg", "upgrade", "-y").output == upgrade.output
    assert run(tools, "pkg", "upgrade", "-y", "-n") == Outcome(1, b"none\n", b"")
    assert run(tools, "pkg", "audit", "-qr", "-x").output == b"just so\n"
    text = b"stand-in: nothing to play for audit -q\n"
    assert run(tools, "pkg", "audit", "-q") == Outcome(97, text, b"")


def test_calls_are_told_with_their_environment(tools: Tools) -> None:
    tools.install("freebsd-update")
    assert tools.calls("freebsd-update") == []
    odd = 'a "b" \\ \n \N{SNOWMAN}\N{PILE OF POO}\udcff'
    with start(tools, "freebsd-update", odd, PAGER="cat", HOME="/", EVENT_PIPE=odd) as process:
        process.communicate()
    (call,) = tools.calls("freebsd-update")
    assert call.argv == ("freebsd-update", odd)
    assert call.env == {"PAGER": "cat", "EVENT_PIPE": odd}
    assert (call.pid, process.returncode) == (process.pid, 97)


@pytest.mark.parametrize(
    ("name", "case"),
    [
        ("freebsd-update", "fetch-updates"),
        ("freebsd-update", "fetch-tty"),
        ("freebsd-update", "fetch-killed"),
        ("freebsd-update", "fetch-eol-past"),
        ("freebsd-update", "install"),
        ("freebsd-update", "install-none"),
    ],
)
def test_freebsd_update_does_what_it_was_recorded_to_do(
    tools: Tools, name: Recorded, case: str
) -> None:
    tools.install(name)
    told = tools.play(name, case, speed=None)
    assert run(tools, name, "install") == Outcome(told.returncode, told.output, b"")


def test_a_download_grows(tools: Tools) -> None:
    tools.install("fetch")
    for step in (1, STEPS // 2):
        tools.play("fetch", "piped", speed=None, hold=(step + 2, tools.folder / "go"))
        with fetching(tools, tools.folder) as process:
            file = tools.folder / "FreeBSD 14.iso"
            wait_for_size(file, 3_000_000 * step // STEPS)
            go_on(tools)
            shown = f"{file}".ljust(46).encode()
            assert process.communicate()[0] == shown + LINE
        assert file.stat().st_size == 3_000_000
        file.unlink()
        (tools.folder / "go").unlink()


def test_a_download_takes_its_time(tools: Tools) -> None:
    tools.install("fetch")
    told = tools.play("fetch", "piped", speed=10)
    file = tools.folder / "to.iso"
    sizes: set[int] = set()
    begun = time.monotonic()
    with fetching(tools, file) as process:
        while process.poll() is None:
            sizes.add(file.stat().st_size if file.exists() else 0)
            time.sleep(0.01)
        process.communicate()
    assert time.monotonic() - begun >= told.elapsed / 10
    assert len(sizes) > 2


def test_a_download_that_is_ended_leaves_its_part(tools: Tools) -> None:
    tools.install("fetch")
    tools.play("fetch", "piped", speed=None, hold=(32, tools.folder / "go"))
    file = tools.folder / "to.iso"
    with fetching(tools, file) as process:
        wait_for_size(file, 900_000)
        process.terminate()
        assert process.communicate()[0] == str(file).ljust(46).encode()
    assert (process.returncode, file.stat().st_size) == (-signal.SIGTERM, 900_000)


@pytest.mark.parametrize(("case", "size"), [("killed-term", 1_196_032), ("truncated", 999_424)])
def test_a_recorded_part_stays(tools: Tools, case: str, size: int) -> None:
    tools.install("fetch")
    told = tools.play("fetch", case, speed=None)
    file = tools.folder / ("long" * 12)
    done = run(tools, "fetch", "-o", str(file), URL)
    known = b"/scratch/vm/.iso/disc1.iso"
    text = told.output.replace(known.ljust(46), bytes(file)).replace(known, bytes(file))
    assert done.output == text
    assert (done.returncode, file.stat().st_size) == (told.returncode, size)


def test_a_file_that_is_there_is_replaced_at_the_end(tools: Tools) -> None:
    tools.install("fetch")
    file = tools.folder / "to.iso"
    file.write_text("old")
    tools.play("fetch", "piped", speed=None, hold=(52, tools.folder / "go"))
    with fetching(tools, file) as process:
        part = wait_for(lambda: next(iter(tools.folder.glob(".fetch.*.to.iso")), None))
        wait_for_size(part, 1_500_000)
        assert file.read_text() == "old"
        go_on(tools)
        process.communicate()
    assert (file.stat().st_size, part.exists()) == (3_000_000, False)


def test_fetch_says_what_is_wrong_with_what_it_was_given(tools: Tools) -> None:
    tools.install("fetch")
    tools.play("fetch", "not-found", speed=None)
    text = f"fetch: {URL}: Not Found\n".encode()
    assert run(tools, "fetch", "-o", "/nowhere/here/", URL) == Outcome(1, text, b"")
    text = b"fetch: /nowhere/here/: open(): No such file or directory\n"
    for case in ("bad-directory", "piped"):
        tools.play("fetch", case, speed=None)
        assert run(tools, "fetch", "-o", "/nowhere/here/", URL) == Outcome(1, text, b"")


def test_fetch_cuts_a_name_on_a_terminal(tools: Tools) -> None:
    tools.install("fetch")
    tools.play("fetch", "tty", speed=None)
    file = tools.folder / ("long" * 12)
    done = run(tools, "fetch", "-o", str(file), URL)
    told = recording("fetch", "tty").output
    known = b"/scratch/vm/.iso/disc1.iso".ljust(46)
    assert done.output == told.replace(known, bytes(file)[:46])


@pytest.mark.parametrize(
    ("case", "size"), [("piped", 3_000_000), ("no-length-tty", None), ("refused", None)]
)
def test_fetch_tells_a_size_that_it_knows(tools: Tools, case: str, size: int | None) -> None:
    tools.install("fetch")
    tools.play("fetch", case)
    text = f"{size}\n".encode() if size else b""
    assert run(tools, "fetch", "-s", URL) == Outcome(int(size is None), text, b"")


def test_vm_fetches_as_its_last_command(tools: Tools) -> None:
    tools.install("fetch")
    tools.install("vm")
    tools.play("fetch", "piped", speed=None)
    assert run(tools, "vm", "iso").output == b"DATASTORE           FILENAME\n"
    done = run(tools, "vm", "iso", URL)
    shown = f"{tools.isos / 'FreeBSD 14.iso'}".ljust(46).encode()
    assert (done.returncode, done.output) == (0, shown + LINE)
    (fetched,) = tools.calls("fetch")
    assert fetched.argv == ("fetch", "-o", str(tools.isos), URL)
    assert fetched.pid == tools.calls("vm")[-1].pid
    text = b"DATASTORE           FILENAME\ndefault             FreeBSD\n"
    assert run(tools, "vm", "iso").output == text
    done = run(tools, "vm", "iso", "-d", "x", URL)
    said = f"{tools.folder / 'vm'}: ERROR: unable to locate path for datastore 'x'\n"
    assert (done.returncode, done.output) == (1, said.encode())


def test_vm_says_what_it_was_told_to(tools: Tools) -> None:
    tools.install("vm")
    tools.say("vm", "vm-bhyve: 1.6\n", when=("version",))
    tools.say("vm", "", 1, when=("start", "web"))
    assert run(tools, "vm", "version").output == b"vm-bhyve: 1.6\n"
    assert run(tools, "vm", "start", "web").returncode == 1
    assert run(tools, "vm", "stop", "web").returncode == 97


def test_shutdown_does_nothing(tools: Tools) -> None:
    tools.install("shutdown")
    tools.say("shutdown", "no", 1)
    assert run(tools, "shutdown", "-r", "now") == Outcome(0, b"", b"")
    assert [call.argv for call in tools.calls("shutdown")] == [("shutdown", "-r", "now")]


@pytest.mark.parametrize("lengths", [True, False])
def test_files_are_served_that_are_not_there(lengths: bool) -> None:
    with Served({"/disc1.iso": 200_000}, lengths=lengths) as served:
        address = urllib.parse.urlsplit(served.url("")).netloc
        for method, path in (("HEAD", "/disc1.iso"), ("GET", "/disc1.iso"), ("GET", "/none")):
            connection = http.client.HTTPConnection(address, timeout=10)
            connection.request(method, path)
            with connection.getresponse() as response:
                known = response.getheader("Content-Length")
                body = response.read()
            connection.close()
            if path == "/none":
                assert (response.status, body) == (404, b"")
            else:
                assert response.status == 200
                assert known == ("200000" if lengths else None)
                assert body == (b"" if method == "HEAD" else bytes(200_000))
        assert served.requests[:2] == [("HEAD", "/disc1.iso"), ("GET", "/disc1.iso")]


def test_a_served_file_may_be_left_unread() -> None:
    with Served({"/disc1.iso": 1 << 40}) as served:
        address = urllib.parse.urlsplit(served.url("")).netloc
        connection = http.client.HTTPConnection(address, timeout=10)
        connection.request("GET", "/disc1.iso")
        with connection.getresponse() as response:
            assert response.read(10) == bytes(10)
        connection.close()
