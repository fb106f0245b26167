"""Twenty readers behind a network that cuts and stalls, and a daemon that is killed often.

At the end every reader must have had exactly the journal's events of its systems, each once and
in order, with an unbroken chain, and the account of deliveries must have balanced all the time.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from sysadmd.client import EventFrame, Target, Unreachable, connect, events
from sysadmd.events import SYSTEMS
from sysadmd.journal import parse_place
from tests.kit.daemon import Daemon
from tests.kit.state_file import state_file

READERS: Final = 20
# How often the daemon is killed; s.
KILL_EVERY: Final = 10.0
# How long readers have at the end to take what they have not had; s.
CATCH_UP: Final = 60.0
CHUNK: Final = 16 * 1024


class Network:
    """A TCP proxy in front of the daemon's port that does what networks do."""

    def __init__(self, port: int, source: random.Random) -> None:
        self._port = port
        self._source = source
        self._pairs: set[asyncio.Task[None]] = set()
        self.port = 0
        self.listening = asyncio.Event()
        self.cuts = self.stalls = 0
        self.calm = False

    async def run(self) -> None:
        """Serve until cancelled."""
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self.listening.set()
        async with server:
            await server.serve_forever()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self._port)
        except OSError:
            writer.close()
            return
        both = (self._carry(reader, there_writer), self._carry(there_reader, writer))
        try:
            await asyncio.gather(*both)
        except (OSError, asyncio.CancelledError):
            # One way has ended, or the run: asyncio can't take a cancelled connection here.
            return
        finally:
            writer.transport.abort()
            there_writer.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(CHUNK):
            dice = self._source.random()
            if not self.calm and dice < 0.002:
                self.cuts += 1
                # In the middle of what is under way.
                writer.write(data[: len(data) // 2])
                raise ConnectionResetError
            if not self.calm and dice < 0.006:
                self.stalls += 1
                await asyncio.sleep(self._source.uniform(0.5, 4))
            elif not self.calm and dice < 0.1:
                await asyncio.sleep(self._source.uniform(0, 0.05))
            writer.write(data)
            await writer.drain()
        raise ConnectionResetError


@dataclass(slots=True)
class Reader:
    """One reader, and all that it was given."""

    kind: str
    systems: tuple[str, ...]
    since: str
    start: str = ""
    seen: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])
    gapped: int = 0
    reconnections: int = 0
    last: str = ""

    @property
    def place(self) -> int:
        """The seq of the last event that it had."""
        return self.seen[-1][0] if self.seen else 0

    def take(self, event: EventFrame) -> None:
        """Note what it was given."""
        if event.name == "snapshot":
            return
        if event.name == "gap":
            self.gapped += event.args["count"]
        else:
            self.seen.append((parse_place(event.cursor.partition(":")[2]).seq, event.merged))
        self.last = event.cursor

    async def run(self, target: Target, source: random.Random) -> None:
        """Read for ever; `events` reconnects, a resuming reader hangs up by itself, too."""
        cursor = self.since
        while True:
            try:
                await self._session(target, source, cursor)
            except Unreachable:
                await asyncio.sleep(0.2)
            self.reconnections += 1
            cursor = self.last or self.since

    async def _session(self, target: Target, source: random.Random, cursor: str) -> None:
        left = source.randrange(20, 200) if self.kind == "resuming" else -1

        def lost(error: Exception, pause: float) -> None:
            self.reconnections += 1

        snapshot = self.kind == "snapshot" and not self.last
        stream = events(target, self.systems, since=cursor, snapshot=snapshot, lost=lost)
        async with contextlib.aclosing(stream):
            async for event in stream:
                self.take(event)
                if self.kind == "slow":
                    await asyncio.sleep(source.uniform(0, 0.05))
                left -= 1
                if left == 0:
                    return


@dataclass(slots=True)
class Outcome:
    """What came of it."""

    events: int = 0
    kills: int = 0
    lost: int = 0
    doubled: int = 0
    disordered: int = 0
    merged: int = 0
    gapped: int = 0
    reconnections: int = 0
    ledgers: int = 0
    unbalanced: int = 0
    cuts: int = 0
    stalls: int = 0

    @property
    def clean(self) -> bool:
        """Nothing was lost, doubled or out of order, and every account balanced."""
        return not (self.lost or self.doubled or self.disordered or self.unbalanced)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


async def _work(target: Target, log: Path, source: random.Random, pause: float) -> None:
    """Jobs of several kinds, and lines in the log; for ever."""
    number = 0
    while True:
        number += 1
        with log.open("a") as out:
            for line in range(source.randrange(0, 4)):
                out.write(
                    f"Wed Nov 25 18:00:02 UTC 2026: Creating snapshot on t/{number}/{line}\n"
                )
        commands = source.choice(
            (
                ["true"],
                ["echo a", "echo b", "false"],
                ['sh -c "for i in 1 2 3 4 5 6 7 8; do echo $i; sleep 0.3; done"'],
                ["seq 1 5000", "/no/such/program"],
            )
        )
        job = {"id": f"job {number}", "commands": commands, "key": f"{number}"}
        with contextlib.suppress(Unreachable):
            async with connect(target) as client:
                await client.request("rpc", "dispatcher", {"action": "submit", "job": job})
        await asyncio.sleep(source.uniform(0, pause))


