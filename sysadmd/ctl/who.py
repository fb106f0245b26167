"""`sysadmctl audit` and `unblock`: who did what, and from where no password is taken."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

from sysadmd.client import Client, Target, connect
from sysadmd.ctl.output import Printer
from sysadmd.settings import parse_duration


def beginning(text: str) -> dict[str, str]:
    """What to ask rpc/logs for, from "2026-11-24T18:00:00Z", or from so long ago: "7d".

    Raises: ValueError saying what is allowed.
    """
    try:
        # Counted back from the server's now: its clock has written the times.
        ago = parse_duration(text)
    except ValueError:
        pass
    else:
        return {"time_format": "relative_second", "start_time": str(int(ago))}
    try:
        # Without a zone it is of this machine.
        begin = datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError, OSError) as error:
        raise ValueError(
            f"{text!r} is no time; allowed: how long ago, such as 90, 15m, 12h, 7d (at most a"
            " century), or a moment, such as 2026-11-24, 2026-11-24T18:00, 2026-11-24T18:00:00Z"
        ) from error
    return {
        "time_format": "epoch_mseconds",
        "start_time": str(round(begin.timestamp() * 1000)),
    }


async def show_audit(
    target: Target, printer: Printer, begin: dict[str, str], count: int | None
) -> int:
    """Who logged in from where, ran, killed, paused or changed what; the oldest first.

    count: the last so many alone.
    """
    kept = deque[tuple[str, str]](maxlen=count)
    async with connect(target) as client:
        async for time, text in _entries(client, begin):
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
    else:
        printer.line(f"{time} {text}")


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
