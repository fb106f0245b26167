"""`sysadmctl state`: the machine as it is."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, TypeAlias

from sysadmd.client import Client, Refused, Target, connect
from sysadmd.ctl.bar import mapping
from sysadmd.ctl.moments import local
from sysadmd.ctl.output import UNLIMITED, Printer
from sysadmd.ctl.pool_text import device_rows, pool_reasons, scan_errors, scan_text
from sysadmd.ctl.priorities import colour_of, priority_of

# A text and its colour.
Cell: TypeAlias = tuple[str, str | None]

_COLUMNS: Final = (
    ("HEALTH", "health"),
    ("CAP", "capacity"),
    ("SIZE", "size"),
    ("ALLOC", "alloc"),
    ("FREE", "free"),
    ("FRAG", "frag"),
    ("PRIORITY", "priority"),
)
# Between two columns of a table.
_GAP: Final = 2
_UNKNOWN: Final = (400, 404)


async def show_state(target: Target, printer: Printer) -> int:
    """Host name, pools and what is wrong with them, Life Preserver and jobs, as of now."""
    async with connect(target) as client:
        seen, time = await snapshot(client)
        queues: Mapping[str, Any] = {}
        if not printer.as_json:
            queues = await _queues(client)
    state = seen["system_state"]
    if printer.as_json:
        printer.value(state)
        return 0
    now = datetime.now().astimezone()
    as_of = f", as of {local(time, now)}" if time else ""
    printer.line(f"host {state.get('hostname') or '-'}{as_of}")
    if "error" in state:
        printer.line(str(state["error"]), "red")
    _show_pools(printer, mapping(state.get("zpools")))
    event = mapping(seen.get("life_preserver"))
    if event:
        told = f"[{event['priority']}] {event['message']}"
        printer.line(f"Life Preserver: {told}", colour_of(priority_of(event)))
    printer.line(jobs_text([mapping(job) for job in seen["jobs"]], queues))
    return 0


async def snapshot(client: Client) -> tuple[dict[str, Any], str]:
    """The truth as of now, with all jobs that are active, and when that was."""
    ask = {"systems": ["system-state"], "since": "now", "snapshot": True}
    reply = await client.request("events", "subscribe", ask)
    # What has no cursor will send no snapshot either.
    _ = reply["cursor"]
    seen: dict[str, Any] = {}
    jobs: list[Any] = []
    time = ""
    async for frame in client.frames():
        if frame["name"] != "snapshot":
            continue
        seen.update(frame["args"])
        jobs += frame["args"]["jobs"]
        time = str(frame.get("time", ""))
        if not frame.get("more"):
            break
    return {**seen, "jobs": jobs}, time


async def _queues(client: Client) -> Mapping[str, Any]:
    """Each with whether it is paused; none: the server is too old to tell."""
    try:
        reply = await client.request("rpc", "dispatcher", {"action": "queues"})
    except Refused as error:
        if error.number not in _UNKNOWN:
            raise
        return {}
    return mapping(mapping(reply).get("queues"))


def jobs_text(jobs: list[Mapping[str, Any]], queues: Mapping[str, Any]) -> str:
    """`jobs: 2 running, 1 waiting; paused: pkg_queue`."""
    run = sum(job.get("state") == "running" for job in jobs)
    wait = len(jobs) - run
    text = f"jobs: {run} running, {wait} waiting" if jobs else "no job runs or waits"
    paused = [name for name, queue in queues.items() if mapping(queue).get("paused") is True]
    return f"{text}; paused: {', '.join(paused)}" if paused else text


def _show_pools(printer: Printer, pools: Mapping[str, Any]) -> None:
    if not pools:
        printer.line("no pools")
        return
    rows = [pool_row(name, mapping(pool)) for name, pool in pools.items()]
    _show_table(printer, ["POOL", *(head for head, _ in _COLUMNS)], rows)
    for name, pool in pools.items():
        _show_pool(printer, name, mapping(pool))


def pool_row(name: str, pool: Mapping[str, Any]) -> list[Cell]:
    """A pool's line, what matters most in front; its colour is its priority's."""
    fg = _colour(pool, bool(pool_reasons(pool, name)))
    return [(name, fg), *((str(pool.get(key, "-")), fg) for _, key in _COLUMNS)]


def _show_pool(printer: Printer, name: str, pool: Mapping[str, Any]) -> None:
    """What there is to say beyond the columns: reasons, scrub, devices that are not well."""
    reasons, scan = pool_reasons(pool, name), scan_text(pool)
    fg = _colour(pool, bool(reasons))
    for reason in reasons:
        # Told behind.
        if reason not in (scan, scan_errors(pool)):
            printer.line(f"{name}: {reason}", fg)
    if scan:
        printer.line(f"{name}: {scan}")
    rows: list[list[Cell]] = [[(cell, None) for cell in row] for row in device_rows(pool)]
    if rows:
        heads = ["DEVICE", "STATE", "READ", "WRITE", "CKSUM", "NOTE"]
        if not any(row[-1][0] for row in rows):
            heads, rows = heads[:-1], [row[:-1] for row in rows]
        _show_table(printer, heads, rows)


def _colour(pool: Mapping[str, Any], ill: bool) -> str:
    # Errors of a device leave the pool's own priority at 0.
    return colour_of(max(priority_of(pool), 3 * ill))


def _show_table(printer: Printer, heads: list[str], rows: list[list[Cell]]) -> None:
    """A table, or where the terminal is too narrow for it a few lines for each row."""
    columns = printer.width or UNLIMITED
    if table_width(heads, rows) <= columns:
        printer.table(heads, rows)
        return
    for row in rows:
        for text, fg in stacked(heads, row, columns):
            printer.line(text, fg)


def table_width(heads: list[str], rows: list[list[Cell]]) -> int:
    """Columns of a terminal that a table takes."""
    widths = (max(map(len, column)) for column in zip(heads, *_texts(rows), strict=True))
    return sum(widths) + _GAP * (len(heads) - 1)


def _texts(rows: list[list[Cell]]) -> list[list[str]]:
    return [[text for text, _ in row] for row in rows]


def stacked(heads: list[str], row: list[Cell], columns: int) -> list[Cell]:
    """A row as lines: its name and what comes next, then each other cell with its head."""
    (name, fg), (state, _), *rest = row
    lines = [f"{name} {state}"]
    for head, (text, _) in zip(heads[2:], rest, strict=True):
        cell = f"{head.lower()} {text}"
        if not text:
            continue
        if len(lines) > 1 and len(lines[-1]) + 2 + len(cell) <= columns:
            lines[-1] += f", {cell}"
        else:
            lines.append(f"  {cell}")
    return [(line, fg) for line in lines]
