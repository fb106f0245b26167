"""`sysadmctl audit` and `unblock`: who did what, and from where no password is taken."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any, Final

from sysadmd.client import Client, Target, connect
from sysadmd.ctl.layout import lay_out
from sysadmd.ctl.output import Printer

# Of an account and an address.
_WHO: Final = 8
_WHERE: Final = 9
_ENTRY: Final = re.compile(r"(?P<who>.+?)@(?P<where>[^ @]+): (?P<what>.*)", re.DOTALL)


def _ask(begin: float | datetime) -> dict[str, str]:
    """The window that rpc/logs is asked for."""
    if isinstance(begin, datetime):
        milliseconds = round(begin.timestamp() * 1000)
        return {"time_format": "epoch_mseconds", "start_time": str(milliseconds)}
    # Counted back from the server's now: its clock has written the times.
    return {"time_format": "relative_second", "start_time": str(int(begin))}


def parted(text: str) -> tuple[str, str, str]:
    """Who, from where, and what: `root@local: unblock 192.0.2.7`; all else is what."""
    # Of an account an @ may be part; an address has no blank.
    match = _ENTRY.fullmatch(text)
    return (match["who"], match["where"], match["what"]) if match else ("", "", text)


async def show_audit(
    target: Target,
    printer: Printer,
    begin: float | datetime,
    count: int | None,
    user: str | None = None,
) -> int:
    """Who logged in from where, ran, killed, paused or changed what; the oldest first.

    begin: when, or how many seconds ago. count: the last so many alone. user: of this account.
    """
    days = _Days(printer)
    kept = deque[tuple[str, str]](maxlen=count)
    async with connect(target) as client:
        async for time, text in _entries(client, _ask(begin)):
            if user is not None and parted(text)[0] != user:
                continue
            if count is None:
                days.tell(time)
                _show(printer, time, text)
            else:
                kept.append((time, text))
    for time, text in kept:
        days.tell(time)
        _show(printer, time, text)
    return 0


async def _entries(client: Client, begin: dict[str, str]) -> AsyncIterator[tuple[str, str]]:
    args: dict[str, Any] = {"action": "read_logs", "logs": ["hostinfo"], **begin}
    while True:
        page = await client.request("rpc", "logs", args)
        for entry in page.get("hostinfo", {}).items():
            yield entry
        if "next" not in page:
            return
        args["after"] = page["next"]


class _Days:
    """Says on a terminal, where times have no day, of which day those below it are."""

    def __init__(self, printer: Printer) -> None:
        self._printer = printer
        self._day = ""

    def tell(self, time: str) -> None:
        """Say the day, if it is another one."""
        day = "" if self._printer.as_json else self._printer.day(time)
        if day != self._day:
            self._day = day
            self._printer.ready(f"-- {day} --")


def _show(printer: Printer, time: str, text: str) -> None:
    if printer.as_json:
        printer.value({"time": time, "entry": text})
        return
    who, where, what = (printer.clean(part) for part in parted(text))
    # Columns that stay below each other while entries come; longer ones make their own.
    by = f"{who:<{_WHO}}  {where:<{_WHERE}}  " if who else ""
    for line in lay_out(f"{printer.clock(time)}  {by}", what, printer.width):
        printer.ready(line)


async def show_blocks(target: Target, printer: Printer) -> int:
    """From where no password is taken, and for how many seconds more."""
    async with connect(target) as client:
        args: dict[str, Any] = {"action": "blocks"}
        while True:
            page = await client.request("rpc", "clients", args)
            for block in page["blocks"]:
                if printer.as_json:
                    printer.value(block)
                else:
                    printer.line(f"{block['address']} for {block['seconds']} s more")
            if "next" not in page:
                return 0
            args["after"] = page["next"]


async def unblock_address(target: Target, printer: Printer, address: str) -> int:
    """Passwords from there are taken again."""
    async with connect(target) as client:
        args = {"action": "unblock", "address": address}
        reply = await client.request("rpc", "clients", args)
    if printer.as_json:
        printer.value(reply)
    else:
        printer.line(f"{reply['unblocked']} is not blocked any more")
    return 0
