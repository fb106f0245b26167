"""What an account that may log in can do to others: nothing but to itself."""

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from server.wire.limits import OUTPUT_HIGH
from server.wire.protocol import FRAME_LIMIT
from tests.kit import DEADLINE, QUIET, Client, Daemon, RawClient, wait_for
from tests.kit.figures import resident
from tests.kit.state_file import state_file


@pytest.fixture
def reader(daemon: Daemon) -> str:
    """A token of the role `read`."""
    with daemon.client() as admin:
        add = {"action": "add", "name": "reader", "role": "read"}
        return str(admin.ask("rpc", "tokens", add)["token"])


def with_token(daemon: Daemon, token: str) -> RawClient:
    client = RawClient(daemon.state_dir, receives=4096)
    client.send("rpc", "auth_token", {"token": token})
    assert b'"response"' in client.frame()
    return client


def add_big_jobs(admin: Client) -> None:
    """Half a MiB of jobs that wait."""
    admin.ask("rpc", "dispatcher", {"action": "pause", "queue": "pkg_queue"})
    for number in range(8):
        job = {"id": f"big {number}", "queue": "pkg_queue"}
        commands = ["true " + "x" * 60_000]
        submit = {"action": "submit", "job": {**job, "commands": commands}}
        admin.ask("rpc", "dispatcher", submit)


def test_one_account_never_takes_all_places(tmp_path: Path) -> None:
    config = f"{QUIET}\n[server]\nmax_clients = 20\n"
    with Daemon(tmp_path / "state", config) as daemon, contextlib.ExitStack() as stack:
        admin = stack.enter_context(daemon.client())
        tokens = [
            admin.ask("rpc", "tokens", {"action": "add", "name": name, "role": "read"})["token"]
            for name in ("greedy", "other")
        ]
        had: list[int] = []
        for token in tokens:
            had.append(0)
            while True:
                client = stack.enter_context(daemon.stranger())
                answer = client.ask_raw("rpc", "auth_token", {"token": token})
                if answer["name"] == "error":
                    assert answer["args"]["code"] == 429
                    assert "other accounts" in answer["args"]["detail"]
                    break
                had[-1] += 1
        assert had == [9, 5]
        for _ in range(5):
            stack.enter_context(daemon.client())
        assert admin.ask("rpc", "identify")


def ask_much_and_read_nothing(client: RawClient, asked: Mapping[str, object]) -> None:
    text = json.dumps(asked).encode()
    client.socket.settimeout(1)
    with contextlib.suppress(OSError):
        for _ in range(30):
            client.send_text(text)


LIST = {"namespace": "rpc", "name": "dispatcher", "args": {"action": "list"}}
WHOLE = {"systems": ["dispatcher"], "snapshot": True}
SNAPSHOT = {"namespace": "events", "name": "subscribe", "args": WHOLE}
# What an account may hold here, instead of much more; bytes.
SMALL = 2 * 1024 * 1024


@pytest.fixture
def sparing(tmp_path: Path) -> Iterator[Daemon]:
    """A daemon that is."""
    before = f"import server.sessions; server.sessions.SHARE = {SMALL}"
    with Daemon(tmp_path / "state", QUIET, before=before) as daemon:
        yield daemon


def held(admin: Client) -> int:
    """Bytes that wait for clients."""
    listed = admin.ask("rpc", "clients", {"action": "list"})["clients"]
    return sum(one["buffered"] for one in listed)


def reader_of(admin: Client) -> str:
    """A token that may read."""
    add = {"action": "add", "name": "reader", "role": "read"}
    return str(admin.ask("rpc", "tokens", add)["token"])


