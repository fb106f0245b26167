"""sysadmd as a service, or a bridge: rc.d/sysadmd, rc.d/sysadmd_bridge, run as service(8) does.

On FreeBSD the installed one, with the real rc.subr(8) and daemon(8); elsewhere a copy of it, on
stand-ins that lie in tests/freebsd/stand_in.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

import psutil
import pytest

from tests.kit.client import Client
from tests.kit.daemon import QUIET, ROOT
from tests.kit.waiting import DEADLINE, wait_for

ON_FREEBSD: Final = sys.platform.startswith("freebsd")
SCRIPTS: Final = ROOT / "rc.d"
# By the service: the command that it runs, and the section of the configuration.
_COMMAND: Final = {"sysadmd": "serve", "sysadmd_bridge": "bridge"}
_SECTION: Final = {"sysadmd": "server", "sysadmd_bridge": "bridge"}
_STAND_IN: Final = ROOT / "tests" / "freebsd" / "stand_in"
# As service(8) has it: without /usr/local. Source: service.sh of 13.2.
_ENVIRONMENT: Final = {"HOME": "/", "PATH": "/sbin:/bin:/usr/sbin:/usr/bin"}
_LISTEN: Final = 'listen = ["127.0.0.1:0"]\nhandshake_timeout = 60\n'
# What rc.subr(8) and daemon(8) need for themselves, beside what is waited for; s.
_PATIENCE: Final = 2 * DEADLINE


class Service:
    """The service in a directory of its own. Its settings are those of rc.conf(5)."""

    def __init__(self, directory: Path, generation: str = "", name: str = "sysadmd") -> None:
        """generation: of the stand-in for daemon(8). name: of its script."""
        if ON_FREEBSD and not os.environ.get("SYSADMD_TEST_SERVICE"):
            pytest.skip("takes the place of this machine's service: see first_boot.sh")
        self.name = name
        self.state_dir = directory / "state"
        self._configured = f"[{_SECTION[name]}]\n{_LISTEN}{QUIET}"
        self.config = directory / "sysadmd.toml"
        self.log = directory / "sysadmd.log"
        self.settings: dict[str, str] = {}
        self._environment = {**_ENVIRONMENT}
        if ON_FREEBSD:
            self._command = ["/usr/sbin/service", name]
            self._rc_conf = Path("/etc/rc.conf.d") / name
            self._rc_conf.parent.mkdir(exist_ok=True)
            run = Path("/var/run")
        else:
            run = directory / "run"
            run.mkdir()
            self._rc_conf = directory / "rc.conf"
            self._command = [str(_adapted(SCRIPTS / name, directory, run))]
            self._environment["DAEMON_GENERATION"] = generation
        self._pid_files = {
            "daemon(8)": run / f"{name}.pid",
            "sysadmd": run / f"{name}-child.pid",
        }

    def __call__(self, action: str) -> subprocess.CompletedProcess[str]:
        """Run `service NAME ACTION` to its end, and of all that hold its output."""
        lines = (f'{name}="{value}"\n' for name, value in self.settings.items())
        self._rc_conf.write_text("".join(lines))
        return subprocess.run(
            [*self._command, action],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_PATIENCE,
            check=False,
            env=self._environment,
        )

    def set_up(self) -> None:
        """Give it the settings and the configuration that tests begin with."""
        self.config.write_text(self._configured)
        self.settings = {
            f"{self.name}_enable": "YES",
            f"{self.name}_config": str(self.config),
            f"{self.name}_state_dir": str(self.state_dir),
            f"{self.name}_logfile": str(self.log),
            f"{self.name}_bin": str(Path(sys.executable).with_name("sysadmd")),
        }

    def is_whole(self) -> bool:
        """Is there one daemon, and what supervises it?"""
        both = sorted((self.pid("daemon(8)"), self.pid("sysadmd")))
        return both == self.running() and _text(self.config) == self._configured

    def start(self) -> None:
        """Have it started, and wait until it is ready."""
        done = self("start")
        assert done.returncode == 0, done.stdout
        self.wait_until_ready()

    def stop(self) -> None:
        """Have it stopped; nothing of it runs any more."""
        done = self("stop")
        assert done.returncode == 0, done.stdout
        assert not self.running(), done.stdout

    def wait_until_ready(self, but: int = 0) -> None:
        """Wait until the daemon, if its pid is another one, listens."""
        endpoint = self.state_dir / "endpoint.json"

        def ready() -> bool:
            pid = self.pid("sysadmd")
            return pid not in (0, but) and f'"pid": {pid},' in _text(endpoint)

        wait_for(ready, f"{endpoint} to name the pid")

    def pid(self, who: str) -> int:
        """What the pid file of "daemon(8)" or "sysadmd" says; 0: nothing."""
        found = re.match(r"\d+", _text(self._pid_files[who]))
        return int(found[0]) if found else 0

    def write_pid(self, who: str, pid: int) -> None:
        """Leave this in a pid file, as somebody who was killed."""
        self._pid_files[who].write_text(str(pid))

    def kill(self, who: str) -> int:
        """Kill it with -9; returns what its pid was."""
        pid = self.pid(who)
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not _lives(pid), f"the end of pid {pid}")
        return pid

    def running(self) -> list[int]:
        """The pids of all daemons on this state directory, and of what supervises them."""
        mark, supervisor = str(self.state_dir), self.pid("daemon(8)")
        # By pid, with the parent's.
        daemons: dict[int, int] = {}
        supervisors: list[int] = []
        for process in psutil.process_iter():
            try:
                words, parent = process.cmdline(), process.ppid()
            except psutil.Error:
                continue
            if _COMMAND[self.name] in words and mark in words:
                daemons[process.pid] = parent
            # daemon(8) shows a title in place of its arguments.
            # FreeBSD's kernel is pid 0.
            elif 0 != process.pid == supervisor:
                supervisors.append(process.pid)
        # A child that has not become another program yet is none.
        serving = [
            pid
            for pid, parent in daemons.items()
            if parent == supervisor or parent not in daemons
        ]
        return sorted([*serving, *supervisors])

    def client(self) -> Client:
        """A client of this machine."""
        return Client("", None, self.state_dir / "sysadmd.sock")

    def end(self) -> None:
        """Leave nothing of it running, whatever a test did; its state stays."""
        if self.running():
            self("onestop")
            for pid in self.running():
                os.kill(pid, signal.SIGKILL)
        for file in (*self._pid_files.values(), self._rc_conf, self.log):
            file.unlink(missing_ok=True)


def _adapted(shipped: Path, directory: Path, run: Path) -> Path:
    """A copy of a script that works on the stand-ins."""
    text = shipped.read_text()
    for there, here in (
        ("/etc/rc.subr", directory / "rc.subr"),
        ("/usr/sbin/daemon", directory / "daemon"),
        ("/var/run", run),
    ):
        assert there in text
        text = text.replace(there, str(here))
    script = directory / shipped.name
    script.write_text(text)
    script.chmod(0o755)
    for name in ("rc.subr", "daemon"):
        shutil.copy(_STAND_IN / name, directory)
    return script


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except FileNotFoundError:
        return ""


def _lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
