"""What is said of jobs, in words. Pure: no connection, no output, no clock."""

from __future__ import annotations

import contextlib
import re
import shlex
import signal
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, cast

from sysadmd.ctl.moments import local, since, span
from sysadmd.sizes import UNITS

# Characters of a command that is named in a sentence.
_NAMED: Final = 60
NO_QUEUE: Final = "no_queue"
# Words that mean something to a shell, and nothing here.
_SHELL: Final = frozenset(("|", "||", "&", "&&", ";", ">", ">>", "<", "2>", "2>&1", "|&"))
_SUCCESS: Final = "succeeded"
_CODE: Final = re.compile(r"-?\d{1,9}", re.ASCII)
# Results that are by a signal of the daemon's, and which those are.
_BY_SIGNAL: Final = ("killed", "timed-out")
_SIGNALS: Final = ("-15", "-9")


def command_text(command: Mapping[str, Any]) -> str:
    """A command as it is typed into a shell, or as the server writes it, if that is all."""
    argv: object = command.get("argv")
    if isinstance(argv, list):
        words = [word for word in cast("list[object]", argv) if isinstance(word, str)]
        if words and len(words) == len(cast("list[object]", argv)):
            return shlex.join(words)
    text: object = command.get("command")
    return text if isinstance(text, str) else ""


def code_text(code: object) -> str:
    """`exited with 7`, `was killed by SIGKILL`, `exited with 127 (not found)`."""
    if not isinstance(code, str) or not _CODE.fullmatch(code):
        return "ended with a code that is not known"
    number = int(code)
    if number < 0:
        return f"was killed by {signal_name(-number)}"
    return {
        0: "succeeded",
        126: "exited with 126 (can't be executed)",
        127: "exited with 127 (not found)",
    }.get(number, f"exited with {number}")


def where_it_ended(commands: Sequence[Mapping[str, Any]], result: str) -> str:
    """At which command a job ended that did not succeed, and how; empty: none had begun."""
    begun = [n for n, one in enumerate(commands) if one.get("state") in ("finished", "running")]
    if not begun:
        return ""
    last = begun[-1]
    name, code = shortened(command_text(commands[last])), commands[last].get("return_code")
    several = len(commands) > 1
    which = f"command {last + 1} of {len(commands)} ({name})" if several else name
    if code is None or (result in _BY_SIGNAL and code in _SIGNALS):
        # That it was ended by a signal has been said.
        return f"it was at {which}"
    return f"{which} {code_text(code)}"


def signal_name(number: int) -> str:
    """`SIGKILL`; of one without a name `signal 70`."""
    with contextlib.suppress(ValueError):
        return signal.Signals(number).name
    return f"signal {number}"


def size_text(size: int) -> str:
    """`12 bytes`, `3.4 KiB`."""
    if size < 1024:
        return f"{size} byte{'' if size == 1 else 's'}"
    unit = next(u for u in reversed(UNITS) if size >= UNITS[u])
    return f"{size / UNITS[unit]:.1f} {unit}iB"


def shortened(text: str, most: int = _NAMED) -> str:
    """Not longer than so many characters."""
    return text if len(text) <= most else text[: max(0, most - 3)] + "..."


def length_of(begin: object, end: object) -> float | None:
    """Seconds between two times of the server's; None: one of them is none."""
    with contextlib.suppress(ValueError, TypeError):
        return since(str(begin), datetime.fromisoformat(str(end)))
    return None


def took(thing: Mapping[str, Any], now: datetime) -> str:
    """How long a job or command has taken, or takes until now; empty: it did not start."""
    begin, end = thing.get("time_started"), thing.get("time_finished")
    if begin is None:
        return ""
    length = since(str(begin), now) if end is None else length_of(begin, end)
    return "" if length is None else span(length)


def how_far(commands: Sequence[Mapping[str, Any]]) -> str:
    """How many of the commands have ended, and how the first of them failed: `2/3 (7)`."""
    done = [command for command in commands if command["state"] == "finished"]
    codes = [str(c["return_code"]) for c in done if c["return_code"] not in (None, "0")]
    text = f"{len(done)}/{len(commands)}"
    if not codes:
        return text
    code = codes[0]
    return f"{text} ({signal_name(-int(code)) if code.startswith('-') else code})"


