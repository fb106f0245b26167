"""What `sysadmctl top` shows, for a terminal of any size. Pure: values in, rows out.

Where there is little room, texts give way first, then bars; states and counts stay.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from rich.cells import cell_len, set_cell_size

from sysadmd.ctl.bar import HowFar, mapping
from sysadmd.ctl.job_text import state_colour
from sysadmd.ctl.moments import local, since
from sysadmd.ctl.pool_text import briefly, percent_used, pool_reasons
from sysadmd.ctl.priorities import colour_of, priority_of
from sysadmd.ctl.top.log_lines import LogLines
from sysadmd.ctl.top.model import RUNNING, Model, WatchedJob, shown
from sysadmd.ctl.top.pressing import Kill, Look, Room, Turn, selected

# From so many columns on there is room for bars and sizes.
WIDE: Final = 70
# From so many rows on each part has a heading.
TALL: Final = 16
BOLD: Final = "bold"
DIM: Final = "dim"
SELECTED: Final = "reverse"
_KEYS: Final = "q quit  ? help  l log  x kill  p pause  j/k select"
_LOG_KEYS: Final = "q back  ? help  "
_HELP: Final = (
    "up, down, k, j   select a job",
    "l, Enter         its output, as it comes",
    "x                kill it (asks)",
    "p                pause its queue, or let",
    "                 it go on (asks)",
    "q, Ctrl-C        quit",
    "in the output    up, down, space, b,",
    "                 g (start), G (end)",
    "any key          back",
)
# Rows that the trouble of collectors takes at most.
TROUBLE_ROWS: Final = 3


@dataclass(frozen=True, slots=True)
class Styled:
    """Text of one style: a colour, bold, dim, reverse or none."""

    text: str
    style: str = ""


Line = tuple[Styled, ...]


def screen(
    model: Model, look: Look, log: LogLines | None, now: datetime, columns: int, rows: int
) -> list[Line]:
    """So many rows, none wider than so many columns. now: with the zone that is ours."""
    if rows < 1 or columns < 1:
        return []
    last = _last(look, log)
    head = [_header(model, now, columns)]
    if model.away and rows >= TALL // 2:
        head.append((Styled(shown(model.away), "red"),))
    if rows == 1:
        lines = [(last if look.question or look.notice else head[0])]
    else:
        middle = _middle(model, look, log, now, columns, rows - len(head) - 1)
        lines = [*head, *middle][: rows - 1]
        lines += [()] * (rows - 1 - len(lines)) + [last]
    return [cut(line, columns) for line in lines]


def cut(line: Line, columns: int) -> Line:
    """The line, not wider than so many columns."""
    pieces: list[Styled] = []
    for piece in line:
        wide = cell_len(piece.text)
        if wide > columns:
            pieces.append(Styled(_fitting(piece.text, columns), piece.style))
            break
        pieces.append(piece)
        columns -= wide
    return tuple(pieces)


def _fitting(text: str, columns: int) -> str:
    """The beginning of a text, of so many columns exactly, if need be with spaces behind it."""
    return set_cell_size(text, columns) if columns > 0 else ""


def _header(model: Model, now: datetime, columns: int) -> Line:
    state = Styled("connecting again", "red") if model.away else Styled("connected", "green")
    right = (state, Styled(f" {now:%H:%M:%S}"))
    room = columns - sum(cell_len(piece.text) for piece in right) - 1
    if room < 1:
        return right
    name = " ".join(part for part in (model.host, model.server) if part)
    return (Styled(_fitting(name, room), BOLD), Styled(" "), *right)


def _last(look: Look, log: LogLines | None) -> Line:
    question = look.question
    if isinstance(question, Kill):
        return (Styled(f"y/n: kill the job {question.name}?", SELECTED),)
    if isinstance(question, Turn):
        what = "pause the queue" if question.action == "pause" else "let it go on, the queue"
        return (Styled(f"y/n: {what} {question.queue}?", SELECTED),)
    if look.notice:
        return (Styled(look.notice, "yellow"),)
    if look.page == "log" and log is not None:
        if look.top is None:
            return (Styled(_LOG_KEYS + "following", DIM),)
        place = f"line {look.top + 1} of {log.end}, G follows"
        return (Styled(_LOG_KEYS + place, DIM),)
    return (Styled("any key: back" if look.page == "help" else _KEYS, DIM),)


def _middle(
    model: Model, look: Look, log: LogLines | None, now: datetime, columns: int, rows: int
) -> list[Line]:
    if rows < 1:
        return []
    if look.page == "help":
        return [(Styled(text),) for text in _HELP]
    if look.page == "log" and log is not None:
        return _log_page(model, look, log, columns, rows)
    return _jobs_page(model, look, now, columns, rows)


# The page of a log.


def log_rows(model: Model, rows: int) -> int:
    """How many rows of a log a screen of so many rows shows."""
    return max(1, rows - 3 - (bool(model.away) and rows >= TALL // 2))


def log_room(model: Model, log: LogLines, columns: int, rows: int) -> Room:
    """Which lines can be the first that is shown."""
    room = log_rows(model, rows)
    number, used = log.end, 0
    while number > log.first:
        used += len(_wrapped(log.line(number - 1), max(1, columns)))
        if used > room:
            break
        number -= 1
    return Room(log.first, min(number, max(log.first, log.end - 1)), room)


def _log_page(model: Model, look: Look, log: LogLines, columns: int, rows: int) -> list[Line]:
    job = look.log_of
    if job is not None:
        job = model.job(job.serial) or job
    title = f"{job.word} {job.name}" if job is not None else ""
    head = Styled(f"{title}  {log.note}".rstrip(), BOLD)
    if look.top is None:
        # From the end: of a line that is too long its end is what is new.
        texts: list[str] = []
        number = log.end
        while number > log.first and len(texts) < rows - 1:
            number -= 1
            texts = [*_wrapped(log.line(number), columns), *texts]
        texts = texts[max(0, len(texts) - rows + 1) :]
    else:
        texts, number = [], max(look.top, log.first)
        while number < log.end and len(texts) < rows - 1:
            texts += _wrapped(log.line(number), columns)
            number += 1
    return [(head,), *((Styled(text),) for text in texts)]


def _wrapped(text: str, columns: int) -> list[str]:
    """A text in rows of so many columns; an empty one is one row."""
    found: list[str] = []
    row, used = "", 0
    for character in text:
        wide = cell_len(character)
        if used + wide > columns and row:
            found.append(row)
            row, used = "", 0
        row, used = row + character, used + wide
    return [*found, row]


# The page of jobs, pools and events.


def _jobs_page(model: Model, look: Look, now: datetime, columns: int, rows: int) -> list[Line]:
    tall = rows + 2 >= TALL
    pools = _pools(model, columns, max(1, rows // 4), tall)
    # A third for events; what jobs leave free is theirs, too.
    jobs = model.jobs()
    room = rows - len(pools)
    wanted = 1 + 2 * len(jobs)
    for_jobs = min(wanted, max(min(2, room), room - rows // 3))
    listed = _jobs(model, jobs, look, now, columns, for_jobs)
    return [*listed, *pools, *_news(model, now, room - len(listed), tall)]


def _jobs(
    model: Model, jobs: list[WatchedJob], look: Look, now: datetime, columns: int, rows: int
) -> list[Line]:
    """At most so many rows: the counts, then those jobs around the selected one."""
    if rows < 1:
        return []
    room = rows - 1
    chosen = selected(look, model)
    at = jobs.index(chosen) if chosen is not None else 0
    first = max(0, min(at - room // 2, len(jobs) - room))
    seen = jobs[first : first + room]
    # Rows that are left over show what the running ones write.
    free = room - len(seen)
    lines: list[Line] = []
    names = min(max((cell_len(job.name) for job in seen), default=0), max(8, columns // 4))
    for job in seen:
        is_chosen = chosen is not None and job.serial == chosen.serial
        lines.append(_job(job, model, now, columns, names, is_chosen=is_chosen))
        if free and job.state == RUNNING and job.output:
            free -= 1
            lines.append((Styled(f"    {job.output}", DIM),))
    running, waiting = model.counts()
    text = f"jobs: {running} running, {waiting} waiting"
    if len(seen) < len(jobs):
        text += f" ({first + 1}-{first + len(seen)} of {len(jobs)})"
    return [(Styled(text, BOLD),), *lines]


def visible(model: Model, look: Look, rows: int) -> list[WatchedJob]:
    """Jobs that a screen of so many rows may show."""
    jobs = model.jobs()
    chosen = selected(look, model)
    at = jobs.index(chosen) if chosen is not None else 0
    return jobs[max(0, at - rows) : at + rows]


def _job(
    job: WatchedJob,
    model: Model,
    now: datetime,
    columns: int,
    names: int,
    *,
    is_chosen: bool,
) -> Line:
    style = state_colour(job.word) or ""
    begin = Styled(f"{'>' if is_chosen else ' '} {job.word:9} ", style)
    progress = _progress(job, columns)
    name = Styled(_fitting(job.name, names), SELECTED if is_chosen else "")
    rest = Styled(f"{_runtime(job, model, now)} ")
    return (begin, *progress, rest, name, Styled(f"  {_doing(job, model)}"))


def _progress(job: WatchedJob, columns: int) -> Line:
    """How far it is, where the job tells that; else which command of how many."""
    far, wide = job.far, columns >= WIDE
    if far is not None and not job.is_over:
        bar = (Styled(f"{_bar(far.percent, 8)} ", "cyan"),) if wide else ()
        return (*bar, Styled(f"{far.percent:3}% "))
    text = ""
    if job.commands > 1 and job.started:
        text = f"{job.number + 1}/{job.commands}"
    return (Styled(f"{text:>{15 if wide else 4}} "),)


def _bar(percent: int, length: int) -> str:
    filled = percent * length // 100
    return f"[{'#' * filled}{'-' * (length - filled)}]"


def _runtime(job: WatchedJob, model: Model, now: datetime) -> str:
    """For how long it has run, in seven columns."""
    begun = since(job.started, now)
    if begun is None:
        return " " * 7
    if job.is_over:
        begun -= since(job.finished, now) or 0.0
    else:
        begun -= model.skew
    return f"{clock(max(0.0, begun)):>7}"


def clock(length: float) -> str:
    """A duration in at most seven columns, up to three years: `0:04`, `1:02:03`, `4d 05h`."""
    whole = int(length)
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02}"
    if whole < 86400:
        return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"
    days = f"{whole // 86400}d"
    return f"{days} {whole // 3600 % 24:02}h" if len(days) <= 3 else days


def _doing(job: WatchedJob, model: Model) -> str:
    if job.state == RUNNING or job.is_over:
        far: HowFar | None = None if job.is_over else job.far
        if far is not None and far.doing:
            return far.doing + (f" {far.done}/{far.total}" if far.total else "")
        return job.command
    if not job.queue:
        return job.command
    held = " (paused)" if model.paused.get(job.queue) else ""
    return f"{job.queue}{held} {job.command}"


def _pools(model: Model, columns: int, rows: int, tall: bool) -> list[Line]:
    """Trouble with collectors, then pools, the worst first; at most so many rows."""
    state = model.state
    lines: list[Line] = []
    if error := shown(state.get("error")):
        said = _wrapped(f"trouble: {error}", columns)[:TROUBLE_ROWS]
        lines += [(Styled(row, "bright_red"),) for row in said]
    pools = [
        (shown(name), mapping(pool)) for name, pool in mapping(state.get("zpools")).items()
    ]
    pools.sort(key=lambda each: -_badness(*each))
    names = min(max((cell_len(name) for name, _ in pools), default=0), max(6, columns // 4))
    if tall and pools:
        bad = sum(_badness(*each) >= 3 for each in pools)
        text = f"pools: {len(pools)}" + (f", {bad} not well" if bad else "")
        lines.insert(0, (Styled(text, BOLD),))
    lines += [_pool(name, pool, columns, names) for name, pool in pools]
    if len(lines) > rows:
        left = len(lines) - rows + 1
        lines = [*lines[: rows - 1], (Styled(f"{left} more; sysadmctl state", DIM),)]
        if rows == 1 and pools:
            lines = [_pool(*pools[0], columns, names)]
    return lines


def _badness(name: str, pool: Any) -> int:
    """Its priority. Errors of a device leave that at 0, and are a warning all the same."""
    return max(priority_of(pool), 3 * bool(pool_reasons(pool, name)))


def _pool(name: str, pool: Any, columns: int, names: int) -> Line:
    reasons = pool_reasons(pool, name)
    fg = colour_of(_badness(name, pool))
    health = shown(pool.get("health")) or "-"
    capacity = shown(pool.get("capacity")) or "-"
    used = percent_used(pool)
    bar = ""
    if columns >= WIDE and used is not None:
        bar = f"{_bar(min(100, used), 10)} "
    sizes = ""
    if columns >= WIDE:
        sizes = f"  {shown(pool.get('alloc')) or '-'} of {shown(pool.get('size')) or '-'}"
    return (
        Styled(f"  {health:8} ", fg),
        Styled(_fitting(name, names)),
        Styled(f"  {bar}{capacity:>4}", fg),
        Styled(sizes),
        Styled(f"  {shown(briefly(reasons))}" if reasons else ""),
    )


def _news(model: Model, now: datetime, rows: int, tall: bool) -> list[Line]:
    """The last events, newest last; at most so many rows."""
    lines: list[Line] = []
    if tall and rows > 1:
        lines.append((Styled("events", BOLD),))
    room = rows - len(lines)
    for news in list(model.news)[max(0, len(model.news) - room) :] if room > 0 else []:
        when = shown(local(news.time, now))
        lines.append((Styled(f"  {when} ", DIM), Styled(news.text, news.colour or "")))
    return lines