@pytest.mark.parametrize("asked", [LIST, SNAPSHOT])
def test_what_waits_for_one_account_is_bounded(
    sparing: Daemon, asked: Mapping[str, object]
) -> None:
    with sparing.client() as admin, contextlib.ExitStack() as stack:
        add_big_jobs(admin)
        token = reader_of(admin)
        clients = [with_token(sparing, token) for _ in range(40)]
        for client in clients:
            stack.callback(client.close)
            ask_much_and_read_nothing(client, asked)

        wait_for(lambda: held(admin) >= SMALL, "them to hold as much as they may")
        for _ in range(20):
            # Others have theirs at once, and a snapshot.
            admin.ask("rpc", "dispatcher", {"action": "list"})
            with sparing.client() as other:
                other.ask("events", "subscribe", WHOLE)
            # Beside it what was being read just then.
            assert held(admin) < SMALL + 8 * FRAME_LIMIT
        stack.close()
        # And so has the account itself, when nothing of it waits any more.
        again = with_token(sparing, token)
        again.send("rpc", "dispatcher", {"action": "list"})
        assert b"big 0" in again.frame()
        again.close()


def test_what_one_account_leaves_half_said_is_bounded(sparing: Daemon) -> None:
    with sparing.client() as admin, contextlib.ExitStack() as stack:
        token = reader_of(admin)
        size = resident(sparing.pid)
        # Of a message of 1 MiB all but the end.
        half = b"\x81\xff" + (1024 * 1024).to_bytes(8, "big") + b"\0\0\0\0" + b"x" * 1_000_000
        for _ in range(40):
            client = with_token(sparing, token)
            stack.callback(client.close)
            with contextlib.suppress(OSError):
                client.socket.sendall(half)

        def there() -> int:
            listed = admin.ask("rpc", "clients", {"action": "list"})["clients"]
            return sum(one["account"] == "reader" for one in listed)

        # One more than fit has to go.
        wait_for(lambda: there() <= 3, "most of them to be sent away")
        assert resident(sparing.pid) - size < 20


