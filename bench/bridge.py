"""What a bridge costs: idle peers, lists of who is there, messages passed on and sealed.

python -m bench.bridge [--part idle|lists|relay|sealed] [--peers N] [--messages N] [--rounds N]
"""

from __future__ import annotations

import argparse
import base64
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from bench.cheap_peers import (
    CheapPeer,
    Identity,
    address,
    hear_until_right,
    raise_limits,
    register,
)
from bench.relays import by_bridge, by_c, by_nats, peers_in_pairs
from sysadmd.keys import PrivateKey, Side
from sysadmd.sealed import Answering, Calling, SealedChannel
from tests.kit import QUIET, Daemon, RawClient
from tests.kit.bridge import Bridge
from tests.kit.figures import resident, spent

# The contract's promises: an idle peer's memory as a ratio to an idle client's of the daemon; s
# until all lists are right; CPU of a message as a ratio to C, or to NATS.
MEMORY, LISTS, RELAY = 1.2, 1.0, 2.0
# How many of one client key are here, with as many servers that accept it.
FAMILY = 8
# Who stands by when others come and go, of each side; clients' keys, each of 64 at most.
STANDING, CLIENT_KEYS = 50, 8
CROWDS = (100, 400)
# Bytes of a message: a job's event. Pairs of peers; questions of each that are under way.
PAYLOAD = 600
LOADS = ((1, 64), (1, 1), (20, 8))
# Round trips of each kind in a round; s that lists may take before we give up.
TRIPS = 300
GIVE_UP = 30.0
# Open connections, with room.
CONFIG = "max_clients = 15000\n"
OPTIONS = ("--log-level", "info")


# Idle peers.


def idle(room: Path, options: argparse.Namespace) -> None:
    count: int = options.peers
    by_client = idle_clients(room, count)
    keys, by_peer = idle_peers(room, count)
    print(
        f"memory of {count} idle peers: {by_peer:.1f} KiB each, and its key {keys:.1f} KiB; of"
        f" as many idle clients of `sysadmd serve`: {by_client:.1f} KiB each; ratio"
        f" {by_peer / by_client:.2f}, with the keys {(keys + by_peer) / by_client:.2f}"
        f" (limit {MEMORY:g})"
    )


def idle_clients(room: Path, count: int) -> float:
    """KiB of the daemon for each."""
    config = f"{QUIET}[server]\n{CONFIG}"
    with Daemon(room / "serve", config, options=OPTIONS) as daemon:
        before = resident(daemon.pid)
        clients = [RawClient(daemon.state_dir, address(n)).log_in() for n in range(count)]
        found = resident(daemon.pid) - before
        for client in clients:
            client.close()
    return found * 1024 / count