def ended(job: Mapping[str, Any], name: str | None = None) -> str:
    """The closing line of a job that has finished. name: what it is called; its id."""
    name = str(job["id"]) if name is None else name
    result, commands = str(job["result"]), job["commands"]
    length = took(job, datetime.fromisoformat(str(job["time_finished"])))
    after = f" after {length}" if length else ""
    if result == _SUCCESS:
        return f"job {name} succeeded" + (f" in {length}" if length else "")
    parts = [f"job {name} {_RESULTS.get(result, result)}{after}"]
    if where := where_it_ended(commands, result):
        parts.append(where)
    skipped = sum(command["state"] == "skipped" for command in commands)
    if skipped:
        parts.append(f"{skipped} command{'s were' if skipped > 1 else ' was'} skipped")
    return "; ".join(parts)


_RESULTS: Final = {
    "timed-out": "was ended because its time was up",
    "killed": "was killed",
    "lost": "was lost: the machine or what watches it went down meanwhile",
}


def waiting_reason(
    job: Mapping[str, Any], queues: Mapping[str, Mapping[str, Any]] | None
) -> str:
    """Why a pending job waits, and what to do. queues: as the server tells them, if it does."""
    name = str(job["queue"])
    queue = (queues or {}).get(name, {})
    if queue.get("paused"):
        return f"queue {name} is paused; `sysadmctl queue resume {name}` lets it go on"
    where = "without a queue" if name == NO_QUEUE else f"in {name}"
    running, limit = queue.get("running"), queue.get("limit")
    position = job.get("position")
    full = ""
    if isinstance(running, int) and isinstance(limit, int):
        full = f"{running} of at most {limit} {'runs' if running == 1 else 'run'}"
        # A place counts those that run, too.
        position = position - running if isinstance(position, int) else None
    if isinstance(position, int) and position > 0:
        before = f"{position} job{'s' if position > 1 else ''} before it"
        return f"{where}: {before}" + (f"; {full}" if full else "")
    return f"{where}: it is next" + (f"; {full}" if full else "")


def shell_words(commands: Sequence[Sequence[str]]) -> str | None:
    """A remark, if a word looks as if it were meant for a shell."""
    for command in commands:
        for word in command[1:]:
            if word in _SHELL:
                return (
                    f"no shell is used: {word!r} is an argument of {command[0]}; if a shell is"
                    f" meant: sysadmctl run -- sh -c '... {word} ...'"
                )
    return None


def one_word(job: Mapping[str, Any]) -> str | None:
    """A remark, if a command was not found because it was given as one word."""
    for command in job["commands"]:
        argv: list[str] = command.get("argv") or []
        if command["return_code"] == "127" and len(argv) == 1 and " " in argv[0].strip():
            return (
                f"{argv[0]!r} was given as one word, and no program is called so; leave the"
                f" quotes out, or let a shell split it: sysadmctl run -- sh -c {argv[0]!r}"
            )
    return None


def state_colour(word: str) -> str | None:
    """The colour of a job's state or, at its end, of its result; None: none."""
    return {"succeeded": "green", "running": "cyan", "pending": None}.get(word, "red")


def sheet(
    job: Mapping[str, Any], now: datetime, queues: Mapping[str, Any] | None
) -> list[tuple[str, str]]:
    """All that is known of a job: a name and a value a line."""
    found = [("id", str(job["id"])), ("queue", str(job["queue"]))]
    found.append(("state", str(job["state"])))
    if job["state"] == "pending":
        found.append(("waits", waiting_reason(job, queues)))
    if job.get("result"):
        found.append(("result", str(job["result"])))
    if job.get("account"):
        found.append(("account", str(job["account"])))
    if job.get("event_system"):
        found.append(("class", str(job["event_system"])))
    for key in ("created", "started", "finished"):
        told = job.get(f"time_{key}")
        age = None if told is None else since(str(told), now)
        ago = "" if age is None else f" ({span(age)} ago)"
        found.append((key, "-" if told is None else local(str(told), now) + ago))
    length = took(job, now)
    found.append(("duration", length or "-"))
    if job.get("timeout") is not None:
        found.append(("timeout", span(float(job["timeout"]))))
    if job.get("cwd") is not None:
        found.append(("cwd", str(job["cwd"])))
    if job.get("env"):
        found.append(("env", ", ".join(map(str, job["env"]))))
    return found


def command_lines(number: int, command: Mapping[str, Any], now: datetime) -> tuple[str, str]:
    """A command: what it is, and how it fares."""
    state = str(command["state"])
    parts = [code_text(command["return_code"]) if state == "finished" else state]
    length = took(command, now)
    if length:
        parts.append(("after " if state == "finished" else "for ") + length)
    if command.get("log_size"):
        parts.append(f"{size_text(int(command['log_size']))} of output")
    return f"{number}  {command_text(command)}", ", ".join(parts)
