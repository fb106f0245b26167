"""The examples of docs/protocol.md, said to a running daemon.

A fenced block `json send` is a frame to the server, `json reply` what answers it, `json event`
the next frame that is no answer, `json file NAME` a file of the state directory, `sh NAME` a
script and `text NAME` what it prints. Between them comments lead: `<!-- connect: HOW -->` opens
a new connection (HOW: plain, token or local), `<!-- play: WHAT -->` lets something happen.

Frames are compared as they are. What differs from run to run is compared by its form, and
stands for the same value everywhere: a cursor that is shown twice has to be one cursor.

`python -m tests.kit.transcript` writes what came into the document: read the difference.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

from tests.kit.client import Client
from tests.kit.daemon import ROOT, Daemon, following
from tests.kit.pools import StandIn
from tests.kit.state_file import append_events
from tests.kit.waiting import DEADLINE, wait_for

DOCUMENT: Final = ROOT / "docs" / "protocol.md"
_STEP: Final = re.compile(
    r"^```(?P<kind>json (?:send|reply|event)|json file (?P<file>\S+)|(?:sh|text) \w+)\n"
    r"(?P<text>.*?)^```$|^<!-- (?P<word>connect|play): (?P<how>.*?) -->$",
    re.MULTILINE | re.DOTALL,
)
# Values that are new in each run. All but times and numbers stand for one value everywhere.
_TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
_FORMS: Final = (
    re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"),
    re.compile(r"[0-9a-f]{16}:[\w:.-]+"),
    re.compile(r"[\w-]{43}"),
    re.compile(r"[A-Za-z0-9+/]{43}="),
)
_MACHINES: Final = frozenset(
    (
        *("hostname", "version", "url", "pid", "certificate", "token_file", "count", "pin"),
        *("buffered", "published", "delivered", "merged", "gapped", "owed"),
    )
)
# Where the document's jobs work.
WORK: Final = "/srv/work"
# What it says for the admin token.
TOKEN: Final = "the text of admin.token"
_WIDTH: Final = 96


@dataclass(frozen=True, slots=True)
class Step:
    """A block or comment. kind: `send`, `reply`, `connect`, ...; place: of its text.

    how: of a comment, what stands behind its word; of a file, its name.
    """

    kind: str
    text: str
    how: str
    place: tuple[int, int]

    @property
    def value(self) -> Any:
        """What its JSON says."""
        return json.loads(self.text)


def steps(document: str) -> Iterator[Step]:
    """All, in order."""
    for found in _STEP.finditer(document):
        if found["word"]:
            yield Step(found["word"], "", found["how"], found.span())
        else:
            words = found["kind"].split()
            kind = words[1] if words[0] == "json" else words[0]
            how = found["file"] or ("" if words[0] == "json" else words[1])
            yield Step(kind, found["text"], how, found.span("text"))


class Differs(Exception):
    """What came is not what is shown."""


class Names:
    """Which value of this run stands behind one that the document shows."""

    def __init__(self) -> None:
        self._real: dict[str, str] = {}
        self._shown: dict[str, str] = {}

    def call(self, shown: str, real: str) -> None:
        """From now on they are the same."""
        if self._real.setdefault(shown, real) != real:
            raise Differs(f"{shown!r} was {self._real[shown]!r} before, and is {real!r} now")
        if self._shown.setdefault(real, shown) != shown:
            raise Differs(f"{real!r} was shown as {self._shown[real]!r}, and is {shown!r} now")

    def real(self, value: Any) -> Any:
        """A value of the document as it is in this run."""
        return _replaced(value, self._real)

    def shown(self, value: Any) -> Any:
        """A value of this run as the document has it."""
        return _replaced(value, self._shown)

    def match(self, shown: Any, real: Any, key: str = "") -> None:
        """Compare; learn what stands for what. Raises: Differs."""
        if type(shown) is not type(real):
            raise Differs(f"{key}: {shown!r} is shown, {real!r} came")
        if isinstance(shown, dict):
            self._match_objects(cast("dict[str, Any]", shown), real, key)
        elif isinstance(shown, list):
            both = _entries(shown), _entries(real)
            if len(both[0]) != len(both[1]):
                raise Differs(f"{key}: {len(both[0])} are shown, {len(both[1])} came: {real}")
            for one, other in zip(*both, strict=True):
                self.match(one, other, key)
        elif key.rpartition(".")[2] in _MACHINES:
            return
        elif isinstance(shown, str):
            self._match_texts(shown, real, key)
        elif shown != real:
            raise Differs(f"{key}: {shown!r} is shown, {real!r} came")

    def _match_objects(self, shown: dict[str, Any], real: dict[str, Any], key: str) -> None:
        # Where times are keys, the first of them stands for the first.
        real = _by_time(shown, real)
        if shown.keys() != real.keys():
            odd = sorted(shown.keys() ^ real.keys())
            raise Differs(f"{key}: has {sorted(real)}, not both have {odd}")
        for name, value in shown.items():
            self.match(value, real[name], f"{key}.{name}")

    def _match_texts(self, shown: str, real: str, key: str) -> None:
        if _TIME.fullmatch(shown) and _TIME.fullmatch(real):
            return
        for form in _FORMS:
            if form.fullmatch(shown) and form.fullmatch(real):
                self.call(shown, real)
                return
        if self._real.get(shown, shown) != real:
            raise Differs(f"{key}: {shown!r} is shown, {real!r} came")


def _entries(value: Any) -> list[Any]:
    """A list, for who checks types."""
    found: list[Any] = value
    return found


def _by_time(shown: dict[str, Any], real: dict[str, Any]) -> dict[str, Any]:
    times = [sorted(filter(_TIME.fullmatch, one)) for one in (shown, real)]
    names = dict(zip(times[1], times[0], strict=False))
    return {names.get(key, key): value for key, value in real.items()}


def _replaced(value: Any, words: dict[str, str]) -> Any:
    if isinstance(value, str):
        return words.get(value, value)
    if isinstance(value, list):
        return [_replaced(each, words) for each in _entries(value)]
    if isinstance(value, dict):
        fields = cast("dict[str, Any]", value)
        return {words.get(name, name): _replaced(each, words) for name, each in fields.items()}
    return value


class Stage:
    """A daemon with a log, pools and a job's directory; what happens to them at a word."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.work = folder / "work"
        self.work.mkdir()
        os.mkfifo(self.work / "go")
        self._log = folder / "lpreserver.log"
        self._log.touch()
        (folder / "bin").mkdir()
        self._pools = StandIn(folder / "bin")
        self._pools.put("ozfs-mirror-healthy", 1)
        settings = following(self._log).replace("[collectors.zpool]\nenabled = false", "")
        self._config = f"""{settings}
[collectors.zpool]
enabled = true
command = "{self._pools.command}"
interval = 1
[dispatcher]
progress_interval = 3600
[dispatcher.queues]
pkg_queue = 1
[classes]
pkg = "{folder}/pkg"
freebsd_update = "{folder}/freebsd-update"
vm = "{folder}/vm"
iohyve = "{folder}/iohyve"
"""
        self.daemon = Daemon(folder / "state", self._config)
        self.client: Client | None = None

    def connect(self, how: str) -> Client:
        """A new connection, after the end of the one before."""
        if self.client is not None:
            self.client.close()
            with self.daemon.local() as other:
                alone = {"action": "list"}
                wait_for(lambda: len(other.ask("rpc", "clients", alone)["clients"]) == 1)
        ways = {
            "plain": self.daemon.stranger,
            "token": self.daemon.client,
            "local": self.daemon.local,
        }
        self.client = ways[how]()
        return self.client

    def play(self, what: str) -> None:
        """Let it happen."""
        if what == "a line of the log":
            with self.daemon.local() as other:
                other.ask("events", "subscribe", {"systems": "life-preserver", "since": "now"})
                with self._log.open("a") as log:
                    log.write("Tue Nov 24 18:00:02 UTC 2026: Creating snapshot on tank\n")
                other.event()
        elif what == "a disk goes offline":
            self._pools.put("ozfs-mirror-degraded-offline", 1)
        elif what == "the job goes on":
            (self.work / "go").write_text("")
        elif what == "text is told at once":
            self._config = self._config.replace("interval = 3600", "interval = 0.1")
            self.daemon.config.write_text(self._config)
            self.daemon.reload()
        elif what == "retention":
            self._retain()
        else:
            raise AssertionError(f"nobody knows how to play {what!r}")

    def _retain(self) -> None:
        """Restart with little room for a journal that has much in it."""
        self._end()
        body = b'{"hostname":"h%d","hostnamechanged":"true","zpools":{},"priority":"3/Warning"}'
        events = (("system-state", body % number, time.time()) for number in range(3000))
        self.daemon.stop()
        append_events(self.daemon.state_dir, events)
        kept = '[retention]\nevents_size = "64KiB"\n'
        self.daemon.config.write_text(self._config + kept)
        self.daemon.start()
        wait_for(lambda: "retention took" in self.daemon.log.read_text(), "retention")
        self.daemon.config.write_text(self._config)
        self.daemon.reload()

    def _knows_its_pools(self) -> bool:
        with self.daemon.local() as client:
            client.ask("events", "subscribe", {"systems": "system-state", "snapshot": True})
            return "zpools" in client.event()["args"]["system_state"]

    def _end(self) -> None:
        if self.client is not None:
            self.client.close()
            self.client = None

    def __enter__(self) -> Stage:
        self.daemon.start()
        wait_for(self._knows_its_pools, "the pools")
        return self

    def __exit__(self, *_: object) -> None:
        self._end()
        with self.daemon:
            pass


