"""The real daemon as a process, and `sysadmd` as a command: for every test that needs them."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from sysadmd.machine import LOCAL_SOCKET
from tests.kit.client import Client
from tests.kit.processes import Program
from tests.kit.teardown import checked
from tests.kit.waiting import DEADLINE, wait_for

ROOT = Path(__file__).resolve().parents[2]
MAIN = str(ROOT / "sysadmd" / "__main__.py")
# No surprise from the machine that the tests run on: its pools and logs are not ours.
QUIET = """
[collectors.hostname]
enabled = false
[collectors.zpool]
enabled = false
[collectors.life_preserver]
enabled = false
"""


def following(log: Path) -> str:
    """As QUIET, but with this log followed."""
    return QUIET.replace("preserver]\nenabled = false", f'preserver]\nlog = "{log}"')


def sysadmd(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """The command `sysadmd`, run to its end. more: environment."""
    return subprocess.run(
        [sys.executable, MAIN, *arguments],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
        env={**os.environ, **more},
    )


class Daemon(Program):
    """`sysadmd serve` on a free port. The state directory survives `kill` and `stop`."""

    def __init__(
        self,
        state_dir: Path,
        config: str = "",
        *,
        env: Mapping[str, str] | None = None,
        wrapper: Sequence[str] = (),
        options: Sequence[str] = (),
        listen: str = "127.0.0.1:0",
        before: str = "",
    ) -> None:
        """before: Python to run first in the daemon's process."""
        super().__init__(
            state_dir.with_name(state_dir.name + ".log"), {**os.environ, **(env or {})}
        )
        self.state_dir = state_dir
        self.config = state_dir.with_name(state_dir.name + ".toml")
        self.config.write_text(config)
        self.wrapper = list(wrapper)
        self.options = list(options)
        self.listen = listen
        self.before = before
        # The configuration is named; otherwise the daemon looks where it is by default.
        self.named = True
        self.url = ""

    def command(self) -> list[str]:
        """As `Program` has it."""
        program = [MAIN]
        if self.before:
            path = f"import sys; sys.path.insert(0, {str(ROOT)!r}); "
            program = ["-c", f"{path}{self.before}; from sysadmd.__main__ import main; main()"]
        return [
            *self.wrapper,
            sys.executable,
            *program,
            "serve",
            *(("--config", str(self.config)) if self.named else ()),
            *("--state-dir", str(self.state_dir)),
            *("--listen", self.listen, "--log-level", "debug"),
            *self.options,
        ]

    def is_ready(self, line: str) -> bool:
        """As `Program` has it; the URL is in the line."""
        prefix = "sysadmd ready on "
        self.url = line.removeprefix(prefix).strip()
        return line.startswith(prefix)

    def reload(self, said: str = "configuration reloaded") -> None:
        """SIGHUP, and wait until the log says so."""
        before = self.log.read_text().count(said)
        os.kill(self.pid, signal.SIGHUP)
        wait_for(lambda: self.log.read_text().count(said) > before, said)

    @property
    def address(self) -> str:
        """Where it listens, HOST:PORT."""
        return self.url.removeprefix("wss://")

    @property
    def token(self) -> str:
        """The admin token."""
        return (self.state_dir / "admin.token").read_text().strip()

    @property
    def context(self) -> ssl.SSLContext:
        """Trusts the daemon's certificate and nothing else."""
        return ssl.create_default_context(cafile=self.state_dir / "tls" / "certificate.pem")

    def plain_socket(self, source: str = "127.0.0.1") -> socket.socket:
        """A TCP connection from this address, on which nothing has been said."""
        host, port = self.address.rsplit(":", 1)
        return socket.create_connection((host, int(port)), DEADLINE, source_address=(source, 0))

    def stranger(self) -> Client:
        """A connection that is not logged in."""
        return Client(self.url, self.context)

    def client(self) -> Client:
        """A connection with the admin token."""
        client = self.stranger()
        client.ask("rpc", "auth_token", {"token": self.token})
        return client

    def local(self) -> Client:
        """A connection by the Unix socket."""
        return Client("", None, self.state_dir / LOCAL_SOCKET)

    def fetch(self, path: str, **headers: str) -> tuple[int, str]:
        """Status and text of a plain HTTP request."""
        url = self.url.replace("wss://", "https://") + path
        request = urllib.request.Request(url, headers=headers)
        try:
            with urllib.request.urlopen(request, context=self.context) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def __enter__(self) -> Self:
        running = self.process is not None and self.process.poll() is None
        return self if running else self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with checked(self, self.state_dir, error):
            if self.is_up:
                self.stop()
