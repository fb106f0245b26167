"""Clients that do not read or do not answer: bounded memory, and the documented end."""

import json
import socket
import struct
import threading
import time

import pytest

from tests.kit import Client, Daemon, RawClient, wait_for
from tests.kit.figures import resident


def wait_for_jobs(client: Client) -> None:
    """Until all have finished."""
    wait_for(
        lambda: not any(client.ask("rpc", "dispatcher", {"action": "list"})["jobs"].values()),
        "the end of all jobs",
    )


def test_long_replies_that_nobody_reads_do_not_pile_up(daemon: Daemon) -> None:
    with daemon.client() as client:
        client.ask("events", "subscribe", "dispatcher")
        long = "x" * 60_000
        for number in range(12):
            job = {"id": f"job {number}", "commands": [["true", long]]}
            client.ask("rpc", "dispatcher", {"action": "submit", "job": job})
        wait_for_jobs(client)
        before = resident(daemon.pid)
        rude = [RawClient(daemon.state_dir).log_in() for _ in range(10)]
        for one in rude:
            for _ in range(30):
                one.send("rpc", "dispatcher", {"action": "history"})
        begun = time.monotonic()
        client.ask("rpc", "identify")
        assert time.monotonic() - begun < 5
        clients = client.ask("rpc", "clients", {"action": "list"})["clients"]
        assert max(account["buffered"] for account in clients) <= 1024 * 1024
        # Ten clients asked for thirty replies of almost half a mebibyte each.
        assert resident(daemon.pid) - before < 40
        for one in rude:
            one.close()


def close_code(client: RawClient, seconds: float) -> tuple[int, float]:
    """The code with which the server closes, and after how long; pings are not answered."""
    begun = time.monotonic()
    client.socket.settimeout(seconds)
    data = b""
    while True:
        data += client.socket.recv(65536)
        at = data.rfind(b"\x88")
        if at >= 0 and len(data) >= at + 4:
            return struct.unpack("!H", data[at + 2 : at + 4])[0], time.monotonic() - begun


@pytest.mark.long
def test_the_silent_are_sent_away_and_listeners_are_not(daemon: Daemon) -> None:
    silent = RawClient(daemon.state_dir).log_in()
    stuck = RawClient(daemon.state_dir)
    stuck.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    stuck.log_in()
    with daemon.client() as listener, daemon.client() as admin:
        listener.ask("events", "subscribe", "system-state")
        for _ in range(40):
            command = [["true", "y" * 60_000]]
            admin.ask("rpc", "dispatcher", {"action": "submit", "job": {"commands": command}})
        wait_for_jobs(admin)
        # The answers fill every buffer on the way; none of them is ever read.
        for _ in range(200):
            stuck.send("rpc", "dispatcher", {"action": "history"})
        found: list[tuple[int, float]] = []
        thread = threading.Thread(target=lambda: found.append(close_code(silent, 100)))
        thread.start()

        def buffered() -> int:
            clients = admin.ask("rpc", "clients", {"action": "list"})["clients"]
            return max(int(account["buffered"]) for account in clients)

        wait_for(lambda: buffered() > 100_000, "output to wait")
        wait_for(lambda: buffered() < 100_000, "the end of the client that is stuck", 90)
        thread.join(100)
        assert found[0][0] == 1011
        # The ping after 20 s was the last byte that went either way.
        assert 55 < found[0][1] < 95
        assert json.dumps(listener.ask("rpc", "identify"))
        silent.close()
        stuck.close()
