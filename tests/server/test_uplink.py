"""Servers that are reached over a bridge alone: like direct ones, whatever the bridge does."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from server.calls import PENDING
from sysadmd.client import Client, NotPermitted, Refused, Target, Unreachable, connect
from sysadmd.keys import PrivateKey, as_text
from sysadmd.sealed import Calling
from sysadmd.sealed_stream import as_payload
from tests.kit import DEADLINE, Daemon, wait_for
from tests.kit import Client as Plain
from tests.kit.bridge import Bridge, Peer
from tests.kit.bridged import Bridged
from tests.kit.ctl import Ctl, lines

SYSTEMS = ["dispatcher", "life-preserver", "system-state"]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Bridged]:
    with Bridged(tmp_path) as world:
        yield world


def asked(target: Target, namespace: str, name: str, args: object = None) -> Any:
    """The reply over a connection of its own."""

    async def ask() -> Any:
        async with connect(target) as client:
            return await client.request(namespace, name, args)

    return asyncio.run(ask())


def observer(world: Bridged, side: str, name: str, accepts: tuple[str, ...] = ()) -> Peer:
    keys = [world.key(client) for client in accepts]
    if side == "client":
        return world.bridge.peer("client", world.key(name), keys)
    return world.bridge.peer("server", world.key(name), keys)


def callers(admin: Plain) -> list[Any]:
    """Who has come over a bridge, is logged in, and is told events."""
    listed = admin.ask("rpc", "clients", {"action": "list"})["clients"]
    came = (one for one in listed if one["address"].startswith("bridge:"))
    return [one for one in came if one["systems"]]


def test_lists_are_right_after_whatever_happens_to_whom(world: Bridged) -> None:
    world.let_in("alice", "bob", "third")
    world.bridge.let_in(world.key("watch"), "server", "watch")
    with (
        observer(world, "client", "alice") as alice,
        observer(world, "client", "bob") as bob,
        observer(world, "client", "third") as third,
        observer(world, "server", "watch", ("alice", "bob")) as watch,
    ):
        own = [world.id("watch")]
        clients = set(watch.until_told(2))
        assert alice.until_told(1) == bob.until_told(1) == own
        # Alice's key is known to one server, Bob's to both.
        one = world.server("one", ["alice", "bob"])
        assert set(alice.until_told(2)) == set(bob.until_told(2)) == {*own, world.id("one")}
        two = world.server("two", ["bob"])
        assert set(bob.until_told(3)) == {*own, world.id("one"), world.id("two")}
        with (
            world.ctl("alice", "one").started("tail") as first,
            world.ctl("bob", "two").started("tail") as second,
        ):
            assert clients < set(watch.until_told(4))
            first.kill()
            assert len(watch.until_told(3)) == 3
            second.terminate()
            assert set(watch.until_told(2)) == clients
        one.kill()
        assert set(bob.until_told(2)) == {*own, world.id("two")}
        assert alice.until_told(1) == own
        one.start()
        assert set(alice.until_told(2)) == {*own, world.id("one")}
        two.stop()
        one.stop()
        assert alice.until_told(1) == bob.until_told(1) == own
        assert third.sees() == []
        assert third.lists == []


def test_all_come_back_when_the_bridge_was_killed(world: Bridged) -> None:
    world.let_in("alice")
    world.server("one", ["alice"])
    world.bridge.kill()
    world.bridge.start()
    world.until_there("one", 2)
    with observer(world, "client", "alice") as alice:
        assert alice.until_told(1) == [world.id("one")]
    assert asked(world.target("alice", "one"), "rpc", "identify")["type"] == "server"


def test_a_relayed_client_is_like_any_other(world: Bridged) -> None:
    world.let_in("alice")
    world.server("one", ["alice"])
    ctl = world.ctl("alice", "one")
    assert ctl("run", "echo", "over the bridge").stdout == "over the bridge\n"
    assert ctl("run", "sh", "-c", "exit 7").returncode == 7
    assert [job["state"] for job in lines(ctl("jobs", "--json", "--all"))] == ["finished"] * 2
    assert "host" in ctl("state").stdout
    events = lines(ctl("tail", "--json", "--since", "oldest", "--count", "6", "dispatcher"))
    assert len(events) == 6
    (server,) = lines(world.ctl("alice")("servers", "--json"))
    assert server["id"] == world.id("one")
    clients = asked(world.target("alice", "one"), "rpc", "clients", {"action": "list"})
    # Those of a moment ago may be there still.
    seen = {(one["address"], one["account"]) for one in clients["clients"]}
    assert seen == {(f"bridge:{world.key('alice').public.fingerprint}", "root")}


def test_a_tail_misses_nothing_whoever_is_killed(world: Bridged) -> None:
    world.let_in("alice")
    one = world.server("one", ["alice"])
    ctl = world.ctl("alice", "one")
    with ctl.started("tail", "--json", "--since", "oldest", "dispatcher") as tail:
        assert tail.stdout is not None

        def job(name: str) -> None:
            with one.local() as admin:
                args = {"action": "submit", "job": {"id": name, "commands": ["true"]}}
                admin.ask("rpc", "dispatcher", args)

        def until(name: str) -> list[str]:
            """What it has told, up to the end of this job."""
            told: list[str] = []
            assert tail.stdout is not None
            while True:
                line = tail.stdout.readline()
                args = json.loads(line)["args"]
                args = args.get("process_details", args)
                told.append(f"{args['process_id']} {args['state']}")
                if told[-1] == f"{name} finished":
                    return told

        def states(*names: str) -> list[str]:
            words = ("pending", "running", "finished")
            return [f"{name} {word}" for name in names for word in words]

        job("first")
        assert until("first") == states("first")
        world.bridge.kill()
        job("away")
        world.bridge.start()
        assert until("away") == states("away")
        one.kill()
        one.start()
        job("last")
        assert until("last") == states("last")


def test_who_is_revoked_at_the_server_is_gone_within_a_second(world: Bridged) -> None:
    world.let_in("alice")
    one = world.server("one", ["alice"])

    async def held() -> float:
        async with connect(world.target("alice", "one")) as client:
            # Logged in by something else now, over the channel of that key.
            await client.request("rpc", "auth_token", {"token": one.token})
            await asyncio.to_thread(world.revoke, "one", "alice")
            begun = time.monotonic()
            with pytest.raises(Unreachable):
                while True:
                    await client.request("rpc", "identify")
                    await asyncio.sleep(0.02)
            return time.monotonic() - begun

    assert asyncio.run(held()) < 1
    with pytest.raises(Unreachable):
        asked(world.target("alice", "one"), "rpc", "identify")


def test_wrong_passwords_block_the_key_that_they_came_by(world: Bridged) -> None:
    world.let_in("alice", "bob")
    world.server("one", ["alice", "bob"], "[auth]\nfailures = 2\n")

    async def guess(client: Client) -> int:
        with pytest.raises(Refused) as refused:
            await client.request("rpc", "auth", {"username": "root", "password": "x"})
        return refused.value.number

    async def guesses() -> None:
        async with connect(world.target("alice", "one")) as client:
            assert [await guess(client) for _ in range(3)] == [401, 401, 429]
        async with connect(world.target("bob", "one")) as client:
            assert await guess(client) == 401
        # A proof is what is counted, too.
        with pytest.raises(Refused):
            async with connect(world.target("alice", "one")):
                pass

    asyncio.run(guesses())


def test_the_original_form_of_a_proof_is_refused_over_a_bridge(world: Bridged) -> None:
    world.let_in("alice")
    world.server("one", ["alice"], "[auth]\nlegacy_key_login = true\n")

    async def attempt() -> None:
        async with connect(world.target("alice", "one")) as client:
            await client.request("rpc", "auth_ssl", "")
            with pytest.raises(NotPermitted, match="over a bridge"):
                await client.request("rpc", "auth_ssl", {"encrypted_string": "AA=="})

    asyncio.run(attempt())


def test_a_long_log_comes_whole_and_delays_nobody(world: Bridged) -> None:
    world.let_in("alice", "bob")
    world.server("one", ["alice", "bob"])
    ctl = world.ctl("alice", "one")
    command = "i=0; while [ $i -lt 60000 ]; do echo line $i of a long log; i=$((i+1)); done"
    assert ctl("run", "--id", "long", "--no-wait", "sh", "-c", command).returncode == 0
    whole = "".join(f"line {number} of a long log\n" for number in range(60000))
    assert ctl("log", "--follow", "long").stdout == whole

    async def slow() -> None:
        async with connect(world.target("alice", "one")) as stalled:
            args = {"systems": SYSTEMS, "since": "oldest"}
            await stalled.request("events", "subscribe", args)
            # It never reads on; another is served all the same.
            for _ in range(20):
                reply = await asyncio.to_thread(
                    asked, world.target("bob", "one"), "rpc", "identify"
                )
                assert reply["type"] == "server"

    asyncio.run(slow())


MEDDLERS = {
    "flips": "return payload[:20] + ('A' if payload[20] != 'A' else 'B') + payload[21:]",
    "cuts": "return payload[:-8]",
    "empties": "return ''",
    "garbles": "return '{\"\\x1b[31m\": 1}'",
    "repeats": "self.again = getattr(self, 'again', None) or payload; return self.again",
}


@pytest.mark.parametrize("after", [0, 1, 2, 3, 6])
@pytest.mark.parametrize("how", MEDDLERS)
def test_a_bridge_that_meddles_is_noticed(tmp_path: Path, how: str, after: int) -> None:
    """It does so with all messages but the first ones."""
    before = f"""
