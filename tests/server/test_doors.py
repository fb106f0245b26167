"""What a stranger can do: limits of frames, time, connections; TLS; HTTP on the same port."""

import asyncio
import base64
import contextlib
import json
import os
import re
import ssl
import subprocess
import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Frame, Opcode
from websockets.sync.client import connect

from server.wire.limits import MEMBER_MESSAGE, OUTPUT_HIGH, STRANGER_FRAMES
from server.wire.listener import BEYOND, client_group
from sysadmd.client import Target
from sysadmd.client import connect as connect_client
from sysadmd.settings import ServerSettings
from tests.kit import DEADLINE, QUIET, Daemon, RawClient, wait_for
from tests.kit.certificates import make_client_certificates, with_certificate
from tests.kit.figures import resident
from tests.kit.raw_client import is_over


@contextlib.contextmanager
def closed_with(code: int) -> Generator[None, None, None]:
    with pytest.raises(ConnectionClosed) as raised:
        yield
    assert raised.value.rcvd is not None
    assert raised.value.rcvd.code == code, raised.value


def configured(tmp_path: Path, server: str) -> Daemon:
    return Daemon(tmp_path / "state", f"{QUIET}\n[server]\n{server}\n")


def secure_socket(daemon: Daemon, context: ssl.SSLContext | None = None) -> ssl.SSLSocket:
    made = context or daemon.context
    return made.wrap_socket(daemon.plain_socket(), server_hostname="127.0.0.1")


def request_of(size: int) -> str:
    frame = {"namespace": "rpc", "name": "identify", "id": "x", "args": {"pad": ""}}
    return json.dumps({**frame, "args": {"pad": "p" * (size - len(json.dumps(frame)))}})


def test_frames_before_login_are_small(daemon: Daemon) -> None:
    with daemon.stranger() as client:
        client.socket.send(request_of(8 * 1024))
        assert client.receive()["name"] == "response"
        with closed_with(1009):
            client.socket.send(request_of(8 * 1024 + 1))
            client.receive()
    with daemon.stranger() as client, closed_with(1009):
        client.socket.send(iter(["p" * 4096] * 64))
        client.receive()


def test_frames_after_login_are_a_mebibyte(daemon: Daemon) -> None:
    with daemon.client() as client:
        client.socket.send(request_of(1024 * 1024))
        assert client.receive()["name"] == "response"
        with closed_with(1009):
            client.socket.send(request_of(1024 * 1024 + 1))
            client.receive()


def test_a_login_and_a_long_frame_in_one_write_are_both_taken(daemon: Daemon) -> None:
    with daemon.stranger() as client:
        login = {"namespace": "rpc", "name": "auth_token", "id": "l"}
        client.socket.send(json.dumps({**login, "args": {"token": daemon.token}}))
        client.socket.send(request_of(600 * 1024))
        assert client.receive()["id"] == "l"
        assert client.receive()["id"] == "x"


def test_binary_frames_and_broken_text_end_the_connection(daemon: Daemon) -> None:
    with daemon.stranger() as client, closed_with(1003):
        client.socket.send(b"binary")
        client.receive()
    with daemon.stranger() as client, closed_with(1007):
        client.socket.send(b"\xff\xfe", text=True)
        client.receive()


def test_two_mistakes_in_one_write_end_the_connection_once(daemon: Daemon) -> None:
    client = RawClient(daemon.state_dir).log_in()
    binary = Frame(Opcode.BINARY, b"x").serialize(mask=True)
    client.socket.sendall(binary + b"\xff\xff\xff\xff" * 4)
    assert is_over(client.socket)
    client.close()
    assert "Traceback" not in daemon.log.read_text()


def test_a_flood_of_empty_fragments_is_ended_before_it_costs_anybody(daemon: Daemon) -> None:
    stranger = RawClient(daemon.state_dir)
    first = Frame(Opcode.TEXT, b"", fin=False).serialize(mask=True)
    more = Frame(Opcode.CONT, b"", fin=False).serialize(mask=True)
    with contextlib.suppress(OSError):
        stranger.socket.sendall(first + more * 60_000)
    assert is_over(stranger.socket)
    stranger.close()
    with daemon.client() as client:
        begun = time.monotonic()
        client.ask("rpc", "identify")
        assert time.monotonic() - begun < 1


