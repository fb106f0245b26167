"""Where the examples of docs/sysadmctl.md are run, and how they are read there.

A fenced block `console` holds commands behind `$ `, and what each prints on standard output,
if that is shown. JSON is broken into lines for people.
"""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from tests.kit.accounts import PASSWORD, account, pam_service
from tests.kit.api import ISO, MIRROR, prepare
from tests.kit.bridged import Bridged
from tests.kit.ctl import Ctl, lines
from tests.kit.daemon import QUIET, Daemon
from tests.kit.pools import StandIn
from tests.kit.profiles import profiles_file
from tests.kit.replay import Served, Tools
from tests.kit.shapes import Shape, read
from tests.kit.waiting import wait_for

_BLOCK: Final = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_TABLE: Final = re.compile(
    r"^\| command \| lines \|\n\|---\|---\|\n((?:\|.*\n)+)", re.MULTILINE
)
_NAMED: Final = re.compile(r"^```text\n(JOB .*?)^```$", re.MULTILINE | re.DOTALL)
_SPAN: Final = re.compile(r"`([^`]+)`")
USER: Final = "sysadmd-example"
_SERVER: Final = "web1.example.org"
_BRIDGE: Final = "bridge.example.org:12149"
_BLOCKED: Final = "192.0.2.7"


@dataclass(frozen=True, slots=True)
class Spoken:
    """A command of the document, and what it shows of the output; empty: nothing."""

    line: str
    shown: str

    @property
    def words(self) -> list[str]:
        """Behind `sysadmctl`."""
        return shlex.split(self.line, comments=True)[1:]

    @property
    def values(self) -> list[Any]:
        """What is shown, as JSON."""
        found: list[Any] = []
        rest = self.shown.strip()
        while rest:
            value, end = json.JSONDecoder().raw_decode(rest)
            found.append(value)
            rest = rest[end:].strip()
        return found


def spoken(document: str) -> Iterator[Spoken]:
    """All commands, in order."""
    for block in _BLOCK.findall(document):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            line, _, shown = part.partition("\n")
            yield Spoken(line, shown)


def named_shapes(document: str) -> dict[str, Shape]:
    """Those that have names in the document."""
    found = _NAMED.search(document)
    assert found is not None
    parts = re.split(r"^([A-Z_]+) *= ", found[1], flags=re.MULTILINE)[1:]
    return {name: read(text) for name, text in zip(parts[::2], parts[1::2], strict=True)}


def line_shapes(document: str) -> dict[str, list[tuple[str, Shape]]]:
    """By command, each shape that a line of it may have, as text and as shape."""
    found = _TABLE.search(document)
    assert found is not None
    shapes: dict[str, list[tuple[str, Shape]]] = {}
    for row in found[1].splitlines():
        commands, told = row.strip("|").split(" | ")
        texts = [text for text in _SPAN.findall(told) if text[0] == "{" or text.isupper()]
        for command in _SPAN.findall(commands):
            assert command not in shapes, command
            shapes[command] = [(text, read(text)) for text in texts]
    return shapes


