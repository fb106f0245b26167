"""What a bridge can say that is none, or not ours: nothing of it ends a server, keeps it busy,
or reaches a terminal raw."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, serve

from server.wire import tls
from sysadmd.key_file import make_key
from sysadmd.keys import PrivateKey
from sysadmd.settings import DoorSettings
from tests.kit import DEADLINE, QUIET, Daemon, wait_for
from tests.kit.ctl import Ctl
from tests.kit.figures import resident

ID = PrivateKey.new().public.fingerprint


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tls.KeyPair:
    return tls.prepare(DoorSettings(), tmp_path_factory.mktemp("tls") / "tls")


def context(pair: tls.KeyPair) -> ssl.SSLContext:
    made = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    made.load_cert_chain(pair.certificate, pair.key)
    return made


@contextlib.contextmanager
def bridge(pair: tls.KeyPair, talk: Callable[[ServerConnection], object]) -> Generator[str]:
    """Somebody who talks like this to each who comes; his URL."""

    def handle(connection: ServerConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            talk(connection)
            for _ in connection:
                pass

    with serve(handle, "127.0.0.1", 0, ssl=context(pair), compression=None) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"wss://127.0.0.1:{server.socket.getsockname()[1]}"
        finally:
            server.shutdown()
            thread.join()


def frame(name: str, args: object, *, namespace: str = "rpc", id: str = "login") -> str:
    return json.dumps({"namespace": namespace, "name": name, "id": id, "args": args})


def asked(connection: ServerConnection, name: str) -> dict[str, Any]:
    """The next request of this name."""
    while True:
        request: dict[str, Any] = json.loads(connection.recv())
        if request["name"] == name:
            return request


def answering(args: object) -> Callable[[ServerConnection], None]:
    """The first step of the login is answered by this."""

    def talk(connection: ServerConnection) -> None:
        asked(connection, "auth_ssl")
        connection.send(frame("response", args))

    return talk


def let_in(connection: ServerConnection) -> None:
    """Take whoever comes."""
    asked(connection, "auth_ssl")
    connection.send(frame("response", {"test_string": "nonce"}))
    asked(connection, "auth_ssl")
    connection.send(frame("response", ["", 900]))


def listing(ids: object) -> Callable[[ServerConnection], None]:
    """Who is in is told of these."""

    def talk(connection: ServerConnection) -> None:
        let_in(connection)
        asked(connection, "bridge")
        connection.send(frame("response", {"available_connections": ids}, id="peers"))

    return talk


def saying(*texts: str, listed: tuple[str, ...] = ()) -> Callable[[ServerConnection], None]:
    """Who is in is sent these."""

    def talk(connection: ServerConnection) -> None:
        listing(listed)(connection)
        for text in texts:
            connection.send(text)

    return talk


def unasked(connection: ServerConnection) -> None:
    """Answers to what nobody has asked."""
    for _ in range(3):
        connection.send(frame("response", {}))


TALKS: dict[str, Callable[[ServerConnection], object]] = {
    "half a character": answering({"test_string": "\ud800"}),
    "a long nonce": answering({"test_string": "x" * 100_000}),
    "a number": answering({"test_string": 7}),
    "no nonce": answering([]),
    "no object": answering("\x1b[31m"),
    "no json": lambda connection: connection.send("{"),
    "deep json": lambda connection: connection.send("{" + '"a":[' * 50_000),
    "bytes": lambda connection: connection.send(b"\xff\x00"),
    "a list of numbers": listing([1, 2]),
    "a list that is none": listing(7),
    "a long list": listing(["x" * 40] * 20_001),
    "unasked": unasked,
    "an error": lambda connection: connection.send(
        frame("error", {"code": 401, "message": "", "detail": "\x1b[31mred" * 9000})
    ),
}


@pytest.fixture
def server(tmp_path: Path, pair: tls.KeyPair) -> Iterator[Callable[[str], Daemon]]:
    with contextlib.ExitStack() as stack:

        def start(url: str) -> Daemon:
            text = f'{QUIET}[bridge_client]\nurl = "{url}"\ncafile = "{pair.certificate}"\n'
            return stack.enter_context(Daemon(tmp_path / "server", text))

        yield start


def check_unharmed(daemon: Daemon) -> None:
    log = daemon.log.read_text()
    assert daemon.fetch("/healthz")[0] == 200
    assert "Traceback" not in log
    assert "\x1b" not in log
    assert max(map(len, log.splitlines())) < 2000


@pytest.mark.parametrize("what", TALKS)
def test_a_server_takes_no_harm(
    what: str, pair: tls.KeyPair, server: Callable[[str], Daemon]
) -> None:
    with bridge(pair, TALKS[what]) as url:
        daemon = server(url)
        wait_for(lambda: "not at the bridge" in daemon.log.read_text(), what)
        check_unharmed(daemon)


@pytest.mark.parametrize("what", TALKS)
def test_a_client_takes_no_harm(what: str, pair: tls.KeyPair, tmp_path: Path) -> None:
    make_key(tmp_path / "key")
    with bridge(pair, TALKS[what]) as url:
        options = ("--bridge", url, "--cafile", str(pair.certificate))
        ctl = Ctl(tmp_path, *options, "--key", str(tmp_path / "key"))
        for command in (("servers",), ("state", "--server", ID)):
            done = ctl(*command)
            assert done.returncode == 69, done
            assert "Traceback" not in done.stderr
            assert "\x1b" not in done.stderr
            assert len(done.stderr) < 2000


@pytest.mark.parametrize(
    "ids", [["x"], ["\x1b[31m"], ["é"], [""], ["{"]], ids=["short", "escape", "é", "empty", "{"]
)
def test_ids_that_are_no_servers_are_told_as_such(
    ids: list[str], pair: tls.KeyPair, tmp_path: Path
) -> None:
    make_key(tmp_path / "key")
    with bridge(pair, listing(ids)) as url:
        options = ("--bridge", url, "--cafile", str(pair.certificate))
        done = Ctl(tmp_path, *options, "--key", str(tmp_path / "key"))("servers")
        assert done.returncode in (0, 69)
        assert "Traceback" not in done.stderr
        assert "\x1b" not in done.stdout + done.stderr


HEADS = {
    "no address": "HTTP/1.1 302 Found\r\nLocation: //[\r\n\r\n",
    "a wrong port": "HTTP/1.1 302 Found\r\nLocation: wss://h:99999999\r\n\r\n",
    "two of them": "HTTP/1.1 302 Found\r\nLocation: wss://a\r\nLocation: wss://b\r\n\r\n",
    "elsewhere": "HTTP/1.1 302 Found\r\nLocation: {url}\r\n\r\n",
    "no http": "\x00\xff\r\n\r\n",
    "nothing": "",
}


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("pinned", [False, True])
def test_nobody_sends_a_server_elsewhere(
    head: str, pinned: bool, pair: tls.KeyPair, tmp_path: Path
) -> None:
    came: list[bytes] = []
    with contextlib.ExitStack() as stack:
        other = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        other.setblocking(False)
        door = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        secure = stack.enter_context(context(pair).wrap_socket(door, server_side=True))
        elsewhere = f"wss://127.0.0.1:{other.getsockname()[1]}"

        def answer() -> None:
            while True:
                try:
                    connection, _ = secure.accept()
                except OSError:
                    return
                with connection, contextlib.suppress(OSError):
                    came.append(connection.recv(4096))
                    connection.sendall(HEADS[head].format(url=elsewhere).encode("latin-1"))

        thread = threading.Thread(target=answer)
        thread.start()
        text = f'{QUIET}[bridge_client]\nurl = "wss://127.0.0.1:{secure.getsockname()[1]}"\n'
        text += f'cafile = "{pair.certificate}"\n'
        if pinned:
            text += f'pin = "{"A" * 43}="\n'
        daemon = stack.enter_context(Daemon(tmp_path / "server", text))
        wait_for(lambda: "not at the bridge" in daemon.log.read_text(), head)
        check_unharmed(daemon)
        with pytest.raises(BlockingIOError):
            other.accept()
        daemon.stop()
        secure.shutdown(socket.SHUT_RDWR)
        secure.close()
        thread.join()
    # Who has another key than the one that is known hears nothing at all.
    assert any(came) != pinned


def test_who_floods_a_server_with_calls_costs_bounded_memory(
    pair: tls.KeyPair, server: Callable[[str], Daemon]
) -> None:
    """He reads nothing of what he is told."""
    warm, begin, flooded, end = (threading.Event() for _ in range(4))

    def flood(connection: ServerConnection, numbers: range) -> None:
        hello = "AQ" + "A" * 42
        for number in numbers:
            connection.send(f"caller-{number}\n{hello}")
            connection.send(f"nobody-{number}\nBAAAAAAAAAAA")
            connection.send(f"garbage-{number}\n!")

    def talk(connection: ServerConnection) -> None:
        listing([])(connection)
        flood(connection, range(20_000))
        warm.set()
        begin.wait()
        flood(connection, range(20_000, 80_000))
        flooded.set()
        end.wait()

    with bridge(pair, talk) as url:
        daemon = server(url)
        assert warm.wait(DEADLINE)
        before = resident(daemon.pid)
        begin.set()
        assert flooded.wait(DEADLINE)
        grown = resident(daemon.pid) - before
        check_unharmed(daemon)
        end.set()
        # MiB; if 200 bytes of each message were kept, these would be 34.
        assert grown < 16
