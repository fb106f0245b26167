"""`sysadmd stop`: end the running daemon, and its jobs if told to. No option is parsed here.

Jobs are killed by the daemon, which knows how; so it goes last, and with it guard and keeper.
"""

from __future__ import annotations

import asyncio
import math
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
# How long it may take that one of the killed jobs ends, beside `kill_grace`: what a system
# takes that has much to write; s.
JOBS_END: Final = 110.0
# Between two looks; s.
LOOK: Final = 0.1
# Jobs that are killed by one request: their ids, of at most 128 bytes, fit into its reply.
AT_ONCE: Final = 100


def stop(
    state_dir: Path, say: Callable[[str], None], *, with_jobs: bool, kill_grace: float
) -> None:
    """End the daemon of this state directory and wait until it is gone.

    with_jobs: all jobs first, and in the end nothing of theirs is left. kill_grace: what these
    have between TERM and KILL; s.
    Raises: CannotStop; Unreachable and Refused, if it is asked to end jobs and does not answer.
    """
    daemon = _daemon(state_dir)
    if with_jobs:
        asyncio.run(_end_jobs(state_dir, say, JOBS_END + kill_grace))
    end(state_dir, daemon)
    say(f"the daemon (pid {daemon.pid}) has ended")
    if with_jobs:
        _wait(
            lambda: not keepers.living(state_dir / "keeper"),
            END,
            lambda: (
                f"a job was begun meanwhile (processes {_named(state_dir)}); start the"
                " daemon, and stop it again with --jobs"
            ),
        )


def _daemon(state_dir: Path) -> psutil.Process:
    """By the lock that it holds for life. Raises: CannotStop."""
    lock = state_dir / "lock"
    try:
        # If it is not ours to ask, that is said.
        with suppress(FileNotFoundError):
            lock.open("r+b").close()
    except OSError as error:
        raise CannotStop(
            f"{lock} can't be used: {error.strerror}; run as the daemon's account"
        ) from error
    daemon = None
    if (pid := locks.owner(lock)) is not None:
        with suppress(psutil.NoSuchProcess):
            # Known by its start, too: the number may be another's by the time it is used.
            daemon = psutil.Process(pid)
    if daemon is None:
        text = f"no daemon runs with the state directory {state_dir}"
        if jobs := _named(state_dir):
            text += f", but jobs of one do (processes {jobs}): start it, then stop it"
        raise CannotStop(text)
    if not {"serve", "bridge"} & set(command_line(daemon.pid)):
        raise CannotStop(
            f"process {daemon.pid}, which has the state directory {state_dir}, is no daemon;"
            " wait until it has ended"
        )
    return daemon


def _named(state_dir: Path) -> str:
    return ", ".join(map(str, sorted(keepers.living(state_dir / "keeper"))))


async def _end_jobs(state_dir: Path, say: Callable[[str], None], patience: float) -> None:
    """Kill all that is pending or runs, until there is nothing.

    patience: how long it may take until one of them has ended; s.
    """
    until, left = time.monotonic() + patience, math.inf
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
            if len(active) < left:
                until, left = time.monotonic() + patience, len(active)
            if time.monotonic() > until:
                raise CannotStop(
                    f"{', '.join(active)}: killed, but not ended within {patience:g} s; the"
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


def end(state_dir: Path, daemon: psutil.Process) -> None:
    """SIGTERM to it, or to the daemon(8) that would start it again, and passes that on."""
    ending, lock = [daemon], state_dir / "lock"
    try:
        supervisor = daemon.parent()
        if supervisor is not None and supervisor.name() == "daemon":
            ending.append(supervisor)
        ending[-1].terminate()
    except psutil.NoSuchProcess:
        # It has ended by itself.
        pass
    except psutil.AccessDenied as error:
        raise CannotStop(f"process {error.pid} can't be ended by uid {os.geteuid()}") from error
    _wait(
        # The lock outlives the process by a moment, in which it has ended for psutil.
        lambda: not any(map(_runs, ending)) and locks.owner(lock) != daemon.pid,
        END,
        lambda: (
            f"the daemon (pid {daemon.pid}) has not ended within {END:g} s; its log may say why"
        ),
    )
    if (another := locks.owner(lock)) is not None:
        raise CannotStop(
            f"another daemon (pid {another}) was started meanwhile; stop the service that does"
            " so"
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
