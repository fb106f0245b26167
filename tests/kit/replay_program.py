"""A program that behaves as a recorded one did: `tests.kit.replay` puts copies under its names.

What it plays lies in the folder of the copy. It stands alone, and imports what every Python has
loaded anyhow: json, pathlib, signal or typing would double the time that it takes to start.
"""
# So no pathlib here:
# ruff: noqa: PTH100, PTH104, PTH110, PTH112, PTH113, PTH116, PTH118, PTH119, PTH120, PTH123, PTH208

import marshal
import os
import stat
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Any

# What is told of the environment.
TOLD = ("ASSUME_ALWAYS_YES", "REPO_AUTOUPDATE", "EVENT_PIPE", "PAGER")
NOTHING_TO_PLAY = 97
HELD_TOO_LONG = 98
# How long a test may hold it, unless its folder goes before: no worker is there for ever; s.
LONGEST_HOLD = 120.0
# fetch pads the name of its file to so many columns.
NAME_WIDTH = 46


class EventPipe:
    """Where pkg sends its events. Source: connect_evpipe and pipeevent of libpkg."""

    def __init__(self, path: str) -> None:
        self._write: Callable[[bytes], int] | None = None
        self._blocks = False
        try:
            mode = os.stat(path).st_mode
        except OSError:
            complain(f"No such event pipe: {path}")
            return
        if stat.S_ISFIFO(mode):
            try:
                pipe = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
            except OSError as error:
                complain(f"Open event pipe({path}): {error.strerror}")
            else:
                self._write = lambda data: os.write(pipe, data)
        elif stat.S_ISSOCK(mode):
            # Not `socket`, which takes longer to load than all the rest.
            from _socket import AF_UNIX, SOCK_STREAM, socket

            door = socket(AF_UNIX, SOCK_STREAM)
            try:
                door.connect(path)
            except OSError as error:
                complain(f"Connect event pipe({path}): {os.strerror(error.errno or 0)}")
            else:
                self._write, self._blocks = door.send, True
        else:
            complain(f"{path} is not a fifo or socket")

    def send(self, line: bytes) -> None:
        """Send a line; a full FIFO loses it. Once a socket has failed, nothing is sent."""
        while self._write is not None and line:
            try:
                line = line[self._write(line) :]
            except OSError:
                # Without a word: pkg doesn't look what became of it.
                if self._blocks:
                    self._write = None
                return


class File:
    """What fetch writes: its target, or a file beside it while the target is an old one."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._part = path
        self._file = -1
        self._size = 0

    def grow(self, size: int) -> None:
        """Make it so large. Raises: OSError, also if it can't be opened."""
        if self._file == -1:
            if os.path.isfile(self.path):
                folder, name = os.path.split(self.path)
                self._part = os.path.join(folder, f".fetch.{os.getpid():06}.{name}")
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
            self._file = os.open(self._part, flags, 0o666)
        write(self._file, bytes(size - self._size))
        self._size = size

    def finish(self) -> None:
        """It is whole: let it take its name."""
        if self._part != self.path:
            os.rename(self._part, self.path)


def complain(text: str) -> None:
    """Say it as pkg does."""
    write(2, f"pkg: {text}\n".encode())


def write(file: int, data: bytes) -> None:
    """Write all of it; nothing happens if nobody reads it."""
    try:
        while data:
            data = data[os.write(file, data) :]
    except BrokenPipeError:
        pass


def quoted(text: str) -> str:
    """A JSON string."""
    out = ""
    for char in text:
        if char in '"\\':
            out += "\\" + char
        elif " " <= char <= "~":
            out += char
        else:
            units = char.encode("utf-16-be", "surrogatepass").hex()
            out += "".join("\\u" + units[at : at + 4] for at in range(0, len(units), 4))
    return f'"{out}"'


