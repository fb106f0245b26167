"""Reading back the journal: one client, two hundred at once, and one that never reads.

python -m bench.resume [--events N] [--flood N]

The limit beside the first figure: as many bytes sent over the same TLS by a loop that does
nothing else.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import selectors
import socket
import ssl
import tempfile
import threading
import time
from multiprocessing.synchronize import Event
from pathlib import Path

from sysadmd.events import SYSTEMS
from tests.kit import QUIET, Daemon, RawClient
from tests.kit.figures import percentile, resident
from tests.kit.state_file import append_events

# Of 100 stored events so many come from real jobs, three of each.
JOBS_PER_100 = 8
CHUNK = 1000


def fill_jobs(daemon: Daemon, jobs: int) -> None:
    client = RawClient(daemon.state_dir).log_in()
    client.ask("events", "subscribe", "dispatcher")
    for start in range(0, jobs, CHUNK):
        batch = {f"job {n}": f"echo {n}" for n in range(start, min(jobs, start + CHUNK))}
        client.send("rpc", "dispatcher", {"action": "run", **batch})
        done = 0
        while done < len(batch):
            done += b'"state":"finished","process_id"' in client.frame()
    client.close()


def fill_logs(state_dir: Path, count: int) -> None:
    text = "Wed Nov 25 18:00:02 UTC 2026: Creating snapshot on tank/data/{}"
    rest = {"priority": "1/Information", "class": "snapshot"}
    bodies = ({"message": text.format(number), **rest} for number in range(count))
    append_events(
        state_dir,
        (("life-preserver", json.dumps(body).encode(), time.time()) for body in bodies),
    )


def read_all(state_dir: Path, count: int) -> tuple[float, int]:
    client = RawClient(state_dir).log_in()
    client.ask("events", "subscribe", {"systems": list(SYSTEMS), "since": "oldest"})
    begun = time.perf_counter()
    size = client.count_frames(count)
    elapsed = time.perf_counter() - begun
    client.close()
    return elapsed, size


def limit(state_dir: Path, frames: int, size: int) -> float:
    """Seconds to send as many frames of as many bytes over TLS, and to cut them apart."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(state_dir / "tls/certificate.pem", state_dir / "tls/key.pem")
    each = size // frames - 4
    frame = b"\x81\x7e" + each.to_bytes(2, "big") + b"x" * each
    portion = frame * (65536 // len(frame))
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            plain, _ = server.accept()
            with context.wrap_socket(plain, server_side=True) as sender:
                for _ in range(frames * len(frame) // len(portion) + 1):
                    sender.sendall(portion)

        thread = threading.Thread(target=serve)
        thread.start()
        client_context = ssl.create_default_context(cafile=state_dir / "tls/certificate.pem")
        plain = socket.create_connection(server.getsockname())
        secure = client_context.wrap_socket(plain, server_hostname="127.0.0.1")
        client = RawClient.of(secure)
        begun = time.perf_counter()
        client.count_frames(frames)
        elapsed = time.perf_counter() - begun
        client.socket.recv(1 << 20)
        client.close()
        thread.join()
    return elapsed


def live_latency(daemon: Daemon, seconds: float) -> list[float]:
    """Seconds from a request to the pending event of its job, for a live client."""
    client = RawClient(daemon.state_dir).log_in()
    client.ask("events", "subscribe", {"systems": ["dispatcher"], "since": "now"})
    found: list[float] = []
    end = time.perf_counter() + seconds
    number = 0
    while time.perf_counter() < end:
        number += 1
        name = f"live {time.time_ns()}"
        begun = time.perf_counter()
        client.send("rpc", "dispatcher", {"action": "run", name: []})
        pending = finished = False
        while not (pending and finished):
            frame = client.frame()
            if name.encode() in frame and b'"dispatcher"' in frame:
                if b'"pending"' in frame:
                    found.append(time.perf_counter() - begun)
                    pending = True
                finished |= b'"finished"' in frame
        time.sleep(0.02)
    client.close()
    return found


def read_back(state_dir: Path, count: int, reading: Event, stop: Event) -> None:
    """`count` clients in a process of their own that read everything from the oldest on."""
    clients = [RawClient(state_dir).log_in() for _ in range(count)]
    selector = selectors.DefaultSelector()
    for client in clients:
        client.send("events", "subscribe", {"systems": list(SYSTEMS), "since": "oldest"})
    for client in clients:
        client.socket.setblocking(False)
        selector.register(client.socket, selectors.EVENT_READ, client.socket)
    reading.set()
    buffer = bytearray(65536)
    while not stop.is_set():
        for key, _ in selector.select(0.1):
            with contextlib.suppress(ssl.SSLWantReadError):
                key.data.recv_into(buffer)
    for client in clients:
        client.close()


def crowd(daemon: Daemon, count: int) -> list[float]:
    """Latency of a live client while `count` clients read everything back."""
    spawn = multiprocessing.get_context("spawn")
    reading, stop = spawn.Event(), spawn.Event()
    readers = spawn.Process(target=read_back, args=(daemon.state_dir, count, reading, stop))
    readers.start()
    reading.wait()
    found = live_latency(daemon, 8)
    stop.set()
    readers.join()
    return found


def figures(seconds: list[float]) -> str:
    p50, p99 = (percentile(seconds, part) * 1000 for part in (0.5, 0.99))
    return f"p50 {p50:.1f} ms, p99 {p99:.1f} ms"


def stalled(daemon: Daemon, flood: int) -> tuple[float, float]:
    """Resident memory (MiB) before and after `flood` events that one client never reads."""
    client = RawClient(daemon.state_dir).log_in()
    client.ask("events", "subscribe", {"systems": list(SYSTEMS), "since": "now"})
    pusher = RawClient(daemon.state_dir).log_in()

    def push(events: int) -> None:
        for _ in range(events // (2 * CHUNK)):
            stamp = time.time_ns()
            batch: dict[str, list[str]] = {f"{stamp}-{n}": [] for n in range(CHUNK)}
            pusher.ask("rpc", "dispatcher", {"action": "run", **batch})

    push(flood // 10)
    before = resident(daemon.pid)
    push(flood)
    after = resident(daemon.pid)
    client.close()
    pusher.close()
    return before, after


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--flood", type=int, default=1_000_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        daemon = Daemon(Path(scratch) / "state", QUIET, options=("--log-level", "info"))
        with daemon:
            jobs = options.events * JOBS_PER_100 // 100
            fill_jobs(daemon, jobs)
        fill_logs(daemon.state_dir, options.events - 3 * jobs)
        with daemon:
            for _ in range(3):
                elapsed, size = read_all(daemon.state_dir, options.events)
                least = limit(daemon.state_dir, options.events, size)
                print(
                    f"one client: {options.events / elapsed:,.0f} events/s"
                    f" ({size / elapsed / 2**20:.0f} MiB/s); bare TLS sender"
                    f" {options.events / least:,.0f}/s; ratio {least / elapsed:.2f}"
                )
            ratios: list[float] = []
            for _ in range(3):
                quiet = live_latency(daemon, 6)
                busy = crowd(daemon, options.clients)
                ratios.append(percentile(busy, 0.99) / percentile(quiet, 0.99))
                print(
                    f"live event, quiet: {figures(quiet)}; while {options.clients} clients"
                    f" read back: {figures(busy)}; ratio of p99 {ratios[-1]:.2f}"
                )
            print(f"  the middle ratio: {sorted(ratios)[1]:.2f} (limit 3)")
            before, after = stalled(daemon, options.flood)
            print(
                f"a client that never reads, {options.flood:,} events: resident memory"
                f" {before:.1f} -> {after:.1f} MiB, {after - before:+.1f}"
            )


if __name__ == "__main__":
    main()
