"""Costly requests: each kind at its largest size, and what a good client feels meanwhile.

A part of bench.doors: python -m bench.doors --part costly
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

from server.classes.logs import LOGS
from tests.kit import Daemon, RawClient
from tests.kit.daemon import sysadmd
from tests.kit.figures import percentile
from tests.kit.json_families import FAMILIES

# So many strangers of one address, below its limit of 20; and so many clients with a token.
STRANGERS = 15
MEMBERS = 4
# Bytes of what they send at most, less a little: families come out somewhat longer.
STRANGER_SIZE = 8 * 1024 - 400
MEMBER_SIZE = 1024 * 1024 - 400
# How long each kind is sent again and again; s.
SECONDS = 2.0
# An answer that takes longer is not waited for; s.
PATIENCE = 30.0
# So long without a frame, and a subscription has given what there was; s.
SILENCE = 0.3
# What is in history: finished jobs, and waiting ones of so many commands each.
FINISHED = 300
WAITING = 300
COMMANDS = 1000


@dataclass(frozen=True, slots=True)
class Kind:
    """A request that is sent again and again.

    stream: events follow, which are taken, too; each time on a new connection.
    """

    name: str
    text: bytes
    stream: bool = False


def request(namespace: str, name: str, args: object) -> bytes:
    body = {"namespace": namespace, "name": name, "id": "b", "args": args}
    return json.dumps(body).encode()


def of_strangers() -> Iterator[Kind]:
    filling = "x" * (STRANGER_SIZE - 400)
    yield Kind("identify", request("rpc", "identify", {"filling": filling}))
    password = {"username": "nobody", "password": "x" * 256, "filling": filling[256:]}
    yield Kind("auth", request("rpc", "auth", password))
    yield Kind("auth_token", request("rpc", "auth_token", {"token": filling}))
    for name, family in FAMILIES.items():
        yield Kind(name, family(STRANGER_SIZE).encode())


def of_members() -> Iterator[Kind]:
    for name, family in FAMILIES.items():
        yield Kind(name, family(MEMBER_SIZE).encode())
    for reading in (
        {"action": "list"},
        {"action": "history"},
        {"action": "show", "job_id": "long"},
        {"action": "log", "job_id": "long", "command": COMMANDS - 1, "limit": 80 * 1024},
    ):
        yield Kind(f"dispatcher {reading['action']}", request("rpc", "dispatcher", reading))
    span = {"time_format": "epoch_mseconds", "start_time": "0"}
    for log in LOGS:
        if log != "hostinfo":
            window = {"action": "read_logs", "logs": [log], **span}
            yield Kind(f"read_logs {log}", request("rpc", "logs", window))
    pattern = {"action": "read_logs", "time_format": "yyyy" + "x" * MEMBER_SIZE}
    yield Kind("read_logs, pattern", request("rpc", "logs", pattern | {"start_time": "x"}))
    for more in ({"snapshot": True}, {"since": "oldest"}):
        args = {"systems": ["dispatcher", "life-preserver", "system-state"], **more}
        kind = f"subscribe, {next(iter(more))}"
        yield Kind(kind, request("events", "subscribe", args), stream=True)


def fill(daemon: Daemon) -> None:
    """A history as it may be after some months of a busy machine."""
    with daemon.client() as client:
        jobs = {f"job {number}": f"echo {number}" for number in range(FINISHED)}
        client.ask("rpc", "dispatcher", {"action": "run", **jobs})
        long = {"action": "run", "long": [f"echo {number}" for number in range(COMMANDS)]}
        client.ask("rpc", "dispatcher", long)
        client.ask("rpc", "dispatcher", {"action": "pause", "queue": "pkg_queue"})
        for number in range(WAITING):
            commands = [f"pkg install package-{command}" for command in range(COMMANDS)]
            job = {"id": f"waiting {number}", "queue": "pkg_queue", "commands": commands}
            client.ask("rpc", "dispatcher", {"action": "submit", "job": job})
        show = {"action": "show", "job_id": "long"}
        while client.ask("rpc", "dispatcher", show)["job"]["state"] != "finished":
            time.sleep(0.5)


def connect(daemon: Daemon, token: str) -> RawClient:
    client = RawClient(daemon.state_dir, "127.0.8.8")
    client.socket.settimeout(PATIENCE)
    if token:
        client.ask("rpc", "auth_token", {"token": token})
    return client


def answered(client: RawClient, kind: Kind) -> float:
    """Seconds until it is answered, and until there is nothing more of a stream."""
    begun = time.perf_counter()
    client.send_text(kind.text)
    client.frame()
    if kind.stream:
        client.socket.settimeout(SILENCE)
        with suppress(TimeoutError):
            while client.frame():
                pass
        return time.perf_counter() - begun - SILENCE
    return time.perf_counter() - begun


def insist(daemon: Daemon, token: str, kind: Kind, stop: threading.Event) -> None:
    """Send it again and again, on a new connection where that is needed."""
    client = None
    while not stop.is_set():
        try:
            client = client or connect(daemon, token)
            answered(client, kind)
        except (OSError, AssertionError):
            # Sent away, or left alone too long.
            kept = None
        else:
            kept = None if kind.stream else client
        if client is not None and kept is None:
            client.close()
        client = kept
    if client is not None:
        client.close()


def latency(good: RawClient, seconds: float) -> list[float]:
    """Seconds that each of a good client's requests takes."""
    found: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        begun = time.perf_counter()
        good.ask("rpc", "identify", {})
        found.append(time.perf_counter() - begun)
        time.sleep(0.005)
    return found


def alone(daemon: Daemon, token: str, kind: Kind) -> str:
    """What one of a kind takes, ms."""
    client = connect(daemon, token)
    try:
        return f"{answered(client, kind) * 1000:9.1f}"
    except (OSError, AssertionError):
        return "     none"
    finally:
        client.close()


def meanwhile(daemon: Daemon, token: str, kind: Kind, good: RawClient) -> list[float]:
    """What a good client feels while many send it."""
    stop = threading.Event()
    count = MEMBERS if token else STRANGERS
    with ThreadPoolExecutor(count) as pool:
        for _ in range(count):
            pool.submit(insist, daemon, token, kind, stop)
        try:
            return latency(good, SECONDS)
        finally:
            stop.set()


def costly_requests(daemon: Daemon) -> None:
    """One line for each kind."""
    fill(daemon)
    made = sysadmd(
        *("token", "add", "reader", "--role", "read", "--state-dir", str(daemon.state_dir))
    )
    reader = made.stdout.strip()
    good = RawClient(daemon.state_dir).log_in()
    quiet = percentile(latency(good, 2 * SECONDS), 0.99)
    print(f"a good client's p99 in quiet: {quiet * 1000:.1f} ms")
    print("by        request                             bytes    alone, ms  its p99    worst")
    for who, token, kinds in (
        ("strangers", "", of_strangers()),
        ("members", reader, of_members()),
    ):
        for kind in kinds:
            cost = alone(daemon, token, kind)
            found = meanwhile(daemon, token, kind, good)
            print(
                f"{who:9} {kind.name:32} {len(kind.text):9,} {cost}"
                f" {percentile(found, 0.99) * 1000:8.1f} {max(found) * 1000:8.1f}",
                flush=True,
            )
    good.close()