def test_a_stranger_has_only_so_many_frames_to_log_in_with(daemon: Daemon) -> None:
    ping = Frame(Opcode.PING, b"").serialize(mask=True)
    stranger = RawClient(daemon.state_dir)
    # As many as may be; who has logged in is not counted, and who logs out begins anew.
    stranger.socket.sendall(ping * (STRANGER_FRAMES - 1))
    stranger.log_in()
    stranger.socket.sendall(ping * (2 * STRANGER_FRAMES))
    stranger.ask("rpc", "query", {})
    stranger.send("rpc", "auth_clear", {})
    stranger.socket.sendall(ping * (STRANGER_FRAMES + 1))
    data = b""
    with contextlib.suppress(ConnectionError):
        while more := stranger.socket.recv(65536):
            data += more
    assert (4401).to_bytes(2, "big") + b"log in first" in data
    stranger.close()


def test_an_http_request_has_a_bounded_size(daemon: Daemon) -> None:
    line = b"X: " + b"x" * 4000 + b"\r\n"
    with secure_socket(daemon) as sock:
        sock.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + 3 * line + b"\r\n")
        assert b" 200 " in sock.recv(65536)
    with secure_socket(daemon) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n" + 5 * line)
        assert b" 431 " in sock.recv(65536)
        assert is_over(sock)


def masked(*requests: dict[str, Any]) -> bytes:
    """Requests as frames that come in one piece."""
    texts = [json.dumps(request).encode() for request in requests]
    return b"".join(Frame(Opcode.TEXT, text).serialize(mask=True) for text in texts)


@pytest.mark.parametrize(
    "asked",
    [
        {"namespace": "events", "name": "subscribe", "args": {"systems": ["dispatcher"]}},
        {"namespace": "rpc", "name": "logs", "args": {"action": "read_logs"}},
    ],
)
@pytest.mark.parametrize("then", ["auth_clear", "auth_token"])
def test_who_is_logged_out_while_an_answer_is_made_gets_401(
    daemon: Daemon, asked: dict[str, Any], then: str
) -> None:
    asked = {**asked, "id": "asked", "args": {**asked["args"], "snapshot": True}}
    with daemon.client() as admin:
        # Something to read, so that others have their turn meanwhile.
        admin.ask("rpc", "dispatcher", {"action": "run", "job": "true"})
        add = {"action": "add", "name": "other", "role": "read"}
        other = admin.ask("rpc", "tokens", add)["token"]
        client = RawClient(daemon.state_dir).log_in()
        change = {"namespace": "rpc", "name": then, "id": "then", "args": {"token": other}}
        client.socket.sendall(masked(asked, change))
        frames = {}
        while "asked" not in frames:
            frame = json.loads(client.frame())
            frames[frame["id"]] = frame
        assert frames["asked"]["args"]["code"] == 401, frames
        listed = admin.ask("rpc", "clients", {"action": "list"})["clients"]
        assert [one["systems"] for one in listed] == [[], []]
        client.close()


def test_who_leaves_while_a_subscription_is_answered_is_not_kept(daemon: Daemon) -> None:
    args = {"systems": ["dispatcher"], "snapshot": True}
    for _ in range(50):
        leaving = RawClient(daemon.state_dir).log_in()
        leaving.send("events", "subscribe", args)
        leaving.close()
    with daemon.client() as client:
        before = client.ask("rpc", "clients", {"action": "list"})["total"]["published"]
        client.ask("rpc", "dispatcher", {"action": "run", "job": "true"})
        # Nobody is subscribed: the event has no account anywhere.
        after = client.ask("rpc", "clients", {"action": "list"})["total"]["published"]
        assert after == before


def test_fragments_make_one_request(daemon: Daemon) -> None:
    with daemon.client() as client:
        text = request_of(3000)
        client.socket.send(iter([text[:10], text[10:2000], text[2000:]]))
        assert client.receive()["id"] == "x"


def test_who_does_not_log_in_is_sent_away(tmp_path: Path) -> None:
    with configured(tmp_path, "login_timeout = 1.0") as daemon:
        with daemon.stranger() as client, closed_with(4401):
            client.receive()
        with daemon.client() as client:
            client.socket.send('{"namespace":"rpc","name":"auth_clear"}')
            with closed_with(4401):
                client.receive()


