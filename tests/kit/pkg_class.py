"""A daemon whose pkg is a stand-in; what its class is asked for, and tells of its jobs."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psutil

from server.job_classes.pkg_report import PkgReport
from tests.kit.client import Client
from tests.kit.daemon import QUIET, Daemon
from tests.kit.processes import runs
from tests.kit.replay import Recording, Tools

_NAMING: Final = {
    "install": "pkg_install",
    "delete": "pkg_remove",
    "lock": "pkg_lock",
    "unlock": "pkg_unlock",
}
# Of a class event in the document's words, beside the class's own fields.
COMMON: Final = frozenset(
    ("state", "process_id", "process_details", "event_system", "action", "pkg_log")
)

Frame = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Stage:
    """A running daemon, its pkg, and a client of full access."""

    tools: Tools
    daemon: Daemon
    client: Client


def staged(
    folder: Path,
    *,
    env: Mapping[str, str] | None = None,
    dispatcher: str = "",
    classes: str = "",
) -> tuple[Tools, Daemon]:
    """Its tools, and the daemon, which is not started. dispatcher, classes: lines of theirs."""
    tools = Tools(folder / "tools")
    tools.install("pkg")
    config = (
        f'{QUIET}[classes]\npkg = "{tools.folder / "pkg"}"\n'
        f'pkg_database = "{tools.folder / "pkg"}"\n{classes}\n'
        f"[dispatcher]\n{dispatcher}\n"
    )
    return tools, Daemon(folder / "state", config, env=env)


@contextmanager
def running(folder: Path, *, dispatcher: str = "", classes: str = "") -> Generator[Stage]:
    """A daemon of one's own, with a client."""
    tools, daemon = staged(folder, dispatcher=dispatcher, classes=classes)
    with daemon, daemon.client() as client:
        yield Stage(tools, daemon, client)


@contextmanager
def anew(tools: Tools, daemon: Daemon) -> Generator[Stage]:
    """One that is shared, with a new client and a pkg that has nothing to say yet."""
    clear(tools)
    with daemon.client() as client:
        yield Stage(tools, daemon, client)


def clear(tools: Tools) -> None:
    """Let pkg have nothing to say, and no call that was."""
    for file in tools.folder.glob("pkg*"):
        file.unlink()
    tools.install("pkg")


def ask(client: Client, action: str, **args: Any) -> Any:
    """What the class answers; fails on an error."""
    return client.ask("sysadm", "pkg", {"action": action, **args})[action]


def refused(client: Client, action: str, **args: Any) -> tuple[int, str]:
    """Code and detail of the error that it answers."""
    frame = client.ask_raw("sysadm", "pkg", {"action": action, **args})
    assert frame["name"] == "error", frame
    return frame["args"]["code"], frame["args"]["detail"]


def ends(client: Client, id: str) -> list[dict[str, Any]]:
    """`args` of a job's events, up to its end; those of others are dropped."""

    def is_end(frame: Frame) -> bool:
        args = frame["args"]
        return bool(args.get("process_id") == id and args["state"] == "finished")

    args = (frame["args"] for frame in client.until(is_end))
    return [one for one in args if one.get("process_id") == id]


def request_for(argv: Sequence[str]) -> tuple[str, dict[str, Any]] | None:
    """The action that runs pkg so, and its arguments; None: none does."""
    word, *rest = argv[1:]
    plain: dict[tuple[str, ...], tuple[str, dict[str, Any]]] = {
        ("update",): ("pkg_update", {}),
        ("update", "-f"): ("pkg_update", {"force": "true"}),
        ("upgrade", "-n"): ("pkg_check_upgrade", {}),
        ("upgrade", "-y"): ("pkg_upgrade", {}),
        ("autoremove", "-y"): ("pkg_autoremove", {}),
        ("audit", "--raw=json-compact"): ("pkg_audit", {}),
    }
    if word not in _NAMING or rest[:1] != ["-y"]:
        return plain.get((word, *rest))
    rest, args = rest[1:], dict[str, Any]()
    if word == "install" and rest[:1] == ["--repository"]:
        args["repo"], rest = rest[1], rest[2:]
    if word == "delete":
        recursive = rest[:1] == ["-R"]
        args["recursive"], rest = str(recursive).lower(), rest[recursive:]
    if not rest or any(name.startswith("-") for name in rest):
        return None
    return _NAMING[word], {**args, "pkg_origins": rest}


def own_fields(args: Mapping[str, Any]) -> dict[str, Any]:
    """What the class's report tells in an event."""
    return {key: value for key, value in args.items() if key not in COMMON}


def reported(action: str, played: Recording) -> Mapping[str, Any]:
    """What is told at the end of a run that nobody has disturbed."""
    report = PkgReport({"action": action}, {})
    report.output(0, played.output)
    for line in played.events:
        report.event(line)
    return report.ended("failed" if played.returncode else "succeeded")


def check_growth(events: Sequence[Mapping[str, Any]]) -> None:
    """percent and done never fall, and 100 % is a success."""
    last = (0, 0)
    for args in events:
        if "progress" not in args:
            continue
        progress = args["progress"]
        now = progress["percent"], progress["done"]
        assert now[0] >= last[0], events
        assert now[1] >= last[1], events
        assert progress["done"] <= progress["total"]
        last = now
        succeeded = args["process_details"].get("result") == "succeeded"
        assert (progress["percent"] == 100) == succeeded


def is_there(pid: int) -> bool:
    """It runs, and is no zombie."""
    with suppress(psutil.NoSuchProcess):
        return runs(psutil.Process(pid))
    return False
