"""`sysadmd demo`: the real daemon and a real client on this machine, in some seconds.

Nothing is staged: what is printed came over TLS from a daemon of its own, in a temporary state
directory that is gone afterwards. No part of the daemon is used here, only its command line.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import sysadmd
from sysadmd.client import EventFrame, Target, connect, events
from sysadmd.errors import CannotStart, SysadmdError
from sysadmd.events import SYSTEMS

if TYPE_CHECKING:
    from rich.console import Console

COMMANDS: Final = (
    ["uname", "-sr"],
    ["df", "-h", "/"],
    ["sh", "-c", "for n in 1 2 3; do echo step $n of 3; sleep 0.5; done"],
)
# All of it is promised within 20 s; what has not come by then does not come; s.
START_TIMEOUT: Final = 8.0
SHOW_TIMEOUT: Final = 8.0
STOP_TIMEOUT: Final = 3.0
CONFIG: Final = """\
[collectors.life_preserver]
enabled = true
log = "{log}"
[auth]
syslog = false
"""
OLD_LINE: Final = "was here before the daemon and is not told"


def run_demo(keep: bool) -> int:
    """Show the daemon at work; returns the exit status. keep: until Ctrl-C."""
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    # Whatever ends the demo, its daemon and directory go with it; under nohup, not a hang-up.
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)
    try:
        with tempfile.TemporaryDirectory(prefix="sysadmd-demo.") as name:
            return _demo(console, Path(name), keep)
    except KeyboardInterrupt:
        console.print("\nInterrupted; the daemon is stopped and its directory removed.")
        return 130
    except TimeoutError:
        print("sysadmd: the demo took too long; this machine is very busy", file=sys.stderr)
        return 1


def _demo(console: Console, directory: Path, keep: bool) -> int:
    log = directory / "lpreserver.log"
    _append(log, OLD_LINE)
    began = time.monotonic()
    with _daemon(directory, log) as (daemon, url):
        _title(console, "A daemon")
        console.print(f"sysadmd ready on {url}, pid {daemon.pid}")
        console.print(f"state directory {directory / 'state'}, readable by you alone")
        target = Target.local(directory / "state")
        try:
            asyncio.run(_show(console, target, log))
            _title(console, f"Done in {time.monotonic() - began:.1f} s")
            if keep:
                _stay(console, daemon, directory / "state")
            return 0
        finally:
            # Jobs outlive a daemon that stops; this one shall leave nothing behind.
            with contextlib.suppress(SysadmdError, TimeoutError):
                asyncio.run(_end_jobs(target))


@contextlib.contextmanager
def _daemon(directory: Path, log: Path) -> Generator[tuple[subprocess.Popen[str], str]]:
    """`sysadmd serve` on a free port, until the block ends."""
    config = directory / "sysadmd.toml"
    config.write_text(CONFIG.format(log=log))
    program = Path(sysadmd.__file__).with_name("__main__.py")
    command = [sys.executable, "-I", str(program), "serve", "--listen", "127.0.0.1:0"]
    command += ["--config", str(config), "--state-dir", str(directory / "state")]
    own_log = directory / "sysadmd.log"
    with own_log.open("w") as errors:
        # In a process group of its own: Ctrl-C is for us, we stop it in order.
        daemon = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, process_group=0
        )
    try:
        assert daemon.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(daemon.stdout, selectors.EVENT_READ)
            line = daemon.stdout.readline() if selector.select(START_TIMEOUT) else ""
        if not line.startswith("sysadmd ready on "):
            raise CannotStart(f"the daemon did not start:\n{own_log.read_text().strip()}")
        yield daemon, line.removeprefix("sysadmd ready on ").strip()
    finally:
        daemon.terminate()
        try:
            daemon.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()
        if daemon.stdout is not None:
            daemon.stdout.close()


async def _show(console: Console, target: Target, log: Path) -> None:
    stream = events(target, SYSTEMS, snapshot=True)
    async with contextlib.aclosing(stream), connect(target) as client:
        async with asyncio.timeout(SHOW_TIMEOUT):
            # The snapshot says that the subscription stands: nothing can be missed from here.
            await anext(stream)
            _title(console, "A job of three commands")
            job = {"commands": COMMANDS, "id": "demo"}
            await client.request("rpc", "dispatcher", {"action": "submit", "job": job})
            state: dict[str, Any] = {}
            async for event in stream:
                if event.name == "system_state":
                    state = event.args
                elif event.name == "dispatcher":
                    _show_job(console, event)
                    if event.args["state"] == "finished":
                        break
        _title(console, "This machine")
        async with asyncio.timeout(SHOW_TIMEOUT):
            _show_state(console, state or await _state(target))
        _title(console, "A Life Preserver event")
        line = _append(log, "Creating snapshot on tank/usr/home")
        console.print(f"appended to the log: {line}")
        async with asyncio.timeout(SHOW_TIMEOUT):
            event = await _next(stream, "life_preserver")
        args = event.args
        console.print(
            f"told by the daemon: [{args['priority']}] {args['message']}", markup=False
        )


async def _next(stream: AsyncIterator[EventFrame], name: str) -> EventFrame:
    """The next event of this name."""
    async for event in stream:
        if event.name == name:
            return event
    raise CannotStart("the daemon stopped telling events")


def _show_job(console: Console, event: EventFrame) -> None:
    """One event of the job: its state, and what has ended since the last one."""
    from rich.text import Text

    state, details = event.args["state"], event.args.get("process_details", {})
    commands: list[dict[str, Any]] = details.get("commands", [])
    ended = [command for command in commands if command["state"] == "finished"]
    style = {"pending": "yellow", "running": "cyan"}.get(state, "bold green")
    head = Text.assemble(f"{event.args['process_id']} ", (state, style))
    running = [command for command in commands if command["state"] == "running"]
    if state == "running":
        head.append(f": {', '.join(command['command'] for command in running)}")
        head.append(f"  ({len(ended)} of {len(commands)} done)", "dim")
    elif state == "finished":
        head.append(f": {details['result']}")
    console.print(head)
    for command in running if state == "running" else ended:
        if state == "finished":
            what = f"{command['command']}: return code {command['return_code']}"
            console.print(Text(f"    {what}", "bold"))
        for line in str(details.get(command["command"], "")).splitlines():
            console.print(Text(f"    | {line}"))


async def _state(target: Target) -> dict[str, Any]:
    """The system state as of now; waits for the collectors' first reading."""
    while True:
        stream = events(target, ["system-state"], snapshot=True)
        async with contextlib.aclosing(stream):
            event = await anext(stream)
        state: dict[str, Any] = event.args["system_state"]
        if state:
            return state
        await asyncio.sleep(0.1)


