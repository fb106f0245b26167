"""A daemon to load with jobs over its wire, by clients that cost next to nothing."""

from __future__ import annotations

import ctypes
import json
import selectors
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from tests.kit import QUIET, Daemon, RawClient
from tests.kit.processes import clean, holders, starters
from tests.kit.state_file import state_file

SERIAL, WIDE = "pkg_queue", "no_queue"
# Of one client in flight; four of them are the 64 of the table.
AHEAD, CLIENTS = 16, 4
SPENDERS: Sequence[str] = ("daemon", "keeper and guard", "starters")
# Between two looks at the state file, s: an error of the time, and a cost to who is measured.
LOOK = 0.002
_REPLY, _ERROR = b'"name":"response"', b'"name":"error"'


class JobDaemon(Daemon):
    """A daemon without collectors; its keeper and its jobs end with it."""

    def __init__(self, state_dir: Path, lanes: int = 4) -> None:
        """lanes: of no_queue. pkg_queue has one."""
        config = QUIET + (
            f'\n[dispatcher]\ndefault_parallel = {lanes}\ncommand_log_limit = "4GiB"\n'
        )
        # The later word counts.
        super().__init__(state_dir, config, options=("--log-level", "info"))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            super().__exit__(kind, error, trace)
        finally:
            if self.is_up:
                self.kill()
            clean(self.state_dir)


def request(args: object) -> bytes:
    """The text of a request to rpc/dispatcher."""
    body = {"namespace": "rpc", "name": "dispatcher", "id": "b", "args": args}
    return json.dumps(body).encode()


def order(queue: str, command: str | Sequence[str] = "true") -> bytes:
    """The text of a request for one job."""
    return request({"action": "submit", "job": {"commands": [command], "queue": queue}})


def accept(client: RawClient, text: bytes) -> None:
    """A request, until it is answered."""
    client.send_text(text)
    assert _REPLY in client.frame()


def accept_many(clients: Sequence[RawClient], text: bytes, count: int) -> float:
    """Seconds until so many have been answered, with AHEAD of each client in flight."""
    flights = [_Flight(client, text) for client in clients]
    unsent = unheard = count
    with selectors.DefaultSelector() as selector:
        begun = time.perf_counter()
        for flight in flights:
            selector.register(flight.client.socket, selectors.EVENT_READ, flight)
            unsent -= flight.send(min(AHEAD, unsent))
        while unheard:
            for key, _ in selector.select():
                ready: _Flight = key.data
                heard = ready.hear()
                unheard -= heard
                unsent -= ready.send(min(heard, unsent))
        return time.perf_counter() - begun


class _Flight:
    """A client's requests in flight, all alike; replies are counted and not looked at."""

    def __init__(self, client: RawClient, text: bytes) -> None:
        self.client = client
        self._text = text
        self._part = b""

    def send(self, count: int) -> int:
        if count:
            self.client.send_text(self._text, count)
        return count

    def hear(self) -> int:
        """How many replies have come by now."""
        sock = self.client.socket
        heard = self._part + sock.recv(65536)
        while sock.pending():
            heard += sock.recv(65536)
        assert _ERROR not in heard, heard
        replies = heard.count(_REPLY)
        self._part = heard[heard.rindex(_REPLY) + len(_REPLY) :] if replies else heard
        return replies


def trip(client: RawClient, text: bytes) -> None:
    """A request, until a subscriber hears that its job has finished."""
    client.send_text(text)
    while b'"state":"finished"' not in client.frame():
        pass


@dataclass(frozen=True)
class Drained:
    """What the jobs of a queue took. seconds: to the last end. cpu: seconds, by who spent them,
    the commands' own apart.
    """

    seconds: float
    cpu: Mapping[str, float]


def drain(daemon: JobDaemon, client: RawClient, queue: str, jobs: int) -> Drained:
    """Hold the queue, let so many jobs wait in it, and let them go.

    The end is seen in the state file: nobody is told of it, and the daemon is not asked.
    """
    client.ask("rpc", "dispatcher", {"action": "pause", "queue": queue})
    accept_many([client], order(queue), jobs)
    with state_file(daemon.state_dir) as db:
        before = _spent(daemon)
        begun = time.perf_counter()
        client.send_text(request({"action": "resume", "queue": queue}))
        while db.execute("SELECT 1 FROM jobs WHERE state < 2 LIMIT 1").fetchone():
            time.sleep(LOOK)
        took = time.perf_counter() - begun
        after = _spent(daemon)
        (bad,) = db.execute("SELECT count(*) FROM jobs WHERE result != 'succeeded'").fetchone()
    assert not bad, f"{bad} jobs did not succeed"
    assert _REPLY in client.frame()
    cpu = dict.fromkeys(SPENDERS, 0.0)
    for (who, pid), used in after.items():
        cpu[who] += used - before.get((who, pid), 0.0)
    return Drained(took, cpu)


def _spent(daemon: JobDaemon) -> dict[tuple[str, int], float]:
    """Seconds of CPU of daemon, guard and keeper, and each living starter: not of commands."""
    place = daemon.state_dir
    found = dict(zip(SPENDERS, ([daemon.pid], holders(place), starters(place)), strict=True))
    return {(who, pid): _processor_time(pid) for who, pids in found.items() for pid in pids}


def _processor_time(pid: int) -> float:
    """Seconds of CPU of a process, all its threads: to the nanosecond, where psutil has ticks.

    Source: clock_getcpuclockid(3); Linux, FreeBSD.
    """
    clock = ctypes.c_int()
    error = ctypes.CDLL(None).clock_getcpuclockid(pid, ctypes.byref(clock))
    if error:
        raise OSError(error, f"no clock of process {pid}")
    return time.clock_gettime(clock.value)
