"""A job has used up all processes and threads: that is a delay for others, never an end."""

from __future__ import annotations

import contextlib
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.kit import QUIET, Daemon, needs_root, wait_for

# In a PID namespace of its own with room for a hundred; where that counts for the whole machine
# it is left alone. Source: the kernel, since 6.14.
FEW = (
    *("unshare", "--pid", "--fork", "--mount-proc", "--kill-child", "sh", "-c"),
    *('echo 400 > /proc/sys/kernel/pid_max; "$@"', "sh"),
)
BOMB = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
while True:
    try:
        if not os.fork():
            time.sleep(600)
            os._exit(0)
    except OSError:
        os.write(1, b"no more\\n")
        time.sleep(0.05)
"""


def test_a_fork_bomb_can_be_killed_and_all_goes_on(tmp_path: Path) -> None:
    needs_root("unshare")
    release = tuple(map(int, Path("/proc/sys/kernel/osrelease").read_text().split(".")[:2]))
    if release < (6, 14):
        pytest.skip("pid_max belongs to the whole machine on this kernel")
    config = f"{QUIET}[dispatcher]\nkill_grace = 0.5\n[auth]\npam_wait = 1\n"
    daemon = Daemon(tmp_path / "state", config, wrapper=FEW)
    # Its end takes all with it: it is the first process of the namespace.
    with daemon, contextlib.ExitStack() as stack:
        stack.callback(daemon.kill)
        client = stack.enter_context(daemon.client())

        def ask(action: str, **args: object) -> dict[str, Any]:
            frame = client.ask_raw("rpc", "dispatcher", {"action": action, **args})
            answer: dict[str, Any] = frame["args"]
            return answer

        def submit(id: str, *command: str) -> None:
            ask("submit", job={"id": id, "commands": [list(command)]})

        def ended(id: str) -> str | None:
            job = ask("show", job_id=id)["job"]
            return str(job["result"]) if job["state"] == "finished" else None

        for number in range(3):
            submit(f"bomb {number}", sys.executable, "-S", "-c", BOMB)
        wait_for(lambda: "no more" in str(ask("log", job_id="bomb 0")), "a full table")
        submit("other", "true")
        result = wait_for(lambda: ended("other"), "the end of another job")
        text = str(ask("log", job_id="other")["text"])
        assert result == "succeeded" or "no process can be made" in text
        with daemon.stranger() as stranger:
            args = {"username": "root", "password": "x"}
            assert stranger.ask_raw("rpc", "auth", args)["name"] == "error"
        killed = ask("kill", job_id=[f"bomb {number}" for number in range(3)])
        assert "killed" in killed, killed
        for number in range(3):
            assert wait_for(partial(ended, f"bomb {number}"), "its end") == "killed"
        submit("after", "true")
        assert wait_for(lambda: ended("after"), "the end of a later job") == "succeeded"