def _show_state(console: Console, state: dict[str, Any]) -> None:
    from rich.text import Text

    console.print(Text(f"host {state['hostname']}, priority {state['priority']}"))
    for name, pool in sorted(state["zpools"].items()):
        style = "green" if pool["health"] == "ONLINE" else "bold red"
        console.print(
            Text.assemble(
                f"pool {name}: ",
                (str(pool["health"]), style),
                f", {pool['capacity']} of {pool['size']} used",
            )
        )
    if "error" in state:
        console.print(Text(str(state["error"]), "red"))
    if not state["zpools"]:
        console.print("no ZFS pools here")


async def _end_jobs(target: Target) -> None:
    """Kill what still runs and wait until it has ended."""
    async with asyncio.timeout(STOP_TIMEOUT), connect(target) as client:
        while True:
            reply = await client.request("rpc", "dispatcher", {"action": "list"})
            ids = [id for queue in reply["jobs"].values() for id in queue]
            if not ids:
                return
            await client.request("rpc", "dispatcher", {"action": "kill", "job_id": ids})
            await asyncio.sleep(0.05)


def _stay(console: Console, daemon: subprocess.Popen[str], state_dir: Path) -> None:
    """Until Ctrl-C, or the daemon's end."""
    console.print("The daemon goes on until Ctrl-C. Talk to it in another terminal:")
    console.print(f"  sysadmctl --state-dir {state_dir} tail")
    with contextlib.suppress(KeyboardInterrupt):
        daemon.wait()


def _append(log: Path, message: str) -> str:
    """Write a line as Life Preserver does; returns it. Source: its shell functions' date."""
    now = datetime.datetime.now().astimezone().strftime("%a %b %e %H:%M:%S %Z %Y")
    line = f"{now}: {message}"
    with log.open("a") as file:
        file.write(line + "\n")
    return line


def _title(console: Console, text: str) -> None:
    from rich.text import Text

    console.print(Text(f"\n{text}", "bold"))