class Player:
    """Goes through the steps."""

    def __init__(self, stage: Stage, names: Names) -> None:
        self._stage = stage
        self._names = names
        self._replies: dict[str, dict[str, Any]] = {}
        self._printed = ""
        names.call(WORK, str(stage.work))
        names.call(TOKEN, stage.daemon.token)

    def take(self, step: Step) -> Any:
        """Do what a step says; returns what came of it, None for one that shows nothing."""
        if step.kind == "connect":
            self._replies = {}
            client = self._stage.connect(step.how)
            client.documented = True
        elif step.kind == "play":
            self._stage.play(step.how)
        elif step.kind == "send":
            self._send(self._names.real(step.value))
        elif step.kind == "sh":
            self._printed = self._run(step.text)
        elif step.kind == "file":
            return json.loads((self._stage.daemon.state_dir / step.how).read_text())
        elif step.kind == "text":
            return self._printed
        else:
            return self._reply() if step.kind == "reply" else self._client.event()
        return None

    @property
    def _client(self) -> Client:
        assert self._stage.client is not None, "there is no connection"
        return self._stage.client

    def _send(self, frame: dict[str, Any]) -> None:
        self._client.socket.send(json.dumps(frame))

    def _reply(self) -> dict[str, Any]:
        while True:
            frame = self._client.receive()
            if frame["namespace"] != "events" or frame["name"] in ("response", "error"):
                return frame
            self._client.events.append(frame)

    def _run(self, script: str) -> str:
        done = subprocess.run(
            [
                "sh",
                "-euc",
                script.replace("/var/db/sysadmd", str(self._stage.daemon.state_dir)),
            ],
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=True,
        )
        return done.stdout


