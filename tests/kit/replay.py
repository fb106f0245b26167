"""Stand-ins for the programs of class jobs, which do what real ones were recorded to do.

    tools = Tools(folder)
    pkg = tools.install("pkg")
    upgrade = tools.play("pkg", "upgrade", when=("upgrade",), hold=(40, folder / "go"))
    tools.say("pkg", "1.0\n", when=("query",))

What they play lies in files of their folder, so it may change from run to run. And a server of
files that need not be there, for who asks how large one is.
"""

from __future__ import annotations

import http.server
import json
import marshal
import signal
import socketserver
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self

from tests.kit.corpus import CORPUS

Tool = Literal["pkg", "freebsd-update", "fetch", "vm", "shutdown"]
Recorded = Literal["pkg", "freebsd-update", "fetch"]
# When (s), what ("text", "event", "grow", "end parent"), bytes of text or event, and the size
# to grow to or the signal to end by.
Item = tuple[float, str, bytes, int]

_PROGRAM: Final = Path(__file__).with_name("replay_program.py")
# Of one time: a file has grown before this is told, and what is told comes before its event.
_ORDER: Final = ("grow", "text", "event", "end parent")
# A download grows in so many steps.
STEPS: Final = 100
# The size of every file that was fetched for the corpus, even where not all of it came.
_FETCHED: Final = 3_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """One recorded run.

    returncode: minus the signal's number where it was killed (subprocess.Popen).
    elapsed: from the start to the end of the started process, s. items: all that it did.
    """

    case: str
    argv: tuple[str, ...]
    returncode: int
    elapsed: float
    items: tuple[Item, ...]
    values: Mapping[str, Any]

    @property
    def output(self) -> bytes:
        """All that it wrote."""
        return b"".join(data for _, kind, data, _ in self.items if kind == "text")

    @property
    def events(self) -> list[bytes]:
        """The lines it sent to the event pipe, each without its newline."""
        return [data for _, kind, data, _ in self.items if kind == "event"]

    def before(self, text: str) -> int:
        """How many items come before the first one with this text: to hold it there."""
        wanted = text.encode()
        return next(place for place, item in enumerate(self.items) if wanted in item[2])


