"""`sysadmctl servers`: who can be reached over a bridge."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from sysadmd.bridge_call import available
from sysadmd.client import Target, connect
from sysadmd.ctl.output import Printer
from sysadmd.errors import GARBLED, SysadmdError

# Servers that are asked at once for their names.
AT_ONCE: Final = 8
# How long all of them have for that; s.
PATIENCE: Final = 30.0


async def list_servers(bridge: Target, printer: Printer) -> int:
    """Their ids, and what each says that its host is called: sealed, so that it is true."""
    ids = await available(bridge)
    names = await _names(bridge, ids)
    if printer.as_json:
        for id, (name, why) in zip(ids, names, strict=True):
            printer.value({"id": id, "hostname": name, **({"error": why} if why else {})})
        return 0
    rows: list[list[tuple[str, str | None]]] = [
        [(id, None), (name if name is not None else f"({why})", None)]
        for id, (name, why) in zip(ids, names, strict=True)
    ]
    printer.table(["ID", "HOSTNAME"], rows)
    return 0


async def _names(bridge: Target, ids: Sequence[str]) -> list[tuple[str | None, str | None]]:
    """Of each its host name, or why it is not known."""
    turns = asyncio.Semaphore(AT_ONCE)
    end = asyncio.get_running_loop().time() + PATIENCE

    async def ask(id: str) -> tuple[str | None, str | None]:
        try:
            there = connect(replace(bridge, server=id))
            async with asyncio.timeout_at(end), turns, there as client:
                reply = await client.request("rpc", "identify")
                return str(reply["hostname"]), None
        except TimeoutError:
            return None, f"no answer within {PATIENCE:g} s"
        except (SysadmdError, *GARBLED) as error:
            return None, str(error)

    return await asyncio.gather(*map(ask, ids))
