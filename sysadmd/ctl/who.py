"""`sysadmctl audit` and `unblock`: who did what, and from where no password is taken."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any, Final

from sysadmd.client import Client, Target, connect
from sysadmd.ctl.moments import local
from sysadmd.ctl.output import Printer

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
    kept = deque[tuple[str, str]](maxlen=count)
    async with connect(target) as client:
        async for time, text in _entries(client, _ask(begin)):
            if user is not None and parted(text)[0] != user:
                continue
            if count is None:
                _show(printer, time, text)
            else:
                kept.append((time, text))
    for time, text in kept:
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


def _show(printer: Printer, time: str, text: str) -> None:
    if printer.as_json:
        printer.value({"time": time, "entry": text})
        return
    who, where, what = parted(text)
    when = local(time, datetime.now().astimezone())
    # Columns that stay below each other while entries come: an address of IPv6 makes its own.
    printer.line(
        f"{when:<19}  {who:<12}  {where:<15}  {what}" if who else f"{when:<19}  {text}"
    )


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
