"""/metrics: the daemon's figures as OpenMetrics. Collected when asked for; no socket.

What is watched is in `machine_metrics`. docs/monitoring.md lists all of them.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict
from itertools import accumulate
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from websockets.http11 import Request, Response

from collectors.supervisor import Collectors
from dispatcher import records
from dispatcher.runner import Dispatcher
from server.delivery.hub import Hub
from server.dialects.values import queue_name
from server.login import tokens
from server.login.guesses import Guesses
from server.loop_clock import BOUNDS, LoopClock
from server.machine_metrics import of_machine
from server.sessions import Sessions
from server.wire.http import exposed, is_loopback, respond
from server.wire.local import LOCAL
from sysadmd import __version__, journal
from sysadmd.errors import SysadmdError
from sysadmd.events import SYSTEMS
from sysadmd.store import Store

# Ends of jobs that are counted when the figures are asked for, the rest the next time: the loop
# has others to serve. A machine that ends as many between two scrapes is not known.
ENDS_AT_ONCE: Final = 2000
# Of those that have no end yet a zero is shown.
RESULTS: Final = ("succeeded", "failed", "killed", "timed-out", "lost")


class Metrics(Collector):
    """Answers GET /metrics: for a token, or from loopback."""

    def __init__(
        self,
        store: Store,
        hub: Hub,
        sessions: Sessions,
        dispatcher: Dispatcher,
        collectors: Collectors,
        guesses: Guesses,
        clock: LoopClock,
        health: Callable[[], list[str]],
        certificate_ends: Callable[[], int | None],
        admin_token: str,
    ) -> None:
        """health: what is wrong. certificate_ends: s since 1970; None: nobody can tell."""
        self._store = store
        self._hub = hub
        self._sessions = sessions
        self._dispatcher = dispatcher
        self._collectors = collectors
        self._guesses = guesses
        self._health = health
        self._clock = clock
        self._certificate_ends = certificate_ends
        self._now = asyncio.get_running_loop().time
        self._admin_token = admin_token
        # Jobs whose end was booked since the start, by queue and result, and up to which seq;
        # those, too, that had ended while there was no daemon.
        self._ends = Counter[tuple[str, str]]()
        self._counted = journal.head(store.reader).seq
        self._asked = False
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def __call__(self, address: str, request: Request) -> Response:
        try:
            if not self._permitted(address, request):
                return respond(401, "A token is needed: Authorization: Bearer TOKEN.\n")
            return exposed(self._registry)
        except SysadmdError as error:
            return respond(503, f"{error}\n")

    def _permitted(self, address: str, request: Request) -> bool:
        if address == LOCAL or is_loopback(address):
            return True
        for value in request.headers.get_all("Authorization"):
            scheme, _, secret = value.partition(" ")
            if scheme.lower() == "bearer" and (
                tokens.is_admin(secret, self._admin_token)
                or tokens.find(self._store.reader, secret) is not None
            ):
                return True
        return False

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        build = GaugeMetricFamily("sysadmd_build", "The running version.", labels=["version"])
        build.add_metric([__version__], 1)
        yield build
        yield GaugeMetricFamily(
            "sysadmd_healthy", "1: /healthz answers ok.", int(not self._health())
        )
        yield from self._loop()
        yield from self._jobs()
        yield from self._journal()
        yield from self._logins()
        yield from of_machine(self._collectors)

    def _loop(self) -> Iterator[Metric]:
        bounds = (*map(str, BOUNDS), "+Inf")
        yield HistogramMetricFamily(
            "sysadmd_loop_lag_seconds",
            "How late the event loop came to a task that was due, looked at at every beat.",
            buckets=list(zip(bounds, accumulate(self._clock.counts), strict=True)),
            sum_value=self._clock.total,
        )
        yield CounterMetricFamily(
            "sysadmd_loop_stood_still_seconds",
            "Of that lag, what no peer was charged with.",
            self._clock.stood_still,
        )

    def _jobs(self) -> Iterator[Metric]:
        queues = self._dispatcher.queues()
        finished = GaugeMetricFamily(
            "sysadmd_jobs_finished", "Finished jobs that are kept.", labels=["result"]
        )
        for result, count in records.results(self._store.reader).items():
            finished.add_metric([result], count)
        yield finished
        # With zeros, and at first nothing else: what begins with a 1 has not increased, for who
        # reads it.
        ended = Counter({(queue_name(q.name), result): 0 for q in queues for result in RESULTS})
        ends = CounterMetricFamily(
            "sysadmd_job_ends",
            "Jobs that have ended since the daemon's start.",
            labels=["queue", "result"],
        )
        most = ENDS_AT_ONCE if self._asked else 0
        self._asked = True
        rows = records.ended_after(self._store.reader, self._counted, most)
        for of, result, seq in rows:
            self._ends[queue_name(of), result] += 1
            self._counted = seq
        ended.update(self._ends)
        for labels, count in ended.items():
            ends.add_metric(labels, count)
        yield ends
        waiting = GaugeMetricFamily(
            "sysadmd_queue_jobs", "Jobs in a queue.", labels=["queue", "state"]
        )
        paused = GaugeMetricFamily(
            "sysadmd_queue_paused", "1: the queue is paused.", labels=["queue"]
        )
        for queue in queues:
            name = queue_name(queue.name)
            waiting.add_metric([name, "pending"], queue.waiting)
            waiting.add_metric([name, "running"], queue.running)
            paused.add_metric([name], int(queue.paused))
        yield waiting
        yield paused

    def _journal(self) -> Iterator[Metric]:
        db = self._store.reader
        connections = len(self._sessions)
        yield GaugeMetricFamily("sysadmd_connections", "Open connections.", connections)
        logins = len(self._sessions.logins())
        yield GaugeMetricFamily("sysadmd_clients", "Clients that are logged in.", logins)
        head, gone = journal.head(db), journal.pruned(db)
        told = CounterMetricFamily(
            "sysadmd_events", "Events since the journal began.", labels=["system"]
        )
        kept = GaugeMetricFamily("sysadmd_events_kept", "Events kept.", labels=["system"])
        for number, system in enumerate(SYSTEMS):
            told.add_metric([system], head.counts[number])
            kept.add_metric([system], head.counts[number] - gone.counts[number])
        yield told
        yield kept
        yield GaugeMetricFamily("sysadmd_journal_head", "Newest event's seq.", head.seq)
        yield GaugeMetricFamily(
            "sysadmd_journal_lag",
            "Events committed, not yet told.",
            head.seq - self._hub.head.seq,
        )
        ledger = GaugeMetricFamily(
            "sysadmd_ledger_events",
            "Events of subscriptions: published = delivered + merged + gapped + owed.",
            labels=["account"],
        )
        for account, count in asdict(self._sessions.ledger).items():
            ledger.add_metric([account], count)
        yield ledger

    def _logins(self) -> Iterator[Metric]:
        guesses = self._guesses
        yield CounterMetricFamily(
            "sysadmd_login_failures", "Passwords that were refused.", guesses.failures
        )
        yield CounterMetricFamily(
            "sysadmd_login_blocks", "Addresses blocked after that.", guesses.blocks
        )
        yield GaugeMetricFamily(
            "sysadmd_blocked_addresses",
            "Addresses from which no password is taken now.",
            sum(1 for _ in guesses.blocked(self._now())),
        )
        ends = GaugeMetricFamily(
            "sysadmd_certificate_expiry_seconds",
            "When the certificate that clients are shown ends, s since 1970.",
        )
        if (at := self._certificate_ends()) is not None:
            ends.add_metric([], at)
        yield ends