class Site:
    """Daemon, bridge and tools as the document has them, and an admin's home."""

    def __init__(self, folder: Path) -> None:
        self._stack = contextlib.ExitStack()
        self.tools = Tools(folder / "tools")
        prepare(self.tools)
        self.tools.say("vm", "", when=("stop",))
        # As long as it took: there is progress to be seen.
        self.tools.play("pkg", "upgrade", when=("upgrade", "-y"))
        self._gate = folder / "go"
        self._log = folder / "lpreserver.log"
        self._log.touch()
        pools = StandIn(folder / "tools")
        pools.put("ozfs-data-errors-no-redundancy", 1)
        for name in ("bridged", "home"):
            (folder / name).mkdir()
        self.daemon = Daemon(folder / "state", self._settings(str(pools.command)))
        self.bridged = Bridged(folder / "bridged")
        self.ctl = Ctl(folder / "home")
        self.served = Served({ISO: 3_000_000})

    def _settings(self, zpool: str) -> str:
        kept = QUIET.replace("[collectors.zpool]\nenabled = false", "")
        kept = kept.replace("preserver]\nenabled = false", f'preserver]\nlog = "{self._log}"')
        tools = self.tools.folder
        return f"""{kept}
[collectors.zpool]
command = "{zpool}"
[auth]
pam_service = "{USER}"
full = ["root", "{USER}"]
failures = 2
[classes]
pkg = "{tools}/pkg"
freebsd_update = "{tools}/freebsd-update"
update_conf = "{tools}/update.conf"
shutdown = "{tools}/shutdown"
vm = "{tools}/vm"
"""

    def __enter__(self) -> Self:
        for part in (pam_service(USER), account(USER), self.daemon, self.bridged, self.served):
            self._stack.enter_context(part)
        self.bridged.server("far")
        wait_for(lambda: "tank" in self.run(["state"]).stdout, "the pools")
        with self._log.open("a") as log:
            log.write("Tue Nov 24 18:00:02 UTC 2026: Creating snapshot on tank\n")
        wait_for(lambda: "snapshot on tank" in self.run(["state"]).stdout, "the event")
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def run(self, words: list[str]) -> subprocess.CompletedProcess[str]:
        """Run a command of the document, with what has to be so before it."""
        typed = self._typed(words)
        if _BRIDGE in words:
            self._come_to_the_bridge()
        elif {"unblock", "--json"} <= {*words} and _BLOCKED not in words:
            self._guess()
        elif words[:2] == ["update", "stop"]:
            self._begin_update()
        there = [self._there(word, words) for word in words]
        if words[:2] == ["login", _SERVER] and words[2:3] in ([], ["--json"]):
            # As it is called after the document's host.
            there.insert(2, "web1")
        # Where no server is named and none was kept, that of the document's machine.
        before = (
            "import pathlib, sysadmd.ctl.meant as it;"
            f" it.default_state_dir = lambda: pathlib.Path({str(self.daemon.state_dir)!r}); "
        )
        done = self.ctl(*there, text=typed, before=before)
        if words[:2] == ["update", "stop"]:
            self._end_update()
        return done

    def _there(self, word: str, words: list[str]) -> str:
        port = self.daemon.address.rpartition(":")[2]
        word = {
            _SERVER: self.daemon.address,
            "192.0.2.7:443": f"localhost:{port}",
            _BRIDGE: self.bridged.bridge.address,
        }.get(word, word)
        if word == _BLOCKED and "unblock" in words:
            word = "127.0.0.1"
        word = word.replace(MIRROR, self.served.url(""))
        return re.sub("^~", str(self.ctl.home), word)

    def _typed(self, words: list[str]) -> str:
        """What is asked for."""
        if "login" not in words:
            return ""
        kept = profiles_file(self.ctl.home)
        where = self._there(next(word for word in words if "." in word), words)
        yes = "" if kept.exists() and f"//{where}" in kept.read_text() else "y\n"
        if "--token" in words:
            return f"{yes}{self.daemon.token}\n"
        return yes if "--key" in words else f"{yes}{USER}\n{PASSWORD}\n"

    def _come_to_the_bridge(self) -> None:
        """Have bridge and server know our key."""
        mine = self.bridged.key_file("alice")
        if not mine.exists():
            shutil.copy(self.ctl.home / ".config/sysadmd/key.pem", mine)
            self.bridged.let_in("alice")
            self.bridged.register("far", "alice")

    def _guess(self) -> None:
        """Too many wrong passwords."""
        with self.daemon.stranger() as client:
            for _ in range(2):
                wrong = {"username": USER, "password": "wrong"}
                assert client.ask_raw("rpc", "auth", wrong)["args"]["code"] == 401

    def _begin_update(self) -> None:
        """One that does not end."""
        hold = (1, self._gate)
        self.tools.play(
            "freebsd-update", "fetch-updates", when=("fetch",), speed=None, hold=hold
        )
        assert self.run(["update", "start", "--no-wait"]).returncode == 0

    def _end_update(self) -> None:
        wait_for(lambda: not lines(self.run(["jobs", "--json"])), "its end")
        self.tools.play("freebsd-update", "fetch-updates", when=("fetch",), speed=None)
