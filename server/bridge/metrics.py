"""/metrics of a bridge, for its own machine: who is there, what was passed on. No socket.

docs/monitoring.md lists the figures.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from websockets.http11 import Request, Response

from server.bridge.switchboard import Switchboard
from server.wire.http import exposed, is_loopback, respond


class BridgeMetrics(Collector):
    """Answers GET /metrics from loopback."""

    def __init__(self, board: Switchboard) -> None:
        self._board = board
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def __call__(self, address: str, request: Request) -> Response:
        if not is_loopback(address):
            return respond(401, "A bridge tells its figures to its own machine alone.\n")
        return exposed(self._registry)

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        board = self._board
        peers = GaugeMetricFamily(
            "sysadmd_bridge_peers", "Peers that are logged in, by side.", labels=["side"]
        )
        sides = Counter(peer.key.side for peer in board.peers.values() if peer.key)
        for side in ("server", "client"):
            peers.add_metric([side], sides[side])
        yield peers
        for name, text, value in (
            ("messages", "Messages that were passed on.", board.relayed),
            ("bytes", "Bytes of messages that were passed on.", board.relayed_bytes),
            ("refused", "Messages that were not passed on.", board.refused),
        ):
            yield CounterMetricFamily(f"sysadmd_bridge_{name}", text, value=value)
        keys = len(board.keys)
        yield GaugeMetricFamily("sysadmd_bridge_keys", "Keys that may come.", value=keys)