def test_half_open_handshakes_and_slow_requests_end_in_time(tmp_path: Path) -> None:
    with configured(tmp_path, "handshake_timeout = 1.0") as daemon:
        begun = time.monotonic()
        with daemon.plain_socket() as silent, secure_socket(daemon) as slow:
            slow.send(b"GET / HTTP/1.1\r\nHost:")
            assert is_over(silent)
            assert is_over(slow)
        assert time.monotonic() - begun < 5


def test_garbage_instead_of_tls_or_http_harms_nobody(daemon: Daemon) -> None:
    with daemon.plain_socket() as garbage, secure_socket(daemon) as other:
        garbage.sendall(b"GET / HTTP/1.0\r\n\r\n")
        other.sendall(os.urandom(5000) + b"\r\n\r\n")
        assert is_over(garbage)
        assert is_over(other)
    with daemon.client() as client:
        assert client.ask("rpc", "identify")["type"] == "server"
    assert "Traceback" not in daemon.log.read_text()


def test_connections_of_strangers_are_counted_by_address(tmp_path: Path) -> None:
    with configured(tmp_path, "unauthenticated_per_address = 3") as daemon:
        with contextlib.ExitStack() as stack:
            for _ in range(3):
                stack.enter_context(daemon.stranger())
            with daemon.plain_socket() as refused:
                assert is_over(refused)
            # From another address, and who has logged in, is not counted.
            other = stack.enter_context(daemon.plain_socket("127.0.0.2"))
            secure = daemon.context.wrap_socket(other, server_hostname="127.0.0.1")
            stack.enter_context(secure)
            assert secure.version() in ("TLSv1.2", "TLSv1.3")

        def can_enter() -> bool:
            try:
                daemon.client().close()
            except (ConnectionError, ssl.SSLError):
                return False
            return True

        wait_for(can_enter, "the strangers to be gone")
        with contextlib.ExitStack() as stack:
            for _ in range(6):
                stack.enter_context(daemon.client())


def test_above_max_clients_the_answer_is_503(tmp_path: Path) -> None:
    with configured(tmp_path, "max_clients = 2") as daemon:
        with daemon.client(), daemon.client(), pytest.raises(InvalidStatus) as refused:
            daemon.stranger()
        assert refused.value.response.status_code == 503


def test_above_all_measure_the_oldest_stranger_makes_room(tmp_path: Path) -> None:
    config = "max_clients = 2\nunauthenticated_per_address = 1000\nhandshake_timeout = 60"
    with configured(tmp_path, config) as daemon, contextlib.ExitStack() as stack:
        first = daemon.client()
        stack.enter_context(first)
        silent = [stack.enter_context(daemon.plain_socket()) for _ in range(2 + BEYOND)]
        assert is_over(silent[0])
        # An admin is among those who come, however many others do.
        stack.enter_context(daemon.client())
        assert is_over(silent[1])
        assert len(psutil.Process(daemon.pid).net_connections("inet")) <= 2 + BEYOND + 1
        assert first.ask("rpc", "identify")
        # With members alone nobody makes room.
        with pytest.raises(InvalidStatus) as refused:
            daemon.stranger()
        assert refused.value.response.status_code == 503


def test_who_never_logs_in_goes_in_time_whatever_it_says(tmp_path: Path) -> None:
    with configured(tmp_path, "login_timeout = 1.0") as daemon:
        with daemon.stranger() as client, closed_with(4401):
            while True:
                client.socket.send('{"namespace":"rpc","name":"auth_clear"}')
                client.ask_raw("rpc", "auth_token", {"token": "wrong"})
        with daemon.stranger() as client, closed_with(4401):
            # Time with a login is not counted; but that without is, in all.
            while True:
                client.ask("rpc", "auth_token", {"token": daemon.token})
                client.socket.send('{"namespace":"rpc","name":"auth_clear"}')
                client.ask("rpc", "identify")


def test_who_logs_out_counts_as_a_stranger_again(tmp_path: Path) -> None:
    two = configured(tmp_path, "unauthenticated_per_address = 2")
    with two as daemon, daemon.client() as first, daemon.client() as second:
        for client in (first, second):
            client.socket.send('{"namespace":"rpc","name":"auth_clear"}')
            client.ask("rpc", "identify")
        with daemon.plain_socket() as refused:
            assert is_over(refused)
        first.ask("rpc", "auth_token", {"token": daemon.token})
        daemon.stranger().close()


