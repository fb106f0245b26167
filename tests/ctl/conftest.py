"""Fixtures: `sysadmctl`, a daemon that its tests share, and a server that a test plays."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from websockets.sync.server import ServerConnection, serve

from tests.kit import QUIET, Daemon
from tests.kit.ctl import Ctl

# What a played server answers: by namespace/name and args, the reply's args. A tuple is name
# and args of a frame instead, and frames behind it; ConnectionError ends the connection.
Answer = Callable[[str, dict[str, Any]], Any]
Asked = list[tuple[str, dict[str, Any]]]


@pytest.fixture
def ctl(tmp_path: Path) -> Ctl:
    home = tmp_path / "home"
    home.mkdir()
    return Ctl(home)


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A running daemon for the tests that leave nothing behind that others mind."""
    with Daemon(tmp_path_factory.mktemp("shared") / "state", QUIET) as daemon:
        yield daemon


@pytest.fixture
def play(shared: Daemon) -> Iterator[Callable[[Answer], tuple[list[str], Asked]]]:
    """Plays a server: given its answers, the options that lead there and what it is asked."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls = shared.state_dir / "tls"
    context.load_cert_chain(tls / "certificate.pem", tls / "key.pem")
    asked: Asked = []
    answers: list[Answer] = []

    def handle(socket: ServerConnection) -> None:
        for text in socket:
            request = json.loads(text)
            to, args = f"{request['namespace']}/{request['name']}", request["args"]
            given: Any = {}
            if to != "rpc/auth_token":
                asked.append((to, args))
                given = answers[-1](to, args)
            if given is ConnectionError:
                return
            if not isinstance(given, tuple):
                given = ("response", given)
            name, said, *more = cast("tuple[Any, ...]", given)
            frame = {"namespace": request["namespace"], "id": request["id"], "name": name}
            for each in ({**frame, "args": said}, *more):
                socket.send(json.dumps(each))

    with serve(handle, "127.0.0.1", 0, ssl=context) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        options = ["--url", f"wss://127.0.0.1:{server.socket.getsockname()[1]}", "--token", "x"]
        options += ["--cafile", str(tls / "certificate.pem")]

        def start(answer: Answer) -> tuple[list[str], Asked]:
            asked.clear()
            answers.append(answer)
            return options, asked

        try:
            yield start
        finally:
            server.shutdown()
            thread.join()
