"""`sysadmctl state`: the machine as it is."""

from __future__ import annotations

import contextlib
from typing import Any

from sysadmd.client import Target, events
from sysadmd.ctl.output import Printer, colour


async def show_state(target: Target, printer: Printer) -> int:
    """Host name and pools, as of now."""
    state: dict[str, Any] = {}
    stream = events(target, ["system-state"], snapshot=True)
    async with contextlib.aclosing(stream):
        async for event in stream:
            if event.name == "snapshot":
                state = event.args["system_state"]
                break
    if printer.as_json:
        printer.value(state)
        return 0
    printer.line(f"host {state.get('hostname') or '-'}")
    if "error" in state:
        printer.line(state["error"], "red")
    rows: list[list[tuple[str, str | None]]] = []
    for name, pool in state.get("zpools", {}).items():
        fg = colour(pool["priority"])
        columns = ("size", "alloc", "free", "frag", "capacity", "health", "priority")
        rows.append([(name, fg), *((str(pool[column]), fg) for column in columns)])
    if rows:
        heads = ["POOL", "SIZE", "ALLOC", "FREE", "FRAG", "CAP", "HEALTH", "PRIORITY"]
        printer.table(heads, rows)
    else:
        printer.line("no pools")
    return 0