def test_long_requests_of_one_account_that_wait_are_bounded(sparing: Daemon) -> None:
    with sparing.client() as admin, contextlib.ExitStack() as stack:
        token = reader_of(admin)

        def reader() -> RawClient:
            client = with_token(sparing, token)
            stack.callback(client.close)
            return client

        slow, clients = [reader() for _ in range(4)], [reader() for _ in range(40)]
        more = {"more": "x" * (SMALL // 20)}
        for client in slow:
            # Refused after 3 s; all others wait for it.
            client.send("rpc", "auth", {"username": "nobody at all", "password": "x", **more})
        for client in clients:
            client.send("rpc", "identify", more)
            # Not all at once, or what is half said would fill the share.
            admin.ask("rpc", "identify")
        told = 0
        for client in clients:
            with contextlib.suppress(ConnectionError):
                told += b"hostname" in client.frame()
        assert 10 <= told <= 20


def test_a_client_that_reads_gets_what_its_share_held_back(daemon: Daemon, reader: str) -> None:
    with daemon.client() as admin:
        add_big_jobs(admin)
    clients = [with_token(daemon, reader) for _ in range(100)]
    for client in clients:
        for _ in range(3):
            client.send("rpc", "dispatcher", {"action": "list"})
    for client in clients:
        client.socket.settimeout(DEADLINE)
        for _ in range(3):
            assert b"big 7" in client.frame()
    for client in clients:
        client.close()


def test_nothing_of_a_revoked_token_begins_however_long_it_waited(daemon: Daemon) -> None:
    with daemon.client() as admin:
        add_big_jobs(admin)
        add = {"action": "add", "name": "evil", "role": "full"}
        client = with_token(daemon, admin.ask("rpc", "tokens", add)["token"])
        ask_much_and_read_nothing(client, LIST)
        wait_for(lambda: held(admin) > OUTPUT_HIGH, "much to wait for it")
        submit = {"action": "submit", "job": {"id": "late", "commands": ["true"]}}
        with contextlib.suppress(OSError):
            for _ in range(20):
                client.send("rpc", "dispatcher", submit)
        admin.ask("rpc", "tokens", {"action": "revoke", "name": "evil"})

        def accounts() -> list[str | None]:
            listed = admin.ask("rpc", "clients", {"action": "list"})["clients"]
            return [one["account"] for one in listed]

        assert "evil" not in accounts()
        wait_for(lambda: accounts() == ["root"], "its connection to be gone")
        with pytest.raises(AssertionError, match="no job"):
            admin.ask("rpc", "dispatcher", {"action": "show", "job_id": "late"})
        client.close()


def test_a_token_that_is_being_revoked_begins_nothing_more(daemon: Daemon) -> None:
    with daemon.client() as admin, contextlib.ExitStack() as stack:
        add = {"action": "add", "name": "evil", "role": "full"}
        client = with_token(daemon, admin.ask("rpc", "tokens", add)["token"])
        stack.callback(client.close)
        with state_file(daemon.state_dir) as other:
            # Nothing can be written down meanwhile.
            other.execute("BEGIN IMMEDIATE")
            args = {"action": "revoke", "name": "evil"}
            revoke = {"namespace": "rpc", "name": "tokens", "id": "revoke", "args": args}
            submit = {"action": "submit", "job": {"id": "late", "commands": ["true"]}}
            admin.socket.send(json.dumps(revoke))
            admin.ask("rpc", "identify")
            client.send("rpc", "dispatcher", submit)
            client.send("rpc", "identify", {})
            # A goodbye, and no text.
            assert client.socket.recv(1) == b"\x88"
        assert admin.receive()["args"] == {"revoked": "evil"}
        with pytest.raises(AssertionError, match="no job"):
            admin.ask("rpc", "dispatcher", {"action": "show", "job_id": "late"})


def test_subscribing_again_and_again_costs_no_more_than_once(
    daemon: Daemon, reader: str
) -> None:
    with daemon.client() as admin:
        add_big_jobs(admin)
        client = with_token(daemon, reader)
        size = resident(daemon.pid)
        asked = json.dumps({**SNAPSHOT, "id": "again"}).encode()
        sent = told = 0
        # Some are always under way, and of the snapshots nearly none is taken to its end.
        while told < 300:
            while sent < told + 40:
                client.send_text(asked)
                sent += 1
            told += json.loads(client.frame())["id"] == "again"
        assert resident(daemon.pid) - size < 20
        client.close()
        assert admin.ask("rpc", "identify")


def test_nothing_is_kept_of_a_long_reply_that_was_taken(tmp_path: Path) -> None:
    # What is held, and not what the allocator keeps for the next time.
    env = {"MALLOC_MMAP_THRESHOLD_": str(32 * 1024)}
    with Daemon(tmp_path / "state", QUIET, env=env) as daemon, contextlib.ExitStack() as stack:
        with daemon.client() as admin:
            add_big_jobs(admin)
        clients = [RawClient(daemon.state_dir).log_in() for _ in range(80)]
        for client in clients:
            stack.callback(client.close)
        size = resident(daemon.pid)
        for client in clients:
            client.ask("rpc", "dispatcher", {"action": "list"})
        assert resident(daemon.pid) - size < 20


def test_those_of_an_account_that_take_nothing_keep_no_news_from_those_that_do(
    sparing: Daemon,
) -> None:
    with sparing.client() as admin, contextlib.ExitStack() as stack:
        add_big_jobs(admin)
        token = reader_of(admin)
        good = stack.enter_context(sparing.stranger())
        good.ask("rpc", "auth_token", {"token": token})
        good.ask("events", "subscribe", "dispatcher")
        for _ in range(20):
            client = with_token(sparing, token)
            stack.callback(client.close)
            ask_much_and_read_nothing(client, LIST)
        wait_for(lambda: held(admin) >= SMALL, "them to hold as much as they may")
        admin.ask("rpc", "dispatcher", {"action": "run", "news": "true"})
        good.until(lambda frame: frame["args"]["state"] == "finished")
        # It did not have to wait for them to be sent away.
        assert held(admin) >= SMALL
