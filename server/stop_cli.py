"""`sysadmd stop`: end the running daemon, and its jobs if told to. No option is parsed here.

Jobs are killed by the daemon, which knows how; so it goes last, and with it guard and keeper.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import psutil

from dispatcher import keepers, locks
from dispatcher.processes import command_line
from sysadmd.client import Client, Target, connect
from sysadmd.errors import CannotStop

# A daemon ends within 20 s, whatever hangs (server/signals.py); a supervisor, guards and
# keepers right after it; s.
END: Final = 30.0
# How long killed jobs have: `kill_grace`, 10 s unless it was changed, and what a system takes
# that has much to write; s.
JOBS_END: Final = 120.0
# Between two looks; s.
LOOK: Final = 0.1
# Jobs that are killed by one request: their ids, of at most 128 bytes, fit into its reply.
AT_ONCE: Final = 100


def stop(state_dir: Path, say: Callable[[str], None], *, with_jobs: bool) -> None:
    """End the daemon of this state directory and wait until it is gone.

    with_jobs: all jobs first, and in the end nothing of theirs is left.
    Raises: CannotStop; Unreachable and Refused, if it is asked to end jobs and does not answer.
    """
    pid = _daemon(state_dir)
    if with_jobs:
        asyncio.run(_end_jobs(state_dir, say))
    _end(state_dir, pid)
    say(f"the daemon (pid {pid}) has ended")
    if with_jobs:
        _wait(
            lambda: not keepers.living(state_dir / "keeper"),
            END,
            lambda: (
                f"a job was begun meanwhile (processes {_named(state_dir)}); start the"
                " daemon, and stop it again with --jobs"
            ),
        )


def _daemon(state_dir: Path) -> int:
    """Its pid, by the lock that it holds for life. Raises: CannotStop."""
    lock = state_dir / "lock"
    try:
        # If it is not ours to ask, that is said.
        with suppress(FileNotFoundError):
            lock.open("r+b").close()
    except OSError as error:
        raise CannotStop(
            f"{lock} can't be used: {error.strerror}; run as the daemon's account"
        ) from error
    pid = locks.owner(lock)
    if pid is None:
        text = f"no daemon runs with the state directory {state_dir}"
        if jobs := _named(state_dir):
            text += f", but jobs of one do (processes {jobs}): start it, then stop it"
        raise CannotStop(text)
    if "serve" not in command_line(pid):
        raise CannotStop(
            f"process {pid}, which has the state directory {state_dir}, is no daemon; wait"
            " until it has ended"
        )
    return pid


def _named(state_dir: Path) -> str:
    return ", ".join(map(str, sorted(keepers.living(state_dir / "keeper"))))


async def _end_jobs(state_dir: Path, say: Callable[[str], None]) -> None:
    """Kill all that is pending or runs, until there is nothing."""
    until = time.monotonic() + JOBS_END
    told: set[str] = set()
    async with connect(Target.local(state_dir)) as client:
        while active := await _active(client):
            # Also what was submitted meanwhile.
            if new := [id for id in active if id not in told]:
                say("killing " + ", ".join(new))
                for at in range(0, len(new), AT_ONCE):
                    ask = {"action": "kill", "job_id": new[at : at + AT_ONCE]}
                    await client.request("rpc", "dispatcher", ask)
                told.update(new)
            if time.monotonic() > until:
                raise CannotStop(
                    f"{', '.join(active)}: killed, but not ended within {JOBS_END:g} s; the"
                    " daemon goes on. See what they hang at (sysadmctl log), then try again"
                )
            await asyncio.sleep(LOOK)


async def _active(client: Client) -> list[str]:
    found: list[str] = []
    args: dict[str, Any] = {"action": "list"}
    while True:
        page = await client.request("rpc", "dispatcher", args)
        for jobs in page["jobs"].values():
            found += jobs
        if "next" not in page:
            return found
        args = {**args, "after": page["next"]}


def _end(state_dir: Path, pid: int) -> None:
    """SIGTERM to it, or to the daemon(8) that would start it again, and passes that on."""
    ending: list[psutil.Process] = []
    try:
        daemon = psutil.Process(pid)
        ending.append(daemon)
        supervisor = daemon.parent()
        if supervisor is not None and supervisor.name() == "daemon":
            ending.append(supervisor)
        ending[-1].terminate()
    except psutil.NoSuchProcess:
        # It has ended by itself.
        return
    except psutil.AccessDenied as error:
        raise CannotStop(f"process {error.pid} can't be ended by uid {os.geteuid()}") from error
    _wait(
        lambda: not any(map(_runs, ending)) and locks.owner(state_dir / "lock") != pid,
        END,
        lambda: f"the daemon (pid {pid}) has not ended within {END:g} s; its log may say why",
    )


def _runs(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def _wait(done: Callable[[], bool], seconds: float, trouble: Callable[[], str]) -> None:
    """Raises: CannotStop."""
    until = time.monotonic() + seconds
    while not done():
        if time.monotonic() > until:
            raise CannotStop(trouble())
        time.sleep(LOOK)
