"""A daemon with a dispatcher and nothing else: a real process to be killed. Run as a program.

driver_program.py STATE_DIR DOOR VERSION [SETTING=VALUE…]: prints `ready`, then answers JSON
lines on the socket DOOR:
{"submit": [order, …]}, {"kill": [id, …]}, {"pause": queue}, {"resume": queue}, {"troubles": 1},
{"reload": {queue: limit, …}}.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import sysadmd
from dispatcher import lending, lent, records, rousing, transitions
from dispatcher.commandline import parse_command
from dispatcher.runner import Dispatcher, Order
from sysadmd.errors import SysadmdError
from sysadmd.settings import build_settings
from sysadmd.store import open_store


async def serve(state_dir: Path, door: str, values: dict[str, Any]) -> None:
    settings = build_settings({"dispatcher": values}).dispatcher
    store = open_store(state_dir / "state.db", {"dispatcher": records.SCHEMA})
    dispatcher = Dispatcher(store, settings, state_dir)
    await dispatcher.recover()
    running = asyncio.ensure_future(dispatcher.run())

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                try:
                    request = json.loads(line)
                    if "reload" in request:
                        changed = build_settings(
                            {"dispatcher": {**values, **request["reload"]}}
                        )
                        dispatcher.reconfigure(changed.dispatcher)
                        request = {"troubles": 1}
                    reply = await obey(dispatcher, request)
                except SysadmdError as error:
                    reply = {"error": error.code, "text": str(error)}
                writer.write(json.dumps(reply).encode() + b"\n")
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    with contextlib.suppress(FileNotFoundError):
        os.unlink(door)  # noqa: PTH108 - nobody waits for this loop
    server = await asyncio.start_unix_server(answer, door, limit=1 << 22)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, running.cancel)
    print("ready", flush=True)
    await asyncio.wait([running])
    server.close()
    store.close()
    if not running.cancelled():
        running.result()


async def obey(dispatcher: Dispatcher, request: dict[str, Any]) -> dict[str, Any]:
    if "submit" in request:
        jobs = await dispatcher.submit([order(value) for value in request["submit"]])
        return {"jobs": [[job.uid, job.id] for job in jobs]}
    if "kill" in request:
        return {"killed": await dispatcher.kill(request["kill"])}
    if "troubles" in request:
        return {"troubles": dispatcher.troubles}
    if "pause" in request:
        await dispatcher.pause(request["pause"])
        return {}
    await dispatcher.resume(request["resume"])
    return {}


def order(value: dict[str, Any]) -> Order:
    specs = [parse_command(command) for command in value.pop("commands")]
    return Order(commands=tuple(spec for spec in specs if spec is not None), **value)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    place, door, version, *given = sys.argv[1:]
    # As after an upgrade of the program, when given.
    sysadmd.__version__ = version or sysadmd.__version__
    values = dict(argument.split("=", 1) for argument in given)
    settings = {name: json.loads(value) for name, value in values.items()}
    # Tests of what comes after a while need not take that long, nor of what comes before it.
    rousing.__dict__["ROUND"] = settings.pop("rousing_round", rousing.ROUND)
    lending.__dict__["STALE"] = settings.pop("lent_stale", lending.STALE)
    # On a busy machine what is short takes long.
    transitions.__dict__["QUICK_MS"] = settings.pop("lent_quick", lent.QUICK_MS)
    asyncio.run(serve(Path(place), door, settings))