def append(path: str, line: str) -> None:
    """One write, so that lines of several processes don't mix."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.write(file, line.encode() + b"\n")
    os.close(file)


def record_call(place: str, arguments: list[str]) -> None:
    """Tell who was called, and how."""
    argv = ", ".join(map(quoted, [os.path.basename(place), *arguments]))
    told = [name for name in TOLD if name in os.environ]
    env = ", ".join(f"{quoted(name)}: {quoted(os.environ[name])}" for name in told)
    append(f"{place}.calls", f'{{"argv": [{argv}], "env": {{{env}}}, "pid": {os.getpid()}}}')


def find(place: str, arguments: list[str]) -> "dict[str, Any] | None":
    """What is to be played: of what fits, that which was registered last."""
    try:
        with open(f"{place}.plays", "rb") as file:
            plays: list[tuple[tuple[str, ...], tuple[str, ...] | None, str]]
            plays = marshal.load(file)
    except FileNotFoundError:
        return None
    for when, argv, name in reversed(plays):
        if set(when) <= set(arguments) and argv in (None, tuple(arguments)):
            with open(os.path.join(os.path.dirname(place), name), "rb") as file:
                found: dict[str, Any] = marshal.load(file)
            return found
    return None


def play(
    script: "dict[str, Any]",
    text: "Callable[[bytes], None]",
    event: "Callable[[bytes], None]",
    grow: "Callable[[int], None]",
    parent: int,
) -> int:
    """Do all that is in it at its times.

    parent: who waits for us, and dies of the signal that it died of; 0: nobody.
    Returns the exit status; is killed where the recorded one was.
    """
    hold: tuple[int, str] | None = script["hold"]
    speed: float | None = script["speed"]
    ends_by: int = script["returncode"]
    begun = time.monotonic()

    def wait(at: float) -> None:
        if speed is not None:
            time.sleep(max(0.0, begun + at / speed - time.monotonic()))

    items: list[tuple[float, str, bytes, int]] = script["items"]
    for number, (at, kind, data, value) in enumerate((*items, (script["end"], "", b"", 0))):
        if hold is not None and hold[0] == number:
            since, folder = time.monotonic(), os.path.dirname(hold[1])
            while not os.path.exists(hold[1]):
                late = time.monotonic() > since + LONGEST_HOLD
                if late or not os.path.isdir(folder):
                    write(2, b"stand-in: held too long\n")
                    return HELD_TOO_LONG
                time.sleep(0.01)
            begun += time.monotonic() - since
        wait(at)
        if kind == "text":
            text(data)
        elif kind == "event":
            event(data + b"\n")
        elif kind == "grow":
            grow(value)
        elif kind == "end parent":
            end(parent, value)
    if ends_by < 0:
        end(parent, -ends_by)
        os.kill(os.getpid(), -ends_by)
    return ends_by


def end(parent: int, number: int) -> None:
    """Signal our parent, while it is that."""
    if parent and os.getppid() == parent:
        os.kill(parent, number)


def no_growth(size: int) -> None:
    """Nothing grows but what fetch fetches."""


def no_event(line: bytes) -> None:
    """Nothing has events but pkg."""


def to_stdout(data: bytes) -> None:
    write(1, data)


def pkg(place: str, script: "dict[str, Any]") -> int:
    """Let a worker do it and wait for it. Source: start_process_worker of pkg."""
    parent = os.getpid()
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):
            return os.waitstatus_to_exitcode(status)
        from signal import strsignal

        number = os.WTERMSIG(status)
        text = f"Child process pid={child} terminated abnormally: {strsignal(number)}\n"
        write(2, text.encode())
        return 128 + number
    append(f"{place}.workers", str(os.getpid()))
    path = os.environ.get("EVENT_PIPE")
    # Where nobody listened, the recorded text has the complaint.
    pipe = EventPipe(path) if path and not script["complained"] else None
    return play(script, to_stdout, pipe.send if pipe else no_event, no_growth, parent)


def fetch(script: "dict[str, Any]", arguments: list[str]) -> int:
    """Fetch to a file that grows; the recorded texts name it and the real URL."""
    target, url, asks_size, rest = "", "", False, iter(arguments)
    for argument in rest:
        if not argument.startswith("-"):
            url = argument
        elif argument.endswith("o"):
            target = next(rest, "")
        asks_size = asks_size or (argument.startswith("-") and "s" in argument)
    if asks_size:
        if script.get("size") is None:
            return 1
        to_stdout(b"%d\n" % script["size"])
        return 0
    name = url.rpartition("/")[2] or "fetch.out"
    path = f"{target}/{name}" if os.path.isdir(target) else target or name
    recorded_path, recorded_url = script.get("path", ""), script.get("url", "")

    def text(data: bytes) -> None:
        said = data.decode()
        if recorded_path:
            width = None if not said.startswith("\r") else NAME_WIDTH
            padded = path[:width].ljust(NAME_WIDTH)
            said = said.replace(recorded_path.ljust(NAME_WIDTH), padded)
            said = said.replace(recorded_path, path).replace(recorded_url, url)
        write(2, said.encode())

    file = File(path)
    try:
        status = play(script, text, no_event, file.grow, 0)
    except OSError as error:
        write(2, f"fetch: {path}: open(): {error.strerror}\n".encode())
        return 1
    if status == 0:
        file.finish()
    return status


def vm_iso(place: str, arguments: list[str]) -> int:
    """`vm iso`. Source: vm-bhyve, lib/vm-datastore."""
    folder = os.path.dirname(place)
    isos = os.path.join(folder, "vm_dir", ".iso")
    if arguments[:1] == ["-d"]:
        store = "".join(arguments[1:2])
        arguments = arguments[2:]
        if store != "default":
            text = f"{place}: ERROR: unable to locate path for datastore '{store}'\n"
            write(2, text.encode())
            return 1
    if arguments:
        program = os.path.join(folder, "fetch")
        os.execv(program, [program, "-o", isos, arguments[0]])
    lines = [f"{'DATASTORE':20}FILENAME"]
    names = sorted(name for name in os.listdir(isos) if not name.startswith("."))
    lines += [f"{'default':20}{name.partition(' ')[0]}" for name in names]
    to_stdout("".join(f"{line}\n" for line in lines).encode())
    return 0


def main(place: str, arguments: list[str]) -> int:
    """place: of the program, by its absolute path. Returns the exit status."""
    name = os.path.basename(place)
    record_call(place, arguments)
    if name == "shutdown":
        return 0
    script = find(place, arguments)
    if script is None:
        if name == "vm" and arguments[:1] == ["iso"]:
            return vm_iso(place, arguments[1:])
        text = f"stand-in: nothing to play for {' '.join(arguments)}\n"
        write(2, text.encode(errors="surrogateescape"))
        return NOTHING_TO_PLAY
    if name == "pkg":
        return pkg(place, script)
    if name == "fetch":
        return fetch(script, arguments)
    return play(script, to_stdout, no_event, no_growth, 0)


def say_unless_interrupted(
    kind: type[BaseException], error: BaseException, trace: "TracebackType | None"
) -> None:
    """INT ends it as it ends a program in C: Python sends it to itself, but tells of it."""
    if kind is not KeyboardInterrupt:
        sys.__excepthook__(kind, error, trace)


if __name__ == "__main__":
    sys.excepthook = say_unless_interrupted
    # Without the ceremonies at Python's end.
    os._exit(main(os.path.abspath(sys.argv[0]), sys.argv[1:]))
