"""A WebSocket of Qt's own (PyQt5, of the system's packages), used as one of `websockets`."""

from __future__ import annotations

import json
import queue
import subprocess
import threading
from pathlib import Path
from typing import Final

from websockets.exceptions import ConnectionClosedError

from tests.kit.needs import needed
from tests.kit.waiting import DEADLINE

_PROGRAM: Final = Path(__file__).with_name("qt_socket_program.py")
# Not that of the tests, which has no PyQt5.
_PYTHON: Final = "/usr/bin/python3"


def needs_qt() -> None:
    """Go on only where the system's Python has Qt's WebSockets."""
    command = [_PYTHON, "-c", "import PyQt5.QtWebSockets"]
    try:
        found = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        found = False
    if not found:
        needed("python3-pyqt5.qtwebsockets")


class QtSocket:
    """A connection to a server."""

    def __init__(self, url: str) -> None:
        self._process = subprocess.Popen(
            [_PYTHON, str(_PROGRAM), url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._said: queue.Queue[list[str]] = queue.Queue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        if self._next(DEADLINE) != ["connected"]:
            self.close()
            raise ConnectionRefusedError(url)

    def send(self, text: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(text) + "\n")
        self._process.stdin.flush()

    def recv(self, timeout: float) -> str:
        """The next text. Raises: TimeoutError, ConnectionClosedError."""
        said = self._next(timeout)
        if said[0] != "text":
            # It is asked again, perhaps.
            self._said.put(said)
            raise ConnectionClosedError(None, None)
        return said[1]

    def close(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        if not self._process.stdin.closed:
            self._process.stdin.close()
            self._process.wait(DEADLINE)
            self._reader.join()
            self._process.stdout.close()

    def _next(self, timeout: float) -> list[str]:
        try:
            return self._said.get(timeout=timeout)
        except queue.Empty:
            raise TimeoutError from None

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._said.put(json.loads(line))
        self._said.put(["closed"])

    def __enter__(self) -> QtSocket:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
