"""What keys mean: bytes of a terminal as keys, keys as wishes. No terminal, no server."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Final

from sysadmd.ctl.top.model import NO_QUEUE, Model, WatchedJob

UP: Final = "up"
DOWN: Final = "down"
PAGE_UP: Final = "page-up"
PAGE_DOWN: Final = "page-down"
HOME: Final = "home"
END: Final = "end"
ESCAPE: Final = "escape"
# Source: xterm's control sequences; vt220, linux and FreeBSD's vt(4) send one of these forms.
_NAMED: Final = {
    **{b"[A": UP, b"OA": UP, b"[B": DOWN, b"OB": DOWN},
    **{b"[5~": PAGE_UP, b"[6~": PAGE_DOWN, b"[I": PAGE_UP, b"[G": PAGE_DOWN},
    **{b"[H": HOME, b"OH": HOME, b"[1~": HOME, b"[7~": HOME},
    **{b"[F": END, b"OF": END, b"[4~": END, b"[8~": END},
}
_SEQUENCE: Final = re.compile(rb"\x1b(\[[0-?]*[ -/]*[@-~]|O[@-~])", re.DOTALL)
# A sequence that has not ended yet; a longer one is none.
_BEGUN: Final = re.compile(rb"\x1b(\[[0-?]{0,16}|O)?", re.DOTALL)
# The same moves for those who keep their hands on the letters.
_LETTERS: Final = {"k": UP, "j": DOWN, "g": HOME, "G": END, " ": PAGE_DOWN, "b": PAGE_UP}


@dataclass(frozen=True, slots=True)
class Kill:
    """End this job."""

    id: str
    name: str


@dataclass(frozen=True, slots=True)
class Turn:
    """Pause a queue, or let it go on."""

    queue: str
    action: str


@dataclass(frozen=True, slots=True)
class OpenLog:
    """Read the output of this job from now on."""

    id: str


class CloseLog:
    """Read it no more."""


class Quit:
    """End the view."""


Wish = Kill | Turn | OpenLog | CloseLog | Quit


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What is looked at. page: jobs, log or help.

    selected: a job's serial; None: the first. top: the number of the log's line that is shown
    first; None: its end is followed. question: what y does; notice: said until the next key.
    """

    page: str = "jobs"
    selected: int | None = None
    log_of: WatchedJob | None = None
    top: int | None = None
    question: Kill | Turn | None = None
    notice: str = ""


@dataclass(frozen=True, slots=True)
class Room:
    """What the log's page has: the first and last line that can be its top, and its rows."""

    first: int = 0
    last: int = 0
    rows: int = 1


def split(data: bytes, *, last: bool = False) -> tuple[list[str], bytes]:
    """Keys, and what has not ended yet. last: nothing more comes, and Esc is a key."""
    keys: list[str] = []
    while data:
        if data[:1] != b"\x1b":
            end = data.find(b"\x1b")
            part, data = (data, b"") if end < 0 else (data[:end], data[end:])
            # What is more than ASCII is no key of ours.
            keys += part.decode("ascii", "ignore")
        elif match := _SEQUENCE.match(data):
            data = data[match.end() :]
            keys += [_NAMED[match[1]]] if match[1] in _NAMED else []
        elif not last and _BEGUN.fullmatch(data):
            break
        else:
            data = data[1:]
            keys.append(ESCAPE)
    return keys, data


def selected(look: Look, model: Model) -> WatchedJob | None:
    """The job that is selected: the first if none was, or that is gone."""
    jobs = model.jobs()
    found = next((job for job in jobs if job.serial == look.selected), None)
    return found or (jobs[0] if jobs else None)


def press(look: Look, key: str, model: Model, room: Room) -> tuple[Look, Wish | None]:
    """What is looked at after a key, and what is wished by it."""
    if look.question is not None:
        wish = look.question if key in ("y", "Y") else None
        notice = "" if wish else "left as it is"
        return replace(look, question=None, notice=notice), wish
    look = replace(look, notice="")
    if look.page == "help":
        return replace(look, page="jobs"), None
    if look.page == "log":
        return _press_in_log(look, _LETTERS.get(key, key), room)
    return _press_in_jobs(look, key, model)


def _press_in_jobs(look: Look, key: str, model: Model) -> tuple[Look, Wish | None]:
    move = _LETTERS.get(key, key)
    if key in ("q", "Q"):
        return look, Quit()
    if key in ("?", "h"):
        return replace(look, page="help"), None
    job = selected(look, model)
    if move in (UP, DOWN, PAGE_UP, PAGE_DOWN, HOME, END):
        return _move(look, move, model), None
    if key not in ("l", "x", "p", "\r", "\n"):
        return look, None
    if job is None:
        return replace(look, notice="there is no job"), None
    # What is acted on stays selected, wherever it goes.
    look = replace(look, selected=job.serial)
    if key == "x":
        if job.is_over:
            return replace(look, notice=f"has finished already: {job.name}"), None
        return replace(look, question=Kill(job.id, job.name)), None
    if key == "p":
        return _ask_to_turn(look, job, model), None
    return replace(look, page="log", log_of=job, top=None), OpenLog(job.id)


def _move(look: Look, move: str, model: Model) -> Look:
    jobs = model.jobs()
    job = selected(look, model)
    if job is None:
        return look
    steps = {UP: -1, DOWN: 1, PAGE_UP: -10, PAGE_DOWN: 10, HOME: -len(jobs), END: len(jobs)}
    to = max(0, min(len(jobs) - 1, jobs.index(job) + steps[move]))
    return replace(look, selected=jobs[to].serial)


def _ask_to_turn(look: Look, job: WatchedJob, model: Model) -> Look:
    if job.queue is None:
        return replace(look, notice=f"the queue is not known yet; try again: {job.name}")
    if job.queue in ("", NO_QUEUE):
        return replace(look, notice=f"is in no queue that could be paused: {job.name}")
    action = "resume" if model.paused.get(job.queue) else "pause"
    return replace(look, question=Turn(job.queue, action))


def _press_in_log(look: Look, key: str, room: Room) -> tuple[Look, Wish | None]:
    if key in ("q", "Q", ESCAPE, "l"):
        return replace(look, page="jobs", log_of=None), CloseLog()
    if key == "?":
        return replace(look, notice="q back  up/down, space, b scroll  g start  G end"), None
    page = max(1, room.rows - 1)
    steps = {UP: -1, DOWN: 1, PAGE_UP: -page, PAGE_DOWN: page}
    top = room.last if look.top is None else look.top
    if key in steps:
        top += steps[key]
    elif key == HOME:
        top = room.first
    elif key == END:
        top = room.last
    else:
        return look, None
    # At its end it follows.
    return replace(look, top=None if top >= room.last else max(room.first, top)), None