def differences(document: str, folder: Path) -> Iterator[tuple[Step, str, Any]]:
    """Steps that are not as they are shown: why, and what came, in the document's words."""
    names = Names()
    with Stage(folder) as stage:
        player = Player(stage, names)
        for step in steps(document):
            try:
                came = player.take(step)
            except TimeoutError:
                yield step, "nothing came", step.value
                return
            if came is None:
                continue
            shown = step.text if step.kind == "text" else step.value
            try:
                if step.kind == "text":
                    names.match(shown.strip(), came.strip())
                else:
                    names.match(shown, came)
            except Differs as why:
                yield step, str(why), names.shown(came)


def layout(value: Any, indent: int = 0, before: int = 0, behind: int = 0) -> str:
    """JSON for people: lines of at most 96 characters, as full as they get.

    indent: of the line that it begins in; before, behind: characters there before it, and
    behind it in its last line.
    """
    flat = json.dumps(value, ensure_ascii=False)
    fits = indent + before + len(flat) + behind <= _WIDTH
    if fits or not isinstance(value, list | dict) or not value:
        return flat
    if isinstance(value, list):
        entries = [("", each) for each in _entries(value)]
    else:
        fields = cast("dict[str, Any]", value).items()
        entries = [(f"{json.dumps(key)}: ", each) for key, each in fields]
    # The outermost one's first line is that of its bracket.
    deeper = indent + 2 if before else indent + 1
    lines = [""]
    for number, (key, each) in enumerate(entries, 1):
        rest = 1 if number < len(entries) else 1 + behind
        text = key + json.dumps(each, ensure_ascii=False)
        joined = f"{lines[-1]} {text}" if lines[-1] else text
        if deeper + len(joined) + rest <= _WIDTH:
            lines[-1] = joined
        else:
            lines.append(key + layout(each, deeper, len(key), rest))
        if number < len(entries):
            lines[-1] += ","
            if "\n" in lines[-1]:
                lines.append("")
    between = "\n" + " " * deeper
    begin, end = "[]" if isinstance(value, list) else "{}"
    return begin + (between if before else "") + between.join(filter(None, lines)) + end


@contextlib.contextmanager
def _folder() -> Generator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def main() -> None:
    """Write what came into the document."""
    document = DOCUMENT.read_text()
    with _folder() as folder:
        found = list(differences(document, folder))
    for step, _, came in reversed(found):
        text = came if isinstance(came, str) else layout(came) + "\n"
        document = document[: step.place[0]] + text + document[step.place[1] :]
    DOCUMENT.write_text(document)


if __name__ == "__main__":
    main()
