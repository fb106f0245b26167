"""The local socket: programs of this machine need no port, no certificate and no place."""

import asyncio
import contextlib
import os
import socket
import stat
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from server.wire.listener import LOCAL_CLIENTS
from sysadmd.client import Target, Unreachable, connect
from sysadmd.machine import LOCAL_SOCKET
from tests.kit import DEADLINE, QUIET, Daemon, RawClient, needs_root, wait_for
from tests.kit.daemon import sysadmd
from tests.kit.raw_client import is_over


def plain(daemon: Daemon) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(DEADLINE)
    sock.connect(str(daemon.state_dir / LOCAL_SOCKET))
    return sock


def test_who_comes_through_it_is_known_by_the_account(daemon: Daemon) -> None:
    path = daemon.state_dir / LOCAL_SOCKET
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with daemon.local() as client:
        client.ask("rpc", "dispatcher", {"action": "run", "job": "true"})
        listed = client.ask("rpc", "clients", {"action": "list"})["clients"]
        assert [(one["address"], one["account"]) for one in listed] == [("local", "root")]
        # Nor does it become a stranger.
        client.socket.send('{"namespace":"rpc","name":"auth_clear"}')
        assert client.ask("rpc", "query")["rpc/dispatcher"] == "read/write"
        assert any("root@local: logged in locally as full" in line for line in client.trail())
    daemon.stop()
    assert not path.exists()


def test_a_token_makes_less_of_it(daemon: Daemon) -> None:
    with daemon.local() as client:
        add = {"action": "add", "name": "reader", "role": "read"}
        token = client.ask("rpc", "tokens", add)["token"]
        client.ask("rpc", "auth_token", {"token": token})
        refused = client.ask_raw("rpc", "dispatcher", {"action": "run", "job": "true"})
        assert refused["args"]["code"] == 403


def test_plain_http_is_answered_there_too(daemon: Daemon) -> None:
    for path, expected in (("/healthz", b"ok\n"), ("/metrics", b"sysadmd_connections")):
        with plain(daemon) as sock:
            sock.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            data = b""
            while more := sock.recv(65536):
                data += more
        assert b" 200 " in data
        assert expected in data


def test_long_frames_and_garbage_are_taken_as_by_tls(daemon: Daemon) -> None:
    with plain(daemon) as sock:
        sock.sendall(os.urandom(5000) + b"\r\n\r\n")
        assert is_over(sock)
    with daemon.local() as client:
        # More than a frame holds.
        commands = [["printf", "x" * 30_000]] * 2
        client.ask("rpc", "dispatcher", {"action": "pause", "queue": "pkg_queue"})
        for number in range(20):
            job = {"id": f"job {number}", "queue": "pkg_queue", "commands": commands}
            client.ask("rpc", "dispatcher", {"action": "submit", "job": job})
        listed, asked = set[str](), {"action": "list"}
        while asked:
            answer = client.ask("rpc", "dispatcher", asked)
            listed |= answer["jobs"]["pkg_queue"].keys()
            asked = {"action": "list", "after": answer["next"]} if "next" in answer else {}
        assert listed == {f"job {number}" for number in range(20)}
    assert "Traceback" not in daemon.log.read_text()


def test_another_account_that_reaches_it_is_sent_away(daemon: Daemon) -> None:
    needs_root()
    daemon.state_dir.chmod(0o755)
    path = daemon.state_dir / LOCAL_SOCKET
    path.chmod(0o666)
    for parent in path.parents:
        if parent.stat().st_mode & 0o001 == 0:
            parent.chmod(parent.stat().st_mode | 0o011)
    program = (
        "import os, socket, sys; os.setgid(65534); os.setuid(65534);"
        "s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])\n"
        "try:\n"
        " s.sendall(b'GET /healthz HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n')\n"
        " print(s.recv(100))\n"
        "except ConnectionError: print(b'')"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", program, str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("b''\n", "")
    wait_for(lambda: "another account" in daemon.log.read_text())


def test_a_socket_that_a_killed_daemon_has_left_is_replaced(daemon: Daemon) -> None:
    daemon.kill()
    assert (daemon.state_dir / LOCAL_SOCKET).exists()
    with pytest.raises(Unreachable, match="no daemon runs"):
        asyncio.run(identify(daemon.state_dir))
    daemon.start()
    assert asyncio.run(identify(daemon.state_dir))["type"] == "server"


def test_a_socket_that_is_taken_away_is_missed_by_nobody(daemon: Daemon) -> None:
    there = daemon.state_dir / LOCAL_SOCKET
    there.unlink()
    # By the network, as before there was one.
    assert asyncio.run(identify(daemon.state_dir))["type"] == "server"
    there.mkdir()
    assert daemon.stop() == 0
    assert not (daemon.state_dir / "endpoint.json").exists()


def test_its_clients_need_no_certificate(daemon: Daemon) -> None:
    (daemon.state_dir / "tls" / "certificate.pem").unlink()
    assert asyncio.run(identify(daemon.state_dir))["type"] == "server"


async def identify(state_dir: Path) -> Any:
    async with connect(Target.local(state_dir)) as client:
        return await client.request("rpc", "identify")


def test_the_client_library_takes_it_however_long_its_path_is(tmp_path: Path) -> None:
    deep = tmp_path / ("long" * 30)
    deep.mkdir()
    with Daemon(deep / "state", QUIET) as daemon:
        # Who comes by the network would need that.
        (daemon.state_dir / "admin.token").unlink()
        assert asyncio.run(identify(daemon.state_dir))["type"] == "server"


def test_strangers_can_not_lock_out_the_programs_of_this_machine(tmp_path: Path) -> None:
    one = Daemon(tmp_path / "state", f"{QUIET}\n[server]\nmax_clients = 1\n")
    with one as daemon, contextlib.ExitStack() as stack:
        stack.enter_context(daemon.client())
        for _ in range(40):
            stack.enter_context(daemon.plain_socket())
        done = sysadmd("token", "list", "--state-dir", str(daemon.state_dir))
        assert done.returncode == 0, done.stderr
        assert asyncio.run(identify(daemon.state_dir))["type"] == "server"


def test_local_connections_are_counted(daemon: Daemon) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(LOCAL_CLIENTS):
            stack.enter_context(plain(daemon))
        with plain(daemon) as refused:
            assert is_over(refused)
        with daemon.client() as client:
            assert client.ask("rpc", "identify")

    def can_enter() -> bool:
        with contextlib.suppress(OSError):
            return bool(asyncio.run(identify(daemon.state_dir)))
        return False

    wait_for(can_enter, "the others to be gone")


def test_a_reset_is_an_end(daemon: Daemon) -> None:
    sock = plain(daemon)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.sendall(b"GET / HTTP/1.1\r\n")
    sock.close()
    RawClient(daemon.state_dir).log_in().close()
    assert "Traceback" not in daemon.log.read_text()
