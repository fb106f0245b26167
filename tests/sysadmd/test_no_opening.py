"""Mistakes in where a server is, and what is said: what happened, and what to do."""

from __future__ import annotations

import asyncio
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from sysadmd.client import Target, Unreachable, connect
from tests.kit import Daemon

# What no admin has to know.
MACHINE = ("Errno", "_ssl.c", "CERTIFICATE_VERIFY", "WRONG_VERSION", "valid HTTP")


def said(target: Target) -> str:
    async def ask() -> None:
        async with connect(target):
            pass

    with pytest.raises(Unreachable) as told:
        asyncio.run(ask())
    text = str(told.value)
    assert target.url in text
    assert not [word for word in MACHINE if word in text], text
    return text


@contextmanager
def serving(answer: Callable[[socket.socket], None]) -> Generator[Target]:
    """Somebody on a port of his own, who does this with each connection."""
    with socket.create_server(("127.0.0.1", 0)) as door:

        def serve() -> None:
            while True:
                try:
                    come, _ = door.accept()
                except OSError:
                    return
                with come, suppress(OSError):
                    answer(come)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield Target(f"wss://127.0.0.1:{door.getsockname()[1]}", pin="")
        finally:
            door.shutdown(socket.SHUT_RDWR)
            thread.join()


def certified(folder: Path, name: str, begin: str, end: str) -> ssl.SSLContext:
    """A server's context, whose certificate is its own authority: `folder/c.pem`."""
    (folder / "ca.cnf").write_text(
        "[ca]\ndefault_ca=c\n[c]\ndatabase=index\nserial=serial\nnew_certs_dir=.\n"
        "default_md=sha256\npolicy=p\nx509_extensions=x\n[p]\ncommonName=supplied\n"
        f"[x]\nsubjectAltName={name}\n[req]\ndistinguished_name=d\n[d]\n"
    )
    (folder / "index").write_text("")
    (folder / "serial").write_text("01\n")
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    request = ("req", "-new", *curve, "-subj", "/CN=it", "-keyout", "k.pem", "-out", "r.pem")
    dates = ("-startdate", begin, "-enddate", end)
    own = ("ca", "-batch", "-selfsign", "-keyfile", "k.pem", "-in", "r.pem", "-out", "c.pem")
    for words in (request, (*own, *dates)):
        command = ["openssl", words[0], "-config", "ca.cnf", *words[1:]]
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "c.pem", folder / "k.pem")
    return context


def greeted(context: ssl.SSLContext, text: bytes = b"") -> Callable[[socket.socket], None]:
    """Shakes hands, reads what is asked, and says that."""

    def answer(come: socket.socket) -> None:
        with context.wrap_socket(come, server_side=True) as safe:
            safe.recv(4096)
            safe.sendall(text)

    return answer


def test_nothing_listens_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as door:
        port = door.getsockname()[1]
    text = said(Target(f"wss://127.0.0.1:{port}"))
    assert "nothing listens there" in text
    assert "12150" in text


def test_a_name_of_no_machine() -> None:
    text = said(Target("wss://no-such-machine.invalid:12150"))
    assert "name" in text
    assert "give the address" in text


def test_what_does_not_speak_tls() -> None:
    def answer(come: socket.socket) -> None:
        come.sendall(b"220 mail.example.org ESMTP\r\n")
        come.recv(4096)

    with serving(answer) as target:
        assert "does not speak TLS as sysadmd does" in said(target)


@pytest.mark.parametrize(
    ("answer", "known"),
    [
        (b"220 smtps\r\n", "does not speak HTTP"),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\nnever", "(404 Not Found: never)"),
        (b"HTTP/1.1 599 \r\nContent-Length: 0\r\n\r\n", "(599 no such status)"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "(200 OK)"),
    ],
)
def test_what_speaks_tls_but_is_no_sysadmd(daemon: Daemon, answer: bytes, known: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls = daemon.state_dir / "tls"
    context.load_cert_chain(tls / "certificate.pem", tls / "key.pem")
    with serving(greeted(context, answer)) as target:
        text = said(target)
        assert known in text
        assert "is it sysadmd?" in text


def test_a_certificate_of_no_authority(daemon: Daemon) -> None:
    text = said(Target(daemon.url))
    assert "nobody who is trusted here vouches for its key" in text
    assert "`sysadmctl login`" in text
    assert "cafile" in text


@pytest.mark.parametrize(
    ("names", "begin", "end", "known"),
    [
        ("IP:127.0.0.1", "20200101000000Z", "20200102000000Z", "has expired"),
        ("IP:127.0.0.1", "20900101000000Z", "20900102000000Z", "is not valid yet"),
        ("IP:192.0.2.1", "20200101000000Z", "20900102000000Z", "is for other addresses"),
        ("DNS:other.example.org", "20200101000000Z", "20900102000000Z", "is for other"),
    ],
)
def test_a_certificate_that_does_not_fit(
    tmp_path: Path, names: str, begin: str, end: str, known: str
) -> None:
    with serving(greeted(certified(tmp_path, names, begin, end))) as target:
        text = said(Target(target.url, cafile=tmp_path / "c.pem"))
        assert known in text
        assert "`sysadmctl login`" in text