async def _keep_books(target: Target, outcome: Outcome) -> None:
    """Ask for the accounts, again and again: each must balance at any time."""
    while True:
        with contextlib.suppress(Unreachable):
            async with connect(target) as client:
                reply = await client.request("rpc", "clients", {"action": "list"})
                for account in (*reply["clients"], reply["total"]):
                    outcome.ledgers += 1
                    parts = (account[key] for key in ("delivered", "merged", "gapped", "owed"))
                    outcome.unbalanced += account["published"] != sum(parts)
        await asyncio.sleep(0.5)


async def chaos(daemon: Daemon, log: Path, seconds: float, seed: int) -> Outcome:
    """Run it against a daemon that has been started once."""
    source = random.Random(seed)
    outcome = Outcome()
    port = int(daemon.url.rsplit(":", 1)[1])
    network = Network(port, source)
    direct = Target.local(daemon.state_dir)
    readers = [_reader(number, source) for number in range(READERS)]
    tasks: list[asyncio.Task[None]] = []
    async with asyncio.TaskGroup() as group:
        tasks.append(group.create_task(network.run()))
        await network.listening.wait()
        target = replace(direct.resolved(), url=f"wss://127.0.0.1:{network.port}")
        reading = [group.create_task(reader.run(target, source)) for reader in readers]
        working = group.create_task(_work(direct, log, source, 0.3))
        tasks += [*reading, group.create_task(_keep_books(direct, outcome))]
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            await asyncio.sleep(min(left, KILL_EVERY * source.uniform(0.5, 1.5)))
            await asyncio.to_thread(daemon.kill)
            outcome.kills += 1
            await asyncio.sleep(source.uniform(0, 0.5))
            await asyncio.to_thread(daemon.start)
        working.cancel()
        network.calm = True
        await _settle(daemon, direct, readers)
        for task in tasks:
            task.cancel()
    outcome.cuts, outcome.stalls = network.cuts, network.stalls
    _judge(daemon.state_dir, readers, outcome)
    return outcome


def _reader(number: int, source: random.Random) -> Reader:
    kind = ("live", "slow", "filtered", "resuming", "snapshot")[number % 5]
    systems = SYSTEMS if kind != "filtered" else (SYSTEMS[number % 2],)
    return Reader(kind, tuple(systems), "oldest")


async def _settle(daemon: Daemon, direct: Target, readers: list[Reader]) -> None:
    """Until no job is active and every reader has had the newest event of its systems."""
    end = time.monotonic() + CATCH_UP
    while time.monotonic() < end:
        with contextlib.suppress(Unreachable):
            async with connect(direct) as client:
                jobs = (await client.request("rpc", "dispatcher", {"action": "list"}))["jobs"]
            journal = _read_journal(daemon.state_dir)
            newest = [_of(journal, reader.systems)[-1] for reader in readers]
            caught_up = all(r.place == seq for r, seq in zip(readers, newest, strict=True))
            if caught_up and not any(jobs.values()):
                return
        await asyncio.sleep(0.3)


def _read_journal(state_dir: Path) -> list[tuple[int, int]]:
    """(seq, system) of all events."""
    with state_file(state_dir) as db:
        return db.execute("SELECT seq, system FROM events ORDER BY seq").fetchall()


def _of(journal: list[tuple[int, int]], systems: tuple[str, ...]) -> list[int]:
    return [seq for seq, system in journal if SYSTEMS[system] in systems]


def _judge(state_dir: Path, readers: list[Reader], outcome: Outcome) -> None:
    journal = _read_journal(state_dir)
    outcome.events = len(journal)
    assert [seq for seq, _ in journal] == list(range(1, len(journal) + 1))
    for reader in readers:
        wanted = _of(journal, reader.systems)
        index = {seq: position for position, seq in enumerate(wanted)}
        got: list[int] = []
        for seq, merged in reader.seen:
            at = index[seq]
            got += wanted[at - merged + 1 : at + 1]
            outcome.merged += merged - 1
        outcome.disordered += got != sorted(got)
        outcome.doubled += len(got) - len(set(got))
        outcome.lost += len(set(wanted) - set(got)) - reader.gapped
        outcome.gapped += reader.gapped
        outcome.reconnections += reader.reconnections


def _configured(state_dir: Path, log: Path) -> Daemon:
    """A daemon on a port that stays the same, with the log watched."""
    log.parent.mkdir(exist_ok=True)
    log.touch()
    config = f"""
        [collectors.zpool]
        enabled = false
        [collectors.life_preserver]
        log = "{log}"
        [dispatcher]
        progress_interval = 0.2
    """
    return Daemon(
        state_dir, config, listen=f"127.0.0.1:{_free_port()}", options=("--log-level", "info")
    )


def run(directory: Path, seconds: float, seed: int) -> Outcome:
    """One run in this directory."""
    log = directory / "lp" / "lpreserver.log"
    with _configured(directory / "state", log) as daemon:
        return asyncio.run(chaos(daemon, log, seconds, seed))