def recording(name: Recorded, case: str) -> Recording:
    """A recorded run of this program. Raises: FileNotFoundError."""
    values: dict[str, Any] = json.loads((CORPUS / name / f"{case}.json").read_text())
    number: int = -signal.Signals[values["signal"]] if values["rc"] is None else 0
    items = [(at, "text", text.encode(), 0) for at, text in values["output"]]
    items += [(at, "event", line.encode(), 0) for at, line in values.get("events", ())]
    if values.get("killed", {}).get("to") == "process":
        items.append((values["killed"]["at"], "end parent", b"", -number))
    for size in values.get("files_left", {}).values():
        # What ends by itself tells at its end what has come.
        begin = values["output"][0][0]
        until = values["elapsed"] if number else values["output"][-1][0]
        items += [
            (begin + (until - begin) * step / STEPS, "grow", b"", size * step // STEPS)
            for step in range(STEPS + 1)
        ]
    return Recording(
        case=case,
        argv=tuple(values["argv"]),
        returncode=number if values["rc"] is None else values["rc"],
        elapsed=values["elapsed"],
        items=tuple(sorted(items, key=lambda item: (item[0], _ORDER.index(item[1])))),
        values=values,
    )


@dataclass(frozen=True, slots=True)
class Call:
    """A run of a stand-in.

    argv: its name and its arguments. env: what it had of the variables that matter to the
    programs. pid: of the started process, which in pkg is not the one that works.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str]
    pid: int


class Tools:
    """Stand-ins in one folder."""

    def __init__(self, folder: Path) -> None:
        """folder: is made; a place for files, and for the programs' sake on no odd path."""
        self.folder = folder
        # Where `vm iso` puts what it fetches; made with vm.
        self.isos = folder / "vm_dir" / ".iso"
        folder.mkdir(parents=True, exist_ok=True)

    def install(self, name: Tool) -> Path:
        """Put a program there; returns its path."""
        if name == "vm":
            self.isos.mkdir(parents=True, exist_ok=True)
        # Without `site`, which takes as long as all the rest.
        self._write(name, f"#!{sys.executable} -IS\n{_PROGRAM.read_text()}".encode(), 0o755)
        return self.folder / name

    def play(
        self,
        name: Recorded,
        case: str,
        *,
        when: Sequence[str] = (),
        argv: Sequence[str] | None = None,
        speed: float | None = 1.0,
        hold: tuple[int, Path] | None = None,
    ) -> Recording:
        """From now on let the program do what it did in this case; returns the recording.

        when: only if all of these words are among its arguments. argv: only if its arguments
        are just these. Of several that fit, the last one is played.
        speed: 2.0 takes half as long; None: without pauses.
        hold: how many items it plays, and a file that it waits for then. Times go on when it
        is there.
        """
        found = recording(name, case)
        values, to_parent = found.values, "end parent" in (item[1] for item in found.items)
        script: dict[str, Any] = {
            "items": list(found.items),
            "end": max([found.elapsed, *(item[0] for item in found.items)]),
            # Whoever was left behind by the signal went on, and well.
            "returncode": 0 if to_parent else found.returncode,
            "speed": speed,
            "hold": hold and (hold[0], str(hold[1])),
            "complained": values.get("event_reader") in ("noreader", "missing"),
        }
        if name == "fetch":
            *_, target, url = found.argv
            script["url"] = url
            script["path"] = (
                target if target.endswith("/") else f"{target}/{url.rpartition('/')[2]}"
            )
            known = values["files_left"] and b"is not known" not in found.output
            script["size"] = _FETCHED if known else None
        self._register(name, script, when, argv)
        return found

    def say(
        self,
        name: Tool,
        stdout_text: str,
        rc: int = 0,
        when: Sequence[str] = (),
        argv: Sequence[str] | None = None,
    ) -> None:
        """From now on let the program say this and end; when, argv: as in `play`."""
        items: list[Item] = [(0.0, "text", stdout_text.encode(), 0)]
        script = {"items": items, "end": 0.0, "returncode": rc, "speed": None, "hold": None}
        self._register(name, {**script, "complained": False}, when, argv)

    def calls(self, name: Tool) -> list[Call]:
        """All runs so far."""
        values = [json.loads(line) for line in self._lines(f"{name}.calls")]
        return [Call(tuple(v["argv"]), v["env"], v["pid"]) for v in values]

    def workers(self) -> list[int]:
        """The processes that did the work of pkg, or do it; see `Call.pid`."""
        return [int(line) for line in self._lines("pkg.workers")]

    def _lines(self, name: str) -> list[str]:
        """Those that are whole."""
        try:
            return (self.folder / name).read_text().split("\n")[:-1]
        except FileNotFoundError:
            return []

    def _register(
        self,
        name: Tool,
        script: Mapping[str, Any],
        when: Sequence[str],
        argv: Sequence[str] | None,
    ) -> None:
        plays = self.folder / f"{name}.plays"
        known: list[Any] = marshal.loads(plays.read_bytes()) if plays.exists() else []
        file = f"{name}.{len(known)}.play"
        self._write(file, marshal.dumps(dict(script)))
        known.append((tuple(when), None if argv is None else tuple(argv), file))
        self._write(plays.name, marshal.dumps(known))

    def _write(self, name: str, data: bytes, mode: int = 0o644) -> None:
        """At once: who runs now sees the old one or the new one."""
        new = self.folder / f"{name}.new"
        new.write_bytes(data)
        new.chmod(mode)
        new.rename(self.folder / name)


class _Server(socketserver.ThreadingTCPServer):
    files: Mapping[str, int]
    lengths: bool
    requests: list[tuple[str, str]]


class _Handler(http.server.BaseHTTPRequestHandler):
    # Of a client that says nothing; s.
    timeout = 5

    def do_HEAD(self) -> None:
        """Tell how large it is."""
        self._answer()

    def do_GET(self) -> None:
        """Send it; it is of zeros."""
        left = self._answer()
        try:
            while left > 0:
                left -= self.wfile.write(bytes(min(left, 1 << 16)))
        except OSError:
            # The client has had enough.
            self.close_connection = True

    def _answer(self) -> int:
        """The head; returns how many bytes are to follow it."""
        server = self.server
        assert isinstance(server, _Server)
        server.requests.append((self.command, self.path))
        size = server.files.get(self.path)
        self.send_response(200 if size is not None else 404)
        if size is None or server.lengths:
            self.send_header("Content-Length", str(size or 0))
        self.end_headers()
        return size or 0

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: see `Served.requests`."""


class Served:
    """An HTTP server of files that have sizes, and no content but zeros."""

    def __init__(self, files: Mapping[str, int], *, lengths: bool = True) -> None:
        """files: sizes by path, as `/disc1.iso`; lengths: does it tell them?"""
        self.requests: list[tuple[str, str]] = []
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.files, self._server.lengths = dict(files), lengths
        self._server.requests = self.requests
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    def url(self, path: str) -> str:
        """Of a file, if it is there or not."""
        return f"http://127.0.0.1:{self._server.server_address[1]}{path}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
