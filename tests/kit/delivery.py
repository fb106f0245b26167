"""Delivery on a real store, without a daemon."""

from __future__ import annotations

from pathlib import Path

from server.delivery.frames import Renderer
from server.delivery.hub import Hub
from server.delivery.job_events import JobEvents
from server.delivery.pages import Pages
from server.delivery.tail import Sources
from server.delivery.waiting import WaitingJobs
from sysadmd.store import Store


def sources_of(store: Store, directory: Path) -> Sources:
    """Where tails read. directory: the state directory, for logs of jobs."""
    live, paged = (
        Renderer(JobEvents(db, store.epoch, directory, lambda: 1024))
        for db in (store.reader, store.thread_reader)
    )
    hub = Hub(store, live)
    waiting = WaitingJobs(store, hub, live)
    return Sources(store, Pages(store.epoch, paged), hub, live, waiting)
