"""A bridge, and peers after the document: who gets in, who sees whom, what is passed on."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import time
from base64 import b64decode, b64encode
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from Crypto.PublicKey import RSA
from websockets.exceptions import ConnectionClosed

from server.bridge import registry
from server.bridge.legacy import LegacyProofs, Proof
from server.bridge.outbox import OF_SENDER
from server.bridge.registry import BridgeKey, RegistryUnusable
from sysadmd.bridge_link import CHECKSUMS_ID, IDENT
from sysadmd.keys import PrivateKey, Side, parse_public
from tests.kit import needs_root, wait_for
from tests.kit.bridge import Bridge, DeafPeer, Peer
from tests.kit.daemon import sysadmd
from tests.kit.figures import spent
from tests.kit.rsa_keys import RsaKey

ALICE, BOB, WEB, DB = (PrivateKey.new() for _ in range(4))


@pytest.fixture
def bridge(tmp_path: Path) -> Iterator[Bridge]:
    bridge = Bridge(tmp_path / "bridge")
    for key, name in ((ALICE, "alice"), (BOB, "bob")):
        bridge.let_in(key, "client", name)
    for key, name in ((WEB, "web"), (DB, "db")):
        bridge.let_in(key, "server", name)
    with bridge:
        yield bridge


def stranger(bridge: Bridge, side: Side = "client", key: PrivateKey = ALICE) -> Peer:
    return Peer(bridge.url, bridge.context, side, key)


def closing(peer: Peer) -> int:
    """Read until the bridge ends the connection; its code."""
    try:
        while True:
            peer.receive()
    except ConnectionClosed as closed:
        assert closed.rcvd is not None
        return closed.rcvd.code


def test_a_server_and_a_client_that_share_a_key_see_each_other(bridge: Bridge) -> None:
    with bridge.peer("server", WEB, [ALICE]) as web, bridge.peer("client", ALICE) as alice:
        assert alice.until_told(1) == [WEB.public.fingerprint]
        (id,) = web.until_told(1)
        alice.send(WEB.public.fingerprint, "payload\nof two lines")
        assert web.message() == (id, "payload\nof two lines")
        web.send(id, "answer")
        assert alice.message() == (WEB.public.fingerprint, "answer")
        with bridge.peer("server", DB, [BOB, ALICE]):
            assert set(alice.until_told(2)) == {k.public.fingerprint for k in (WEB, DB)}
        assert alice.until_told(1) == [WEB.public.fingerprint]
        # Whoever is not concerned was told nothing.
        assert web.sees() == [id]
        assert web.lists == [[id]]


def test_who_shares_no_key_sees_and_reaches_nobody(bridge: Bridge) -> None:
    with (
        bridge.peer("server", WEB, [ALICE]) as web,
        bridge.peer("client", ALICE) as alice,
        bridge.peer("client", BOB) as bob,
    ):
        (id,) = web.until_told(1)
        alice.until_told(1)
        assert bob.sees() == []
        assert bob.lists == []
        for destination in (WEB.public.fingerprint, id, "nobody"):
            bob.send(destination, "hello")
            error = bob.reply()
            assert (error["name"], error["id"]) == ("error", destination)
            assert error["args"]["code"] == 404
        # Nor does one client see another by the same key.
        with bridge.peer("client", ALICE) as second:
            second.until_told(1)
            second.send(id, "hello")
            assert second.reply()["args"]["code"] == 404
        assert web.sees() == [id]
        assert not web.messages


def test_the_bridge_says_what_it_is_and_asks_who_comes(bridge: Bridge) -> None:
    with stranger(bridge) as peer:
        assert peer.ask("identify", {})["args"] == {"type": "bridge"}
        for namespace, name in (("rpc", "query"), ("events", "bridge"), ("rpc", "settings")):
            assert peer.ask(name, {}, namespace=namespace)["args"]["code"] == 401
        peer.send(WEB.public.fingerprint, "hello")
        assert peer.reply()["args"]["code"] == 401
        assert peer.log_in()["args"] == ["", 900]
        assert peer.ask("query", {})["args"]["code"] == 404
        assert peer.ask("auth_ssl", {})["args"]["code"] == 409


def test_a_proof_is_good_for_one_attempt_by_one_key_in_one_role(bridge: Bridge) -> None:
    unknown = PrivateKey.new()
    with stranger(bridge) as peer:
        assert (
            peer.ask("auth_ssl", {"signature": "AA==", "public_key": "x"})["args"]["code"]
            == 401
        )
        nonce = peer.ask("auth_ssl", "")["args"]["test_string"]
        assert peer.prove(nonce, unknown)["args"]["code"] == 401
        assert peer.prove(nonce)["args"]["code"] == 401
        peer.side = "server"
        assert peer.log_in()["args"]["code"] == 401
        peer.side = "client"
        peer.key = unknown
        assert peer.log_in()["args"]["code"] == 401
        assert closing(peer) == 4401


def test_a_proof_for_another_bridge_is_none_here(bridge: Bridge) -> None:
    with stranger(bridge) as peer:
        peer.pin = "A" * 43 + "="
        assert peer.log_in()["args"]["code"] == 401


def test_an_original_logs_in_and_its_proof_holds_up_nobody(tmp_path: Path) -> None:
    bridge = Bridge(tmp_path / "bridge", "[bridge]\nlegacy_key_login = true\n")
    bridge.let_in(ALICE, "client", "alice")
    wrong, own = RsaKey(tmp_path), RsaKey(tmp_path)
    public = parse_public(own.public)
    for number in range(registry.MOST_LEGACY - 1):
        # Nobody has the private ones.
        other = RSA.construct((secrets.randbits(2048) | 1 << 2047 | 1, 65537), False)
        key = parse_public(other.export_key("PEM"))
        registry.add(bridge.state_dir, key, "client", f"other {number}")
    registry.add(bridge.state_dir, public, "server", "original")

    def prove(peer: Peer, key: RsaKey) -> None:
        nonce = peer.ask("auth_ssl", "")["args"]["test_string"]
        peer.say("auth_ssl", {"encrypted_string": key.sign(nonce)})

    with bridge, contextlib.ExitStack() as stack:
        strangers = [stack.enter_context(stranger(bridge)) for _ in range(5)]
        alice = stack.enter_context(bridge.peer("client", ALICE))
        for peer in strangers:
            prove(peer, wrong)
        for _ in range(20):
            alice.sees()
        with pytest.raises(TimeoutError):
            strangers[-1].receive(0)
        # What is said behind a proof waits for its end.
        strangers[0].say("identify", {}, id="behind")
        for peer in strangers:
            assert peer.reply()["args"]["code"] == 401
        assert strangers[0].reply()["id"] == "behind"
        original = stack.enter_context(stranger(bridge, "server"))
        original.checksums = [ALICE.public.checksum]
        prove(original, own)
        assert original.reply()["args"] == ["", 900]
        original.until_told(1)
        assert alice.until_told(1) == [public.fingerprint]


def test_nobody_is_told_of_his_proof_who_is_gone_by_then(tmp_path: Path) -> None:
    own = RsaKey(tmp_path)
    public = parse_public(own.public)
    registry.add(tmp_path, public, "server", "original")
    keys, signature = registry.read(tmp_path).legacy, b64decode(own.sign("text"))
    there = {"first": True, "second": False, "third": True, "last": True}
    told: list[tuple[str, BridgeKey | None]] = []

    async def tried() -> None:
        proofs, end = LegacyProofs(), asyncio.Event()

        def then(name: str, key: BridgeKey | None) -> None:
            told.append((name, key))
            if name == "last":
                end.set()

        for name in there:
            text = "another" if name == "last" else "text"
            is_there = partial(there.__getitem__, name)
            proofs.add(Proof(keys, signature, text, is_there, partial(then, name)))
        # It was begun to be tried.
        there["first"] = False
        await end.wait()

    asyncio.run(tried())
    assert told == [("third", keys[0]), ("last", None)]


@pytest.mark.parametrize(
    "args",
    [
        {"signature": "!", "public_key": "x"},
        {"signature": "AA=="},
        {"signature": 7, "public_key": "AA=="},
        {"signature": "AA==", "public_key": "AA=="},
        {"signature": "A" * 5000, "public_key": "AA=="},
    ],
)
def test_what_is_no_proof_is_said_to_be_none(bridge: Bridge, args: object) -> None:
    with stranger(bridge) as peer:
        peer.ask("auth_ssl", "")
        assert peer.ask("auth_ssl", args)["args"]["code"] == 400


def test_a_client_can_not_claim_the_key_of_another(bridge: Bridge) -> None:
    with bridge.peer("server", WEB, [ALICE]) as web:
        with Peer(bridge.url, bridge.context, "client", BOB, [ALICE]) as bob:
            bob.log_in()
            assert bob.reply()["args"]["code"] == 403
            assert closing(bob) == 4403
        assert web.sees() == []


def test_a_key_is_of_the_side_that_it_was_registered_for(bridge: Bridge) -> None:
    with Peer(bridge.url, bridge.context, "server", ALICE) as peer:
        peer.receive()
        peer.side = "client"
        peer.say("auth_ssl", "")
        nonce = peer.reply()["args"]["test_string"]
        assert peer.prove(nonce)["args"]["code"] == 403
        assert closing(peer) == 4403


def test_who_is_revoked_is_gone_within_a_second(bridge: Bridge) -> None:
    with bridge.peer("server", WEB, [ALICE]) as web, bridge.peer("client", ALICE) as alice:
        web.until_told(1)
        done = sysadmd("bridge-key", "revoke", "alice", "--state-dir", str(bridge.state_dir))
        begun = time.monotonic()
        assert done.returncode == 0, done.stderr
        assert closing(alice) == 4401
        assert web.until_told(0) == []
        assert time.monotonic() - begun < 2
        with stranger(bridge) as again:
            assert again.log_in()["args"]["code"] == 401


def test_who_is_sent_away_and_stays_is_seen_and_reached_by_nobody(bridge: Bridge) -> None:
    with bridge.peer("server", WEB, [ALICE, BOB]) as web:

        def is_gone(id: str) -> None:
            begun = time.monotonic()
            assert web.until_told(0) == []
            assert time.monotonic() - begun < 2
            web.send(id, "hello")
            assert web.reply()["args"]["code"] == 404

        with DeafPeer(bridge, "client", ALICE) as alice:
            (id,) = web.until_told(1)
            registry.revoke(bridge.state_dir, "alice")
            is_gone(id)
            alice.send("rpc", "identify", {})
        with DeafPeer(bridge, "client", BOB) as bob:
            (id,) = web.until_told(1)
            bob.say(CHECKSUMS_ID, {"md5_keys": [ALICE.public.checksum]})
            is_gone(id)
        with DeafPeer(bridge, "client", BOB) as bob:
            (id,) = web.until_told(1)
            # By the connection itself: it is not one of ours.
            bob.socket.sendall(b"\x82\x80\0\0\0\0")
            assert bob.socket.recv(4096)
            web.send(id, "hello")
            assert web.reply()["args"]["code"] == 404
            is_gone(id)


def test_a_server_that_comes_again_takes_its_own_place(bridge: Bridge) -> None:
    with bridge.peer("client", ALICE) as alice, bridge.peer("server", WEB, [ALICE]) as old:
        alice.until_told(1)
        with bridge.peer("server", WEB, [ALICE]) as new:
            assert closing(old) == 4409
            (id,) = new.until_told(1)
            alice.send(WEB.public.fingerprint, "hello")
            assert new.message() == (id, "hello")


def test_a_peer_may_say_anew_what_it_accepts(bridge: Bridge) -> None:
    with bridge.peer("server", WEB, [BOB]) as web, bridge.peer("client", ALICE) as alice:
        assert alice.sees() == []
        keys = [ALICE.public.checksum, BOB.public.checksum]
        web.say("response", {"md5_keys": keys}, id=CHECKSUMS_ID)
        assert alice.until_told(1) == [WEB.public.fingerprint]
        web.say("response", {"md5_keys": []}, id=CHECKSUMS_ID)
        assert alice.until_told(0) == []


def test_who_says_anew_what_it_accepts_all_the_time_costs_little(bridge: Bridge) -> None:
    others = [
        [b64encode(secrets.token_bytes(16)).decode() for _ in range(1000)] for _ in range(2)
    ]
    with bridge.peer("server", WEB, [BOB]) as web, bridge.peer("client", ALICE) as alice:
        before = spent(bridge.pid)
        for number in range(400):
            web.say("response", {"md5_keys": others[number % 2]}, id=CHECKSUMS_ID)
        web.sees()
        # Each is read, which takes a millisecond; few are put in force.
        assert spent(bridge.pid) - before < 1.2
        last = [ALICE.public.checksum, *others[0]]
        web.say("response", {"md5_keys": last}, id=CHECKSUMS_ID)
        assert alice.until_told(1) == [WEB.public.fingerprint]
        for _ in range(400):
            web.say("response", {"md5_keys": last}, id=CHECKSUMS_ID)
        web.sees()
        assert alice.sees() == [WEB.public.fingerprint]
        assert len(alice.lists) == 1


@pytest.mark.parametrize(
    ("id", "args"),
    [
        (IDENT, {"type": "toaster"}),
        (IDENT, []),
        (CHECKSUMS_ID, {}),
        (CHECKSUMS_ID, {"md5_keys": "x"}),
        (CHECKSUMS_ID, {"md5_keys": ["x"]}),
        (CHECKSUMS_ID, {"md5_keys": [7]}),
        (CHECKSUMS_ID, {"md5_keys": ["A" * 24] * 1025}),
    ],
)
def test_an_answer_that_makes_no_sense_is_refused(
    bridge: Bridge, id: str, args: object
) -> None:
    with bridge.peer("client", ALICE) as peer:
        peer.say("response", args, id=id)
        assert peer.reply()["args"]["code"] == 400


def test_who_refuses_to_say_who_he_is_has_to_go(bridge: Bridge) -> None:
    with stranger(bridge) as peer:
        peer.say("error", {}, id=IDENT)
        assert closing(peer) == 4403


def test_who_does_not_read_costs_no_more_than_his_share(bridge: Bridge) -> None:
    with bridge.peer("client", ALICE) as alice, bridge.peer("server", WEB, [ALICE]) as web:
        (id,) = web.until_told(1)
        alice.until_told(1)
        # What does not read it reads nothing of: the sender is told, and goes on.
        payload = "x" * 100_000
        refused = False
        for _ in range(100 * OF_SENDER // len(payload)):
            web.send(id, payload)
            with contextlib.suppress(TimeoutError):
                error = web.receive(0.001)
                if error is not None:
                    assert (error["id"], error["args"]["code"]) == (id, 429)
                    refused = True
                    break
        assert refused
        frame = web.ask("bridge", {}, namespace="events")
        while frame["name"] == "error":
            frame = web.reply()
        assert frame["args"] == {"available_connections": [id]}


def test_who_floods_a_server_keeps_nobody_else_from_it(bridge: Bridge) -> None:
    with (
        DeafPeer(bridge, "server", WEB, [ALICE, BOB], receives=4096) as web,
        bridge.peer("client", ALICE) as alice,
        bridge.peer("client", BOB) as bob,
    ):
        destination = WEB.public.fingerprint
        alice.until_told(1)
        bob.until_told(1)
        while True:
            alice.send(destination, "x" * 20_000)
            with contextlib.suppress(TimeoutError):
                error = alice.receive(0.001) or {}
                assert (error["id"], error["args"]["code"]) == (destination, 429)
                break
        bob_sends = [f"{number} {'y' * 20_000}" for number in range(16)]
        for payload in bob_sends:
            bob.send(destination, payload)
        # None was refused.
        bob.sees()
        order: list[str] = []
        came: list[str] = []
        while len(came) < len(bob_sends):
            text = web.frame().decode()
            if not text.startswith("{"):
                order.append(text[-1])
                came += [text.partition("\n")[2]] if text[-1] == "y" else []
        assert came == bob_sends
        # In turn with the other, as soon as it was theirs.
        assert "".join(order).lstrip("x") == "yx" * 15 + "y"


def test_a_message_that_is_too_long_is_refused(bridge: Bridge) -> None:
    with bridge.peer("client", ALICE) as alice, bridge.peer("server", WEB, [ALICE]) as web:
        web.until_told(1)
        alice.until_told(1)
        alice.send(WEB.public.fingerprint, "x" * 600_000)
        error = alice.reply()
        assert error["args"]["code"] == 400
        assert error["id"] == WEB.public.fingerprint
        alice.socket.send("x" * 1_100_000)
        assert closing(alice) == 1009


def test_who_does_not_log_in_in_time_has_to_go(tmp_path: Path) -> None:
    bridge = Bridge(tmp_path / "bridge", "[bridge]\nlogin_timeout = 1\n")
    bridge.let_in(ALICE, "client", "alice")
    with bridge, stranger(bridge) as silent:
        assert closing(silent) == 4401
        with stranger(bridge) as half:
            half.ask("auth_ssl", "")
            assert closing(half) == 4401
        # Logged in, but it does not say what it accepts.
        with stranger(bridge) as mute:
            mute.log_in()
            with pytest.raises(ConnectionClosed):
                while True:
                    mute.socket.recv()


def test_the_registry_outlives_whoever_damages_it(bridge: Bridge) -> None:
    file = bridge.state_dir / registry.FILE
    good = file.read_text()
    with bridge.peer("client", ALICE) as alice:
        file.write_text("[{")
        wait_for(lambda: "the keys stay what they were" in bridge.log.read_text())
        assert alice.sees() == []
        file.write_text(good)
        wait_for(lambda: "4 keys are registered now" in bridge.log.read_text())
        assert alice.sees() == []


def test_the_bridge_outlives_a_disk_that_hangs(bridge: Bridge) -> None:
    file = bridge.state_dir / registry.FILE
    good = file.read_text()
    with bridge.peer("client", ALICE) as alice:
        file.unlink()
        os.mkfifo(file)
        wait_for(lambda: "no answer from the disk" in bridge.log.read_text())
        assert alice.sees() == []
        file.write_text(good)
        wait_for(lambda: "4 keys are registered now" in bridge.log.read_text())
        file.unlink()
        wait_for(lambda: "0 keys are registered now" in bridge.log.read_text())
        assert closing(alice) == 4401


@pytest.mark.parametrize("text", ["[{", "{}", "[7]", "[{}]", "é", "[" * 100_000])
def test_a_registry_that_makes_no_sense_is_read_once(tmp_path: Path, text: str) -> None:
    (tmp_path / registry.FILE).write_text(text)
    stamp, found = registry.look(tmp_path, None)
    assert isinstance(found, RegistryUnusable)
    assert registry.look(tmp_path, stamp) == (stamp, None)


def test_a_registry_that_can_not_be_read_is_tried_again(tmp_path: Path) -> None:
    (tmp_path / registry.FILE).mkdir()
    for _ in range(2):
        with pytest.raises(IsADirectoryError):
            registry.look(tmp_path, None)


def test_the_bridge_does_not_start_with_a_registry_that_makes_no_sense(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / registry.FILE).write_text("{}")
    done = sysadmd("bridge", "--state-dir", str(tmp_path / "state"), "--listen", "127.0.0.1:0")
    assert done.returncode == 1
    assert "is no list of keys" in done.stderr


def test_health_and_figures_are_plain_http(bridge: Bridge) -> None:
    assert bridge.fetch("/healthz") == (200, "ok\n")
    assert bridge.fetch("/nothing")[0] == 404


def test_the_registry_is_the_bridges_whoever_changes_it(tmp_path: Path) -> None:
    needs_root()
    directory = tmp_path / "state"
    directory.mkdir()
    os.chown(directory, 65534, 65534)
    registry.add(directory, ALICE.public, "client", "alice")
    assert {file.stat().st_uid for file in directory.iterdir()} == {65534}
