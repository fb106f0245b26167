"""What strangers cost the others: idle crowds, half-open handshakes, slow writers, guessing.

And costly requests, of strangers and of those who may only read.

python -m bench.doors [--part idle|siege|guessing|costly] [--clients N] [--rude N]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import ssl
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench.costly import costly_requests
from tests.kit import QUIET, Daemon, RawClient
from tests.kit.figures import percentile, resident

# Rude ones come from so many addresses of 127.0.0.0/8, below the limit of each.
PER_ADDRESS = 10


def address(number: int) -> str:
    """One of many loopback addresses."""
    return f"127.0.{1 + number // 250}.{1 + number % 250}"


def latency(daemon: Daemon, seconds: float) -> list[float]:
    """Seconds that a good client's requests take."""
    client = RawClient(daemon.state_dir).log_in()
    found: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        begun = time.perf_counter()
        client.ask("rpc", "dispatcher", {"action": "list"})
        found.append(time.perf_counter() - begun)
        time.sleep(0.005)
    client.close()
    return found


def idle_crowd(daemon: Daemon, count: int) -> None:
    before = resident(daemon.pid)
    begun = time.perf_counter()
    clients = [RawClient(daemon.state_dir, address(n)).log_in() for n in range(count)]
    took = time.perf_counter() - begun
    after = resident(daemon.pid)
    calm = latency(daemon, 3)
    print(
        f"{count} idle clients, logged in at {count / took:,.0f}/s:"
        f" {(after - before) * 1024 / count:.1f} KiB resident each"
        f" ({before:.0f} -> {after:.0f} MiB); a good client's p99"
        f" {percentile(calm, 0.99) * 1000:.1f} ms"
    )
    for client in clients:
        client.close()


def under_siege(daemon: Daemon, count: int) -> None:
    """500 that say nothing in the handshake, 500 that write a byte now and then."""
    quiet = latency(daemon, 4)
    silent = [daemon.plain_socket(address(n // PER_ADDRESS)) for n in range(count)]
    slow: list[ssl.SSLSocket] = []
    for number in range(count):
        sock = daemon.plain_socket(address(1000 + number // PER_ADDRESS))
        with contextlib.suppress(OSError):
            secure = daemon.context.wrap_socket(sock, server_hostname="127.0.0.1")
            secure.send(b"GET / HTTP/1.1\r\nX: ")
            slow.append(secure)
    begun = time.perf_counter()
    found: list[float] = []
    while time.perf_counter() - begun < 5:
        for secure in slow:
            with contextlib.suppress(OSError):
                secure.send(b"x")
        found += latency(daemon, 0.5)
    print(
        f"{len(silent)} half-open handshakes and {len(slow)} slow writers: a good client's p99"
        f" {percentile(quiet, 0.99) * 1000:.2f} ms quiet, {percentile(found, 0.99) * 1000:.2f}"
        f" ms then, ratio {percentile(found, 0.99) / percentile(quiet, 0.99):.2f}"
    )
    for sock in [*silent, *slow]:
        sock.close()


def guessing(daemon: Daemon, failures: int) -> None:
    """Guess from one address until it is blocked; another logs in all the while."""
    codes: list[int] = []
    for _ in range(failures + 2):
        client = RawClient(daemon.state_dir, "127.0.9.9")
        client.send("rpc", "auth", {"username": "root", "password": "guess"})
        codes.append(json.loads(client.frame())["args"]["code"])
        client.close()
    other = RawClient(daemon.state_dir, "127.0.9.10")
    other.send("rpc", "auth", {"username": "root", "password": "guess"})
    answer = json.loads(other.frame())["args"]["code"]
    other.log_in()
    other.close()
    print(
        f"guessing from one address: answers {codes}; from another one meanwhile: a wrong"
        f" password {answer}, a token accepted"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", choices=("siege", "guessing", "idle", "costly"))
    parser.add_argument("--clients", type=int, default=10_000)
    parser.add_argument("--rude", type=int, default=500)
    options = parser.parse_args()
    parts: dict[str, Callable[[Daemon], None]] = {
        "siege": lambda daemon: under_siege(daemon, options.rude),
        "guessing": lambda daemon: guessing(daemon, 5),
        "idle": lambda daemon: idle_crowd(daemon, options.clients),
        "costly": costly_requests,
    }
    config = QUIET + "[server]\nmax_clients = 15000\n"
    with tempfile.TemporaryDirectory() as scratch:
        for name, part in parts.items():
            if options.part in (None, name):
                state = Path(scratch) / name
                with Daemon(state, config, options=("--log-level", "info")) as daemon:
                    part(daemon)


if __name__ == "__main__":
    main()
