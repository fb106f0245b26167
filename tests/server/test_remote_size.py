"""How long a download will be: real servers on loopback, some of them hostile."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Callable, Generator
from pathlib import Path

import pytest

from server.job_classes.remote_size import remote_size
from tests.kit.replay import Served
from tests.kit.waiting import wait_for


@contextlib.contextmanager
def server(answer: Callable[[socket.socket], None]) -> Generator[str]:
    """Its URL. answer: is given each connection, in a thread."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    peer, _ = listener.accept()
                    threading.Thread(target=talk, args=(peer,), daemon=True).start()

        def talk(peer: socket.socket) -> None:
            with peer, contextlib.suppress(OSError):
                answer(peer)

        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/disc.iso"
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)


def says(text: str) -> Callable[[socket.socket], None]:
    def answer(peer: socket.socket) -> None:
        peer.recv(65536)
        peer.sendall(text.replace("\n", "\r\n").encode())

    return answer


def size(url: str) -> int | None:
    return asyncio.run(remote_size(url))


def test_a_server_says_how_long_a_file_is() -> None:
    with Served({"/a.iso": 3_000_000}) as served:
        assert size(served.url("/a.iso")) == 3_000_000
        assert size(served.url("/b.iso")) is None


def test_a_file_of_this_machine_is_looked_at(tmp_path: Path) -> None:
    (tmp_path / "a b.iso").write_bytes(b"x" * 1234)
    assert size(f"file://{tmp_path}/a%20b.iso") == 1234
    assert size(f"file://{tmp_path}/none.iso") is None


def test_it_is_followed_where_it_has_moved_but_not_to_our_files() -> None:
    with Served({"/a.iso": 77}) as served:
        moved = f"HTTP/1.1 302 Found\nLocation: {served.url('/a.iso')}\n\n"
        with server(says(moved)) as url:
            assert size(url) == 77
    with server(says("HTTP/1.1 302 Found\nLocation: file:///etc/passwd\n\n")) as url:
        assert size(url) is None
    with server(says("HTTP/1.1 302 Found\nLocation: /disc.iso\n\n")) as url:
        assert size(url) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense\n\n",
        "HTTP/1.1 200 OK\n\n",
        "HTTP/1.1 200 OK\nContent-Length: -5\n\n",
        "HTTP/1.1 200 OK\nContent-Length: ²\n\n",
        f"HTTP/1.1 200 OK\nContent-Length: {'9' * 400}\n\n",
        "HTTP/1.1 404 Not Found\nContent-Length: 100\n\n",
        "HTTP/1.1 200 OK\n" + "X: y\n" * 1000 + "\n",
    ],
)
def test_whatever_else_it_says_is_no_size(text: str) -> None:
    with server(says(text)) as url:
        assert size(url) is None


def test_nobody_there_is_no_size() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert size(f"http://127.0.0.1:{port}/a.iso") is None
    assert size("http://[/a.iso") is None
    assert size("ftp://127.0.0.1/a.iso") is None


@pytest.mark.parametrize("drips", [False, True])
def test_one_that_does_not_come_to_an_end_is_broken_off(drips: bool) -> None:
    gone = threading.Event()

    def answer(peer: socket.socket) -> None:
        peer.recv(65536)
        try:
            while drips:
                peer.sendall(b"x")
                time.sleep(0.05)
            peer.recv(65536)
        finally:
            gone.set()

    before = threading.active_count()
    with server(answer) as url:
        assert size(url) is None
        # Not only nobody waits: the thread is gone, and the connection.
        wait_for(gone.is_set, "the connection's end")
    wait_for(lambda: threading.active_count() <= before, "the thread's end")
