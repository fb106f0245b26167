"""The README's first command."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.kit import DEADLINE, wait_for
from tests.kit.ctl import Ctl
from tests.kit.daemon import MAIN


class Demo:
    """`sysadmd demo` as a process whose output is a file: nothing waits for who reads it."""

    def __init__(self, tmp: Path, *options: str, wrapper: Sequence[str] = ()) -> None:
        self.output = tmp / "output"
        with self.output.open("w") as out:
            self.process = subprocess.Popen(
                [*wrapper, sys.executable, MAIN, "demo", *options],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**os.environ, "TMPDIR": str(tmp)},
            )

    @property
    def text(self) -> str:
        return self.output.read_text()

    def wait(self) -> int:
        try:
            return self.process.wait(DEADLINE)
        finally:
            self.process.kill()
            self.process.wait()


def leftovers(tmp: Path) -> list[Path]:
    return list(tmp.glob("sysadmd-demo.*"))


def test_the_demo_shows_a_jobs_life_the_state_and_a_log_event(tmp_path: Path) -> None:
    begun = time.monotonic()
    demo = Demo(tmp_path)
    assert demo.wait() == 0, demo.text
    assert time.monotonic() - begun < 20
    for what in (
        "sysadmd ready on wss://127.0.0.1:",
        "demo pending",
        "demo running: uname -sr",
        "demo finished: succeeded",
        "uname -sr: return code 0",
        "host ",
        "[1/Information] Creating snapshot on tank/usr/home",
    ):
        assert what in demo.text, demo.text
    assert "\x1b" not in demo.text
    assert not leftovers(tmp_path)


def test_a_demo_that_is_kept_can_be_talked_to_and_ends_on_ctrl_c(tmp_path: Path) -> None:
    demo = Demo(tmp_path, "--keep")
    try:
        wait_for(lambda: "sysadmctl --state-dir" in demo.text, "the hint")
        match = re.search(r"--state-dir (\S+)", demo.text)
        assert match is not None
        done = Ctl(tmp_path)("--state-dir", match[1], "--json", "identify")
        assert '"type":"server"' in done.stdout, done.stderr
    finally:
        demo.process.send_signal(signal.SIGINT)
        status = demo.wait()
    assert status == 0, demo.text
    assert not leftovers(tmp_path)


def test_a_demo_that_is_interrupted_leaves_nothing_behind(tmp_path: Path) -> None:
    demo = Demo(tmp_path)
    wait_for(lambda: "demo running" in demo.text, "the job")
    demo.process.send_signal(signal.SIGTERM)
    assert demo.wait() == 130, demo.text
    assert "Traceback" not in demo.text
    assert not leftovers(tmp_path)


def test_a_demo_under_nohup_goes_on_when_the_terminal_goes(tmp_path: Path) -> None:
    demo = Demo(tmp_path, wrapper=("sh", "-c", 'trap "" HUP; exec "$@"', "nohup"))
    wait_for(lambda: "demo running" in demo.text, "the job")
    demo.process.send_signal(signal.SIGHUP)
    assert demo.wait() == 0, demo.text
    assert not leftovers(tmp_path)
