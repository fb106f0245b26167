"""A real daemon as a process, and a plain WebSocket client, for every test that needs them."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import ClientConnection, connect

from tests.document import check_frame

ROOT = Path(__file__).resolve().parent.parent
# A loaded machine is slow; a test that hangs is still told in time.
DEADLINE = 30.0


def wait_for(condition: Callable[[], object], what: str, seconds: float = DEADLINE) -> None:
    """Return when the condition holds; fail when it does not in time."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"waited {seconds:g} s in vain for: {what}")
        time.sleep(0.01)


@contextlib.contextmanager
def ended(process: subprocess.Popen[str]) -> Generator[subprocess.Popen[str]]:
    """The process, which is killed at the end: a test that fails does not wait for it."""
    with process:
        try:
            yield process
        finally:
            process.kill()


class Daemon:
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
        self.state_dir = state_dir
        self.config = state_dir.with_name(state_dir.name + ".toml")
        self.config.write_text(config)
        self.log = state_dir.with_name(state_dir.name + ".log")
        self.env = dict(env or {})
        self.wrapper = list(wrapper)
        self.options = list(options)
        self.listen = listen
        self.before = before
        # The configuration is named; otherwise the daemon looks where it is by default.
        self.named = True
        self.process: subprocess.Popen[str] | None = None
        self.url = ""

    def command(self) -> list[str]:
        main = str(ROOT / "sysadmd" / "__main__.py")
        if self.before:
            path = f"import sys; sys.path.insert(0, {str(ROOT)!r}); "
            program = ["-c", f"{path}{self.before}; from sysadmd.__main__ import main; main()"]
        else:
            program = [main]
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

    def start(self) -> Daemon:
        """Start it and wait for the ready line."""
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                self.command(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, **self.env},
                cwd="/",
            )
        assert self.process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            if not selector.select(DEADLINE):
                self.process.kill()
                raise AssertionError(f"no ready line in time:\n{self.log.read_text()}")
        line = self.process.stdout.readline()
        prefix = "sysadmd ready on "
        assert line.startswith(prefix), f"{line!r}\n{self.log.read_text()}"
        self.url = line.removeprefix(prefix).strip()
        return self

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def kill(self) -> None:
        """SIGKILL, and wait for its end."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        self._close()

    def stop(self, seconds: float = DEADLINE) -> int:
        """SIGTERM; returns the exit status."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(seconds)
        self._close()
        return status

    def _close(self) -> None:
        if self.process is not None and self.process.stdout is not None:
            self.process.stdout.close()

    @property
    def token(self) -> str:
        return (self.state_dir / "admin.token").read_text().strip()

    @property
    def context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.state_dir / "tls" / "certificate.pem")

    def stranger(self) -> Client:
        """A connection that is not logged in."""
        stack = contextlib.ExitStack()
        socket = stack.enter_context(
            connect(self.url, ssl=self.context, max_size=None, proxy=None, compression=None)
        )
        return Client(socket, stack)

    def client(self) -> Client:
        """A connection with the admin token."""
        client = self.stranger()
        client.ask("rpc", "auth_token", {"token": self.token})
        return client

    def __enter__(self) -> Daemon:
        running = self.process is not None and self.process.poll() is None
        return self if running else self.start()

    def __exit__(self, *_: object) -> None:
        if self.process is not None and self.process.poll() is None:
            self.stop()
        self._close()


class Client:
    """A plain client. Events that come between a request and its reply are kept."""

    def __init__(self, socket: ClientConnection, stack: contextlib.ExitStack) -> None:
        self.socket = socket
        self._stack = stack
        # Every event is held against the document; not in the other dialect.
        self.documented = True
        self.events: list[dict[str, Any]] = []
        self._number = 0

    def ask_raw(self, namespace: str, name: str, args: object = None) -> dict[str, Any]:
        """Send a request; returns the whole reply or error frame."""
        self._number += 1
        id = f"request-{self._number}"
        request: dict[str, object] = {"namespace": namespace, "name": name, "id": id}
        if args is not None:
            request["args"] = args
        self.socket.send(json.dumps(request))
        while True:
            frame = self.receive()
            if frame["namespace"] == "events" and frame["name"] not in ("response", "error"):
                self.events.append(frame)
            else:
                assert frame["id"] == id, frame
                return frame

    def ask(self, namespace: str, name: str, args: object = None) -> Any:
        """Send a request; returns the reply's args, fails on an error."""
        frame = self.ask_raw(namespace, name, args)
        assert frame["name"] == "response", frame
        return frame["args"]

    def receive(self, seconds: float = DEADLINE) -> dict[str, Any]:
        """The next frame."""
        frame = self.socket.recv(timeout=seconds)
        assert isinstance(frame, str)
        value: dict[str, Any] = json.loads(frame)
        if self.documented:
            check_frame(value)
        return value

    def event(self, seconds: float = DEADLINE) -> dict[str, Any]:
        """The next event."""
        return self.events.pop(0) if self.events else self.receive(seconds)

    def until(self, condition: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
        """Events up to and including the first that fits."""
        found: list[dict[str, Any]] = []
        while not found or not condition(found[-1]):
            try:
                found.append(self.event())
            except TimeoutError:
                last = json.dumps(found[-3:])[:4000]
                pytest.fail(f"of {len(found)} events none fits; the last: {last}")
        return found

    def close(self) -> None:
        self._stack.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
