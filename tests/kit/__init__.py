"""What tests and benches share: a daemon, clients, waiting; the rest is in modules by name."""

from tests.kit.client import Client
from tests.kit.daemon import QUIET, ROOT, Daemon
from tests.kit.needs import needed, needs, needs_fast, needs_freebsd, needs_linux, needs_root
from tests.kit.raw_client import RawClient
from tests.kit.waiting import DEADLINE, wait_for

__all__ = [
    "DEADLINE",
    "QUIET",
    "ROOT",
    "Client",
    "Daemon",
    "RawClient",
    "needed",
    "needs",
    "needs_fast",
    "needs_freebsd",
    "needs_linux",
    "needs_root",
    "wait_for",
]