def test_a_stranger_hears_nothing_but_that_it_is_one(daemon: Daemon) -> None:
    odd: list[object] = [None, {}, [], "x", 7, {"action": None}, {"action": "none"}]
    odd += [{"systems": ["x"]}, {"action": "revoke", "name": "x"}, {"action": "show"}]
    with daemon.client() as admin:
        classes = list(admin.ask("rpc", "query"))
    assert {"rpc/dispatcher", "rpc/logs"} <= set(classes)
    asked = [*classes, "events/subscribe", "events/unsubscribe", "rpc/tokens", "sysadm/none"]
    for one in asked:
        if one.startswith("rpc/auth") or one == "rpc/identify":
            continue
        namespace, name = one.split("/")
        with daemon.stranger() as stranger:
            for args in odd:
                answer = stranger.ask_raw(namespace, name, args)
                assert answer["args"]["code"] == 401, (one, args, answer)


def test_head_is_answered_without_content_and_other_methods_are_not(daemon: Daemon) -> None:
    for method, path, status in (
        ("HEAD", "/healthz", b" 200 "),
        ("HEAD", "/nothing", b" 404 "),
        ("HEAD", "/", b" 405 "),
        ("POST", "/healthz", b" 405 "),
    ):
        with secure_socket(daemon) as sock:
            sock.sendall(f"{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            data = b""
            while more := sock.recv(65536):
                data += more
        head, _, body = data.partition(b"\r\n\r\n")
        assert status in head.partition(b"\r\n")[0], data
        assert (method == "HEAD") == (body == b""), data


def test_a_page_of_another_origin_is_refused(tmp_path: Path) -> None:
    with configured(tmp_path, 'origins = ["https://console.example.org"]') as daemon:
        for origin, status in (
            ("https://evil.example.org", 403),
            ("null", 403),
            ("https://console.example.org", 101),
            ("https://console.example.org:444", 403),
            ("sysadm-client", 101),
            ("sysadm-server", 101),
            ("localhost:8080", 403),
            ("moz-extension://2f3a", 403),
            ("two words", 403),
        ):
            try:
                with connect(
                    daemon.url,
                    ssl=daemon.context,
                    proxy=None,
                    additional_headers={"Origin": origin},
                ):
                    assert status == 101
            except InvalidStatus as refused:
                assert refused.response.status_code == status
        wait_for(lambda: "add it to server.origins" in daemon.log.read_text())
    assert daemon.log.read_text().count("'https://evil.example.org'") == 1


def test_many_requests_in_flight_are_all_answered(daemon: Daemon) -> None:
    with daemon.client() as client:
        for number in range(500):
            body = {"namespace": "rpc", "name": "dispatcher", "id": str(number)}
            args: dict[str, object] = {"action": "run", f"job {number}": []}
            client.socket.send(json.dumps({**body, "args": args}))
        assert {client.receive()["id"] for _ in range(500)} == {str(n) for n in range(500)}


def test_a_client_that_asks_and_never_reads_is_held_not_the_others(daemon: Daemon) -> None:
    with secure_socket(daemon) as rude, daemon.client() as good:
        login = {"namespace": "rpc", "name": "auth_token", "args": {"token": daemon.token}}
        key = base64.b64encode(os.urandom(16)).decode()
        rude.sendall(
            "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        rude.sendall(masked(login))
        rude.settimeout(1)
        text = b'{"namespace":"rpc","name":"identify","id":"' + b"i" * 60 + b'"}'
        frame = b"\x81\xfe" + len(text).to_bytes(2, "big") + b"\0\0\0\0" + text
        sent = 0
        with contextlib.suppress(TimeoutError, ssl.SSLError, OSError):
            while sent < 64 * 1024 * 1024:
                sent += rude.send(frame * 500)
        assert sent < 64 * 1024 * 1024
        assert good.ask("rpc", "identify")["type"] == "server"
        clients = good.ask("rpc", "clients", {"action": "list"})["clients"]
        assert max(client["buffered"] for client in clients) <= 1024 * 1024


def test_old_tls_is_refused_and_new_is_not(daemon: Daemon) -> None:
    for option, works in (("-tls1_1", False), ("-tls1_2", True), ("-tls1_3", True)):
        done = subprocess.run(
            [
                *("openssl", "s_client", option, "-connect", daemon.address),
                *("-CAfile", str(daemon.state_dir / "tls/certificate.pem")),
                *("-verify_return_error", "-verify_ip", "127.0.0.1"),
            ],
            input=b"",
            capture_output=True,
            timeout=20,
            check=False,
        )
        assert (b"BEGIN CERTIFICATE" in done.stdout) is works, option
        assert (b"Verify return code: 0 (ok)" in done.stdout) or not works


def test_tls_is_neither_renegotiated_nor_compressed(daemon: Daemon) -> None:
    address = daemon.address
    done = subprocess.run(
        ["openssl", "s_client", "-tls1_2", "-connect", address],
        # "R" on a line of its own asks for it.
        input=b"R\n",
        capture_output=True,
        timeout=20,
        check=False,
    )
    assert b"RENEGOTIATING" in done.stderr
    assert b"no renegotiation" in done.stderr
    with secure_socket(daemon) as sock:
        assert sock.compression() is None


@pytest.mark.parametrize(
    "header", ["Transfer-Encoding: chunked", "Content-Length: 60", "Content-Length: 0, 60"]
)
def test_a_request_with_a_body_is_no_request_and_nothing_behind_it_is(
    daemon: Daemon, header: str
) -> None:
    second = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    for path in ("/", "/healthz"):
        with secure_socket(daemon) as sock:
            first = f"GET {path} HTTP/1.1\r\nHost: x\r\n{header}\r\n\r\n"
            sock.sendall((first + "0\r\n\r\n" + second).encode())
            data = b""
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                while more := sock.recv(65536):
                    data += more
        assert b" 200 " not in data


@pytest.mark.parametrize("behind", [b"more", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x81\x85"])
@pytest.mark.parametrize(
    ("asked", "status"),
    [
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", b"200"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"426"),
        (
            b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
            b"400",
        ),
    ],
)
def test_what_comes_behind_a_request_takes_nobody_his_answer(
    daemon: Daemon, asked: bytes, status: bytes, behind: bytes
) -> None:
    with secure_socket(daemon) as sock:
        sock.sendall(asked + behind)
        head = sock.recv(4096).split(b"\r\n")[0]
    # The beginning of a frame is no mistake yet.
    expected = b"101" if behind == b"\x81\x85" and status == b"400" else status
    assert head.split()[1] == expected
    assert "failed | Traceback" not in daemon.log.read_text()


def test_addresses_are_counted_by_what_a_host_can_not_choose() -> None:
    for address, group in (
        ("127.0.0.1", "127.0.0.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
    ):
        assert client_group(address) == group


def test_health_and_metrics_are_on_the_same_port(daemon: Daemon) -> None:
    assert daemon.fetch("/healthz") == (200, "ok\n")
    assert daemon.fetch("/nowhere")[0] == 404
    with daemon.client() as client:
        client.ask("events", "subscribe", "dispatcher")
        client.ask("rpc", "dispatcher", {"action": "run", "job": "true"})
        client.until(lambda frame: frame["args"]["state"] == "finished")
        status, text = daemon.fetch("/metrics")
        assert status == 200
        assert text.endswith("# EOF\n")
        for line in (
            'sysadmd_jobs_finished{result="succeeded"} 1.0',
            'sysadmd_queue_jobs{queue="no_queue",state="running"} 0.0',
            'sysadmd_events_total{system="dispatcher"} 3.0',
            "sysadmd_journal_head 3.0",
            "sysadmd_clients 1.0",
            'sysadmd_ledger_events{account="delivered"} 3.0',
        ):
            assert line in text.splitlines(), line
        assert 'sysadmd_loop_lag_seconds_bucket{le="0.001"} ' in text


def test_metrics_need_no_token_from_any_loopback_address(tmp_path: Path) -> None:
    with Daemon(tmp_path / "state", QUIET, listen="[::1]:0") as daemon:
        assert daemon.fetch("/metrics")[0] == 200


def test_a_configured_certificate_is_reloaded_without_dropping_anybody(
    tmp_path: Path,
) -> None:
    def make(name: str) -> None:
        subprocess.run(
            [
                *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt"),
                *("ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", f"/CN={name}"),
                *("-addext", "subjectAltName=IP:127.0.0.1"),
                *("-keyout", str(tmp_path / "key.pem"), "-out", str(tmp_path / "cert.pem")),
            ],
            check=True,
            capture_output=True,
        )

    def name() -> object:
        context = ssl.create_default_context(cafile=tmp_path / "cert.pem")
        with secure_socket(daemon, context) as sock:
            certificate = sock.getpeercert()
            assert certificate is not None
            return certificate["subject"]

    make("first")
    tls = f'tls = {{ certificate = "{tmp_path}/cert.pem", key = "{tmp_path}/key.pem" }}'
    with configured(tmp_path, tls) as daemon:
        context = ssl.create_default_context(cafile=tmp_path / "cert.pem")
        with connect(daemon.url, ssl=context, proxy=None) as socket:
            assert name() == ((("commonName", "first"),),)
            make("second")
            daemon.reload()
            assert name() == ((("commonName", "second"),),)
            socket.send('{"namespace":"rpc","name":"identify","id":"still"}')
            assert "still" in str(socket.recv(timeout=DEADLINE))


def test_a_key_with_a_pass_phrase_is_refused_and_nobody_is_asked_for_it(tmp_path: Path) -> None:
    made = ("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256")
    files = ("-passout", "pass:x", "-subj", "/CN=x", "-keyout", "key.pem", "-out", "cert.pem")
    subprocess.run([*made, *files], check=True, capture_output=True, cwd=tmp_path)
    tls = f'tls = {{ certificate = "{tmp_path}/cert.pem", key = "{tmp_path}/key.pem" }}'
    # A terminal, from which an answer could be read.
    ours, terminal = os.openpty()
    daemon = Daemon(tmp_path / "state", QUIET)
    said = f"{tmp_path}/key.pem is encrypted"
    try:
        with daemon.start(stdin=terminal):
            daemon.config.write_text(f"{QUIET}[server]\n{tls}\n")
            daemon.reload("reload refused")
            assert said in daemon.log.read_text()
            assert daemon.fetch("/healthz")[0] == 200
            daemon.stop()
        daemon.log.write_text("")
        with pytest.raises(AssertionError, match=re.escape(said)):
            daemon.start(stdin=terminal)
    finally:
        os.close(ours)
        os.close(terminal)


def test_files_that_do_not_answer_hold_up_nobody(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    text = "from sysadmd import apart; apart.FILES_TIMEOUT = 0.5"
    tls = f'[server]\ntls = {{ certificate = "{tmp_path}/pipe", key = "{tmp_path}/pipe" }}\n'
    with Daemon(tmp_path / "state", QUIET, before=text) as daemon:
        daemon.config.write_text(QUIET + tls)
        daemon.reload("certificate: no answer from the disk within 0.5 s")
        daemon.config.unlink()
        os.mkfifo(daemon.config)
        daemon.reload("configuration: no answer from the disk within 0.5 s")
        assert daemon.fetch("/healthz")[0] == 200
        daemon.config.unlink()
        daemon.config.write_text(QUIET)
        daemon.reload()
        assert daemon.stop() == 0


def test_local_clients_follow_to_a_certificate_that_was_configured_meanwhile(
    tmp_path: Path,
) -> None:
    made = ("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256")
    files = ("-nodes", "-subj", "/CN=x", "-keyout", "other.key", "-out", "other.pem")
    subprocess.run([*made, *files], check=True, capture_output=True, cwd=tmp_path)
    with Daemon(tmp_path / "state", QUIET) as daemon:
        tls = f'tls = {{ certificate = "{tmp_path}/other.pem", key = "{tmp_path}/other.key" }}'
        daemon.config.write_text(f"{QUIET}[server]\n{tls}\n")
        daemon.reload()

        async def ask() -> Any:
            async with connect_client(Target.local(daemon.state_dir)) as client:
                return await client.request("rpc", "identify")

        assert asyncio.run(ask())["type"] == "server"


def test_without_its_key_the_own_certificate_is_made_anew(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path / "state", QUIET)
    daemon.start().stop()
    (daemon.state_dir / "tls/key.pem").unlink()
    with daemon, daemon.client() as client:
        assert client.ask("rpc", "identify")["type"] == "server"
    assert "pins do not hold" in daemon.log.read_text()


def test_where_no_passwords_are_taken_that_is_said_and_not_held_against_anybody(
    tmp_path: Path,
) -> None:
    auth = "[auth]\npassword_login = false\nfailures = 1\n"
    with Daemon(tmp_path / "state", QUIET + auth) as daemon, daemon.stranger() as client:
        for _ in range(3):
            args = {"username": "root", "password": "right or wrong"}
            error = client.ask_raw("rpc", "auth", args)["args"]
            assert error["code"] == 401
            assert "log in with a token" in error["detail"]


def test_renewal_of_the_own_certificate_keeps_the_key(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path / "state", QUIET)
    daemon.start().stop()
    tls = daemon.state_dir / "tls"
    key, certificate = (tls / "key.pem").read_bytes(), (tls / "certificate.pem").read_bytes()
    daemon.start().stop()
    assert (tls / "certificate.pem").read_bytes() == certificate
    subprocess.run(
        [
            *("openssl", "req", "-new", "-x509", "-key", str(tls / "key.pem"), "-days", "100"),
            *("-subj", "/CN=old", "-out", str(tls / "certificate.pem")),
        ],
        check=True,
        capture_output=True,
    )
    with daemon, daemon.client() as client:
        assert client.ask("rpc", "identify")["type"] == "server"
    assert (tls / "key.pem").read_bytes() == key


def test_the_own_certificate_is_renewed_while_the_daemon_runs(tmp_path: Path) -> None:
    before = "from server import certificate; certificate.LOOK, certificate.LOOKS = 0.05, 1"
    with Daemon(tmp_path / "state", QUIET, before=before) as daemon:
        tls = daemon.state_dir / "tls"
        old = ("openssl", "req", "-new", "-x509", "-key", str(tls / "key.pem"), "-days", "100")
        names = ("-subj", "/CN=old", "-addext", "subjectAltName=IP:127.0.0.1")
        made = tmp_path / "old.pem"
        subprocess.run([*old, *names, "-out", str(made)], check=True, capture_output=True)
        made.replace(tls / "certificate.pem")
        wait_for(lambda: "renewed" in daemon.log.read_text(), "the renewal")
        with secure_socket(daemon) as sock:
            certificate = sock.getpeercert()
            assert certificate is not None
            assert certificate["subject"] == ((("commonName", "sysadmd"),),)


def test_a_client_certificate_logs_in_by_its_name(tmp_path: Path) -> None:
    make_client_certificates(tmp_path, "root", "nobody")
    with configured(tmp_path, f'client_ca = "{tmp_path}/ca.pem"') as daemon:
        answers: dict[str, Any] = {}
        for name in ("root", "nobody", ""):
            with with_certificate(daemon, tmp_path, name) as client:
                answers[name] = client.ask_raw("rpc", "query")["name"]
        assert answers == {"root": "response", "nobody": "error", "": "error"}
        with daemon.client() as admin:
            assert "root@127.0.0.1: logged in by certificate as full" in admin.trail()


def test_looking_up_who_a_certificate_names_holds_up_nobody_else(tmp_path: Path) -> None:
    make_client_certificates(tmp_path, "root")
    slow = (
        "import pwd, time; found = pwd.getpwnam;"
        " pwd.getpwnam = lambda name: time.sleep(2) or found(name)"
    )
    config = f'{QUIET}[server]\nclient_ca = "{tmp_path}/ca.pem"\n'
    with (
        Daemon(tmp_path / "state", config, before=slow) as daemon,
        daemon.client() as other,
        ThreadPoolExecutor(1) as threads,
    ):
        longest, opening = 0.0, threads.submit(with_certificate, daemon, tmp_path, "root")
        while not opening.done():
            begun = time.monotonic()
            other.ask("rpc", "identify")
            longest = max(longest, time.monotonic() - begun)
        assert longest < 1
        with opening.result() as client:
            # What it asks waits until it is known who it is, however long it is.
            client.socket.send(request_of(100_000).replace("identify", "query"))
            assert client.receive()["name"] == "response"


def test_open_files_are_raised_to_fit_or_the_start_is_refused(tmp_path: Path) -> None:
    limited = ("sh", "-c", 'ulimit -Sn 128; exec "$@"', "sh")
    with Daemon(tmp_path / "a", QUIET, wrapper=limited) as daemon, daemon.client() as client:
        client.ask("events", "subscribe", "dispatcher")
        client.ask("rpc", "dispatcher", {"action": "run", "job": 'sh -c "ulimit -Sn"'})
        events = client.until(lambda frame: frame["args"]["state"] == "finished")
        # Jobs get the limits that the daemon was started with.
        assert events[-1]["args"]["process_details"]['sh -c "ulimit -Sn"'] == "128\n"
    refused = Daemon(
        tmp_path / "b",
        QUIET,
        wrapper=("sh", "-c", 'ulimit -n 200; exec setpriv --bounding-set -all "$@"', "sh"),
    )
    done = subprocess.run(refused.command(), capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "server.max_clients" in done.stderr


def test_what_waits_when_its_token_is_revoked_is_not_done(daemon: Daemon) -> None:
    with daemon.client() as admin:
        add = {"action": "add", "name": "t", "role": "full"}
        token = admin.ask("rpc", "tokens", add)["token"]
        admin.ask("rpc", "dispatcher", {"action": "pause", "queue": "no_queue"})
        jobs = {f"big {number}": "true " + "x" * 60_000 for number in range(7)}
        for id, command in jobs.items():
            admin.ask("rpc", "dispatcher", {"action": "run", id: command})
        # It asks for more than its socket takes, then for a job, and reads nothing.
        client = RawClient(daemon.state_dir)
        client.send("rpc", "auth_token", {"token": token})
        assert b'"response"' in client.frame()
        for _ in range(2 * ServerSettings().requests_in_flight):
            client.send("rpc", "dispatcher", {"action": "list"})
        client.send("rpc", "dispatcher", {"action": "run", "late": "true"})

        def waits() -> bool:
            clients = admin.ask("rpc", "clients", {"action": "list"})["clients"]
            return any(one["buffered"] > OUTPUT_HIGH for one in clients)

        wait_for(waits, "replies that wait")
        admin.ask("rpc", "tokens", {"action": "revoke", "name": "t"})
        client.close()
        wait_for(lambda: len(admin.ask("rpc", "clients", {"action": "list"})["clients"]) == 1)
        active = admin.ask("rpc", "dispatcher", {"action": "list"})["jobs"]["no_queue"]
        assert active.keys() == jobs.keys()


def test_long_requests_that_are_refused_leave_nothing_in_memory(daemon: Daemon) -> None:
    client = RawClient(daemon.state_dir).log_in()

    def refused(times: int) -> float:
        for _ in range(times):
            client.send_text(b'"' + b"x" * (MEMBER_MESSAGE - 100))
            assert b'"error"' in client.frame()
        return resident(daemon.pid)

    before = refused(5)
    # MiB; each has one.
    assert refused(40) - before < 20
    client.close()


def test_connections_that_have_sent_a_long_request_leave_nothing_in_memory(
    daemon: Daemon,
) -> None:
    def come_and_go(times: int) -> float:
        for _ in range(times):
            client = RawClient(daemon.state_dir).log_in()
            client.send_text(b'{"a":' * 4000)
            assert b'"error"' in client.frame()
            client.close()
        return resident(daemon.pid)

    before = come_and_go(100)
    # MiB; each is some 30 KiB while it is there.
    assert come_and_go(300) - before < 4


def test_connections_keep_nothing_of_a_long_request_that_was_answered(tmp_path: Path) -> None:
    # What is held, and not what the allocator keeps for the next time.
    env = {"MALLOC_MMAP_THRESHOLD_": str(64 * 1024)}
    with Daemon(tmp_path / "state", QUIET, env=env) as daemon, contextlib.ExitStack() as stack:
        clients = [RawClient(daemon.state_dir).log_in() for _ in range(50)]
        for client in clients:
            stack.callback(client.close)
        before = resident(daemon.pid)
        for client in clients:
            client.ask("rpc", "identify", {"more": "x" * (MEMBER_MESSAGE - 1024)})
        # MiB; each has sent one.
        assert resident(daemon.pid) - before < 25