import server.bridge.switchboard as s
plain = s.Switchboard.relay
def meddle(self, payload):
    {MEDDLERS[how]}
def relay(self, sender, destination, payload):
    self.count = getattr(self, "count", 0) + 1
    plain(self, sender, destination, meddle(self, payload) if self.count > {after} else payload)
s.Switchboard.relay = relay
"""
    with Bridged(tmp_path, f"exec({before!r})") as world:
        world.let_in("alice")
        one = world.server("one", ["alice"])
        done = world.ctl("alice", "one")("run", "--id", "job", "touch", str(tmp_path / "ran"))
        assert done.returncode == 69, done.stderr
        assert "Traceback" not in done.stderr
        assert "\x1b" not in done.stderr
        assert not done.stdout
        assert not (tmp_path / "ran").exists()
        assert "Traceback" not in one.log.read_text()


def test_the_bridge_never_sees_an_event_a_token_or_a_command(tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    before = f"""
import server.bridge.peer as p
plain = p.BridgePeer.text
file = open({str(seen)!r}, "a", buffering=1)
def text(self, text):
    file.write(text + "\\n")
    plain(self, text)
p.BridgePeer.text = text
"""
    with Bridged(tmp_path, f"exec({before!r})") as world:
        world.let_in("alice")
        one = world.server("one", ["alice"])
        planted = "a-secret-command-line"

        async def use() -> str:
            async with connect(world.target("alice", "one")) as client:
                await client.request("rpc", "auth_token", {"token": one.token})
                reply = await client.request("events", "subscribe", {"systems": SYSTEMS})
                job = {"id": planted, "commands": [["echo", planted]]}
                args = {"action": "submit", "job": job}
                await client.request("rpc", "dispatcher", args)
                async for frame in client.frames():
                    if frame["args"].get("state") == "finished":
                        return str(reply["cursor"])
            raise AssertionError

        cursor = asyncio.run(use())
        files = [seen, world.bridge.log]
        files += [path for path in world.bridge.state_dir.rglob("*") if path.is_file()]
        text = b"".join(path.read_bytes() for path in files)
        assert b"list_ssl_checksums" not in seen.read_bytes()
        assert world.key("alice").public.fingerprint.encode() in text
        # In no encoding that somebody would think of.
        words = [planted, one.token, cursor, "dispatcher", "subscribe", "finished"]
        for word in words:
            raw = word.encode()
            for form in (raw, raw.hex().encode(), *base64_forms(raw)):
                assert form not in text, word


def base64_forms(word: bytes) -> list[bytes]:
    """What of a word stands in base64, wherever it begins."""
    return [base64.b64encode(b"x" * shift + word)[4 if shift else 0 : -4] for shift in range(3)]


@pytest.mark.parametrize("how", ["pin", "cafile", "closed port", "unregistered", "no bridge"])
def test_a_server_says_why_it_is_not_at_the_bridge(world: Bridged, how: str) -> None:
    text = world.settings("one")
    said = {
        "pin": "another key than the one that was pinned",
        "cafile": "has no certificates",
        "closed port": "not at the bridge",
        "unregistered": "not registered here",
        "no bridge": "not at the bridge",
    }[how]
    if how == "pin":
        text += f'pin = "{"A" * 43}="\n'
    elif how == "cafile":
        certificate = world.bridge.state_dir / "tls" / "certificate.pem"
        text = text.replace(str(certificate), "/dev/null")
    elif how == "closed port":
        text = text.replace(world.bridge.url, "wss://127.0.0.1:1")
    world.key("one")
    with contextlib.ExitStack() as stack:
        if how == "no bridge":
            other = stack.enter_context(Daemon(world.directory / "other"))
            text = text.replace(world.bridge.url, other.url)
            text = text.replace(str(world.bridge.state_dir), str(other.state_dir))
        one = stack.enter_context(Daemon(world.directory / "one", text))
        wait_for(lambda: said in one.log.read_text(), said)
        assert one.fetch("/healthz")[0] == 200


def test_a_reload_takes_a_server_to_another_bridge(world: Bridged, tmp_path: Path) -> None:
    world.let_in("alice")
    one = world.server("one", ["alice"])
    second = Bridge(tmp_path / "second")
    second.let_in(world.key("one"), "server", "one")
    with second, observer(world, "client", "alice") as alice:
        alice.until_told(1)
        certificate = second.state_dir / "tls" / "certificate.pem"
        one.config.write_text(
            f'[bridge_client]\nurl = "{second.url}"\ncafile = "{certificate}"\n'
            f'key = "{world.key_file("one")}"\n'
        )
        one.reload()
        assert alice.until_told(0) == []
        world.until_there("one", 2)
        one.config.write_text("")
        one.reload()
        wait_for(lambda: "'one' is gone" in second.log.read_text())


def test_the_daemon_stops_in_time_with_who_calls(world: Bridged) -> None:
    world.let_in("alice")
    one = world.server("one", ["alice"])
    with world.ctl("alice", "one").started("tail") as tail, one.local() as admin:
        wait_for(lambda: callers(admin))
        begun = time.monotonic()
        one.stop()
        assert time.monotonic() - begun < 5
        assert tail.poll() is None


@pytest.mark.parametrize("at", ["server", "bridge"])
def test_calls_that_are_cut_leave_nothing_behind(world: Bridged, at: str) -> None:
    world.let_in("alice")
    one = world.server("one", ["alice"])
    daemon = one if at == "server" else world.bridge

    def files() -> int:
        return len(list(Path(f"/proc/{daemon.pid}/fd").iterdir()))

    asked(world.target("alice", "one"), "rpc", "identify")
    wait_for(lambda: "'alice' is gone" in world.bridge.log.read_text())
    before = files()

    async def cut(seconds: float) -> None:
        with contextlib.suppress(TimeoutError, Unreachable):
            async with asyncio.timeout(seconds), connect(world.target("alice", "one")):
                await asyncio.sleep(DEADLINE)

    async def many() -> None:
        for number in range(40):
            await cut(0.01 * (number % 10 + 1))

    asyncio.run(many())
    wait_for(lambda: files() <= before, "files closed")


def test_a_client_without_a_key_or_server_is_told_so(world: Bridged) -> None:
    world.let_in("alice")
    ctl = world.ctl("alice")
    assert "name a server with --server" in ctl("tail").stderr
    assert ctl("tail").returncode == 2
    unknown = PrivateKey.new().public.fingerprint
    done = ctl("state", "--server", unknown)
    assert done.returncode == 69
    assert f"no server {unknown} is there for us" in done.stderr
    bare = type(ctl)(world.directory / "home", "--bridge", world.bridge.url, "--server", "x")
    done = bare("state")
    assert done.returncode == 2
    assert "--key" in done.stderr
    assert ctl("servers").stdout.split() == ["ID", "HOSTNAME"]


def test_who_calls_hears_at_once_that_his_call_is_over(world: Bridged) -> None:
    """The server was away for so short a time that no list has changed."""
    world.let_in("alice")
    one = world.server("one", ["alice"])
    with (
        world.ctl("alice", "one").started("tail", "--json", "dispatcher") as tail,
        one.local() as admin,
    ):
        wait_for(lambda: callers(admin))
        with world.bridge.stranger() as stranger:
            text = one.config.read_text() + f'pin = "{stranger.pin}"\n'
        one.config.write_text(text)
        one.reload()
        world.until_there("one", 2)
        begun = time.monotonic()
        wait_for(lambda: callers(admin))
        args = {"action": "submit", "job": {"id": "job", "commands": ["true"]}}
        admin.ask("rpc", "dispatcher", args)
        assert tail.stdout is not None
        assert json.loads(tail.stdout.readline())["args"]["process_id"] == "job"
        # Not as late as one who hears nothing for 40 s.
        assert time.monotonic() - begun < 30


def test_only_the_key_that_calls_logs_in(world: Bridged) -> None:
    world.let_in("alice")
    world.server("one", ["alice", "bob"])

    async def attempt() -> None:
        async with connect(world.target("alice", "one")) as client:
            said = await client.request("rpc", "auth_ssl", "")
            other = world.key("bob")
            signature = other.prove("client", client.pin, said["test_string"])
            args = {"public_key": as_text(other.public.pem), "signature": signature}
            with pytest.raises(Refused, match="the key that calls"):
                await client.request("rpc", "auth_ssl", args)

    asyncio.run(attempt())


def test_half_calls_keep_nobody_out(world: Bridged) -> None:
    world.let_in("alice", "bob", "carol")
    world.server("one", ["alice", "bob", "carol"])
    with contextlib.ExitStack() as stack:
        for number in range(PENDING + 8):
            name = "bob" if number % 2 else "carol"
            peer = stack.enter_context(observer(world, "client", name))
            hello = Calling(world.key(name), world.id("one")).hello
            peer.send(world.id("one"), as_payload(hello))
        assert asked(world.target("alice", "one"), "rpc", "identify")["type"] == "server"


def test_a_bridge_that_was_logged_in_to_is_asked_for_a_server(world: Bridged) -> None:
    world.let_in("alice")
    world.server("one", ["alice"])
    ctl = Ctl(world.directory)
    key = str(world.key_file("alice"))
    done = ctl("login", world.bridge.url, "--key", key, text="y\n")
    assert done.returncode == 0, done.stderr
    done = ctl("tail")
    assert (done.returncode, "--server" in done.stderr) == (2, True)
    assert world.id("one") in ctl("servers").stdout
    assert ctl("run", "echo", "hello", "--server", world.id("one")).returncode != 0
    assert ctl("--server", world.id("one"), "run", "echo", "hello").stdout == "hello\n"
    assert ctl("state", "--server", world.id("one"), "--state-dir", "/").returncode == 2
    assert ctl("logout").returncode == 0
    assert ctl("servers").returncode == 2