def idle_peers(room: Path, count: int) -> tuple[float, float]:
    """KiB of the bridge for each: of its registered key, and of it."""
    servers = [Identity.new("server") for _ in range(count // 2)]
    clients = [Identity.new("client") for _ in range(-(-count // (2 * FAMILY)))]
    with Bridge(room / "bridge", f"[bridge]\n{CONFIG}", options=OPTIONS) as bridge:
        empty = resident(bridge.pid)
        register(bridge, [*servers, *clients])
        before = resident(bridge.pid)
        peers: list[CheapPeer] = []
        begun = time.perf_counter()
        for number in range(count):
            own = clients[number // (2 * FAMILY)]
            who = servers[number // 2] if number % 2 else own
            peers.append(CheapPeer(bridge, number, who, [own]).come())
        took = time.perf_counter() - begun
        found = resident(bridge.pid) - before
        print(f"{count} peers came, one after the other, at {count / took:,.0f}/s")
        for peer in peers:
            peer.close()
    return (before - empty) * 1024 / count, found * 1024 / count


# Lists of who is there.


def lists(room: Path, options: argparse.Namespace) -> None:
    keys = [Identity.new("client") for _ in range(CLIENT_KEYS)]
    servers = [Identity.new("server") for _ in range(STANDING + max(CROWDS) // 2)]
    bridge = Bridge(room / "lists", f"[bridge]\n{CONFIG}", options=OPTIONS)
    register(bridge, [*keys, *servers])
    found: dict[int, list[tuple[float, float, float, float]]] = {n: [] for n in CROWDS}
    with bridge:
        standing = [
            peer.come() for peer in crowd(bridge, keys, servers[:STANDING], 0, STANDING)
        ]
        for _ in range(options.rounds):
            for count in CROWDS:
                new = servers[STANDING : STANDING + count // 2]
                comers = crowd(bridge, keys, new, 1000, count // 2)
                found[count].append(come_and_go(bridge, standing, comers))
    costs: dict[int, tuple[float, float]] = {}
    for count, rounds in found.items():
        came, left, in_cpu, out_cpu = map(median, zip(*rounds, strict=True))
        costs[count] = in_cpu / count, out_cpu / count
        worst = max(max(one[:2]) for one in rounds)
        print(
            f"{count} come at once to {2 * STANDING} that share keys with them all: every list"
            f" is right {came:.2f} s after the last login; they leave: {left:.2f} s; at worst"
            f" {worst:.2f} s of {len(rounds)} rounds (limit {LISTS:g}); CPU"
            f" {costs[count][0] * 1e3:.2f} ms for each that comes, its proof included, and"
            f" {costs[count][1] * 1e3:.2f} ms for each that leaves"
        )
    few, many = (costs[count] for count in CROWDS)
    print(
        f"CPU for each of {CROWDS[1]}, as a ratio to each of {CROWDS[0]}: coming"
        f" {many[0] / few[0]:.2f}, leaving {many[1] / few[1]:.2f} (with the square of the peers"
        f" it would be {CROWDS[1] / CROWDS[0]:g})"
    )


def crowd(
    bridge: Bridge, keys: list[Identity], servers: list[Identity], number: int, clients: int
) -> list[CheapPeer]:
    """Peers that are ready to prove who they are: these servers, and so many clients."""
    peers = [CheapPeer(bridge, number + n, who, keys) for n, who in enumerate(servers)]
    number += len(peers)
    peers += [CheapPeer(bridge, number + n, keys[n % len(keys)]) for n in range(clients)]
    return peers


def come_and_go(
    bridge: Bridge, standing: list[CheapPeer], comers: list[CheapPeer]
) -> tuple[float, float, float, float]:
    """s from the last login's reply, and from the close, until lists are right; CPU of both."""
    for peer in comers:
        peer.prepare()
    each = STANDING + len(comers) // 2
    begun = spent(bridge.pid)
    for peer in comers:
        peer.prove()
    everybody = standing + comers
    hear_until_right(everybody, others(each), GIVE_UP)
    came = max(p.told_at for p in everybody) - max(p.in_at for p in comers)
    all_in = spent(bridge.pid)
    check(everybody)
    gone = time.perf_counter()
    before = spent(bridge.pid)
    for peer in comers:
        peer.close()
    hear_until_right(standing, others(STANDING), GIVE_UP)
    left = max(p.told_at for p in standing) - gone
    check(standing)
    return came, left, all_in - begun, spent(bridge.pid) - before


def others(each: int) -> dict[Side, int]:
    return {"server": each, "client": each}


def check(peers: list[CheapPeer]) -> None:
    """All of one side see the same; the clients: the servers."""
    ids = {peer.who.fingerprint for peer in peers if peer.who.side == "server"}
    clients = {peer.seen for peer in peers if peer.who.side == "server"}
    assert len(clients) == 1
    assert {peer.seen for peer in peers if peer.who.side == "client"} == {frozenset(ids)}


# Messages.


def relay(room: Path, options: argparse.Namespace) -> None:
    payload = b"x" * PAYLOAD
    bridge = Bridge(room / "relay", options=OPTIONS)
    most = max(pairs for pairs, _ in LOADS)
    relays = [by_bridge(bridge, most, payload)]
    relays += filter(None, (make(room, bridge, most, payload) for make in (by_c, by_nats)))
    costs: dict[tuple[str, int, int], list[float]] = {}
    try:
        for _ in range(options.rounds):
            for pairs, window in LOADS:
                for one in relays:
                    found = costs.setdefault((one.name, pairs, window), [])
                    found.append(one.cost(pairs, options.messages, window))
    finally:
        for one in relays:
            one.program.stop()
    for pairs, window in LOADS:
        compare({one.name: costs[one.name, pairs, window] for one in relays}, pairs, window)


def compare(costs: dict[str, list[float]], pairs: int, window: int) -> None:
    """Print it. costs: us for a message, of each round; first the bridge's."""
    told = ", ".join(f"{name} {median(found):.1f} us" for name, found in costs.items())
    print(
        f"CPU for a message of {PAYLOAD} bytes, {pairs} pairs, {window} questions of each under"
        f" way: {told}"
    )
    (_, own), *rest = costs.items()
    for name, found in rest:
        ratio = median(a / b for a, b in zip(own, found, strict=True))
        print(f"  bridge as a ratio to {name}: {ratio:.1f} (limit {RELAY:g}, to one of these)")


# Sealed ones.


def sealed(room: Path, options: argparse.Namespace) -> None:
    client, server = channels()
    content = b"x" * PAYLOAD
    count = 10_000
    begun = time.perf_counter()
    records = [client.seal(content) for _ in range(count)]
    between = time.perf_counter()
    for record in records:
        server.open(record)
    end = time.perf_counter()
    print(
        f"a record of {PAYLOAD} bytes: sealed in {(between - begun) / count * 1e6:.1f} us,"
        f" opened in {(end - between) / count * 1e6:.1f} us"
    )
    bridge = Bridge(room / "sealed", options=OPTIONS)
    ((asks, answers),) = peers_in_pairs(bridge, 1)
    # In base64, since a message is text; the pure transport of as many bytes is beside it.
    longer = b"x" * len(base64.b64encode(records[0]))
    client, server = channels()
    trips: dict[str, list[float]] = {"plain": [], "as long as sealed": [], "sealed": []}
    try:
        for _ in range(options.rounds * TRIPS):
            trips["plain"].append(round_trip(asks, answers, content))
            trips["as long as sealed"].append(round_trip(asks, answers, longer))
            trips["sealed"].append(round_trip(asks, answers, content, client, server))
    finally:
        bridge.stop()
    least = median(trips["plain"])
    for name, found in trips.items():
        took = median(found)
        print(f"round trip, {name}: {took * 1e6:.0f} us, {(took - least) * 1e6:+.0f} us")


def round_trip(
    asks: CheapPeer,
    answers: CheapPeer,
    content: bytes,
    asking: SealedChannel | None = None,
    answering: SealedChannel | None = None,
) -> float:
    """Seconds for a question and an answer of this content, sealed or not."""
    begun = time.perf_counter()
    for sender, receiver, own, other in (
        (asks, answers, asking, answering),
        (answers, asks, answering, asking),
    ):
        payload = content if own is None else base64.b64encode(own.seal(content))
        (destination,) = sender.seen
        sender.send_text(destination.encode() + b"\n" + payload)
        came = receiver.frame().partition(b"\n")[2]
        assert content == (came if other is None else other.open(base64.b64decode(came)))
    return time.perf_counter() - begun


def channels() -> tuple[SealedChannel, SealedChannel]:
    """The two ends of one."""
    client, server = PrivateKey.new(), PrivateKey.new()
    calling = Calling(client, server.public.fingerprint)
    answering = Answering(server, calling.hello)
    proof, own = calling.finish(answering.welcome)
    return own, answering.finish(proof)[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parts: dict[str, Callable[[Path, argparse.Namespace], None]] = {
        "sealed": sealed,
        "relay": relay,
        "lists": lists,
        "idle": idle,
    }
    parser.add_argument("--part", choices=parts)
    parser.add_argument("--peers", type=int, default=10_000)
    parser.add_argument("--messages", type=int, default=20_000, help="of a load, in a round")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    raise_limits()
    with tempfile.TemporaryDirectory(prefix="sysadmd-bridge-") as scratch:
        for name, part in parts.items():
            if options.part in (None, name):
                part(Path(scratch), options)


if __name__ == "__main__":
    main()
