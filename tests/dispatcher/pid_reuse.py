"""A pid that goes to another process while there is no daemon. Runs in its own pid namespace.

unshare --pid --fork --mount-proc python pid_reuse.py STATE_DIR fast|portable
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from tests.kit import wait_for
from tests.kit.driver import Driver
from tests.kit.processes import begun, end, end_pairs, held, holders

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))


# Of this namespace alone, on a kernel that has it so (6.14 and newer).
PID_MAX = Path("/proc/sys/kernel/pid_max")
# Pids below are never given out again once they have been passed.
RESERVED = 300


def pass_reserved() -> None:
    while subprocess.Popen(["true"]).pid <= RESERVED:
        reap()


def reap() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def is_gone(pid: int) -> bool:
    reap()
    return not Path(f"/proc/{pid}").exists()


def take(pid: int) -> None:
    """Start processes until one has this pid; that one sleeps."""
    while True:
        child = os.fork()
        if child == 0:
            if os.getpid() == pid:
                os.execvp("sleep", ["sleep", "300"])
            os._exit(0)
        if child == pid:
            return
        os.waitpid(child, 0)


def main(state_dir: Path, portable: bool) -> None:
    assert os.getpid() == 1, "not in a pid namespace of its own"
    PID_MAX.write_text("600")
    pass_reserved()
    with Driver(state_dir, portable=portable, kill_grace=0.2) as daemon:
        uid = daemon.submit("sleep 299", id="a")
        (job,) = wait_for(lambda: begun(state_dir))
        end_pairs(state_dir)
        # Adopted by its identity.
        wait_for(lambda: len(holders(state_dir, "keeper")) == 1)
        assert daemon.job(uid).state == "running"
        daemon.kill()
        end(job)
        # Its files are closed before it can be reaped.
        wait_for(lambda: is_gone(job))
        assert not held(state_dir)
        # The portable way tells starts in seconds.
        since = time.monotonic()
        wait_for(lambda: time.monotonic() - since > 2.5)
        take(job)
        daemon.start()
        # To kill what is not the job any more must not harm who has its pid now.
        daemon.ask({"kill": ["a"]})
        result = daemon.finished(uid).result
        assert result in ("lost", "killed"), result
        assert Path(f"/proc/{job}/cmdline").read_bytes() == b"sleep\x00300\x00"
        print("proven")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2] == "portable")
