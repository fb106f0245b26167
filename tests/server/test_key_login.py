"""Login by registered keys: who gets in, who does not, and how it ends."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from server.login import keys, tokens
from sysadmd.journal import Transaction
from sysadmd.keys import PrivateKey, as_text
from tests.kit import QUIET, Client, Daemon, wait_for
from tests.kit.accounts import PASSWORD, account, delete, group, leave, pam_service
from tests.kit.rsa_keys import RsaKey
from tests.kit.state_file import tables

SERVICE = "sysadmd-keys"
WHEEL, OPERATORS = "sysadmd-keys-w", "sysadmd-keys-o"
AUTH = (
    f'[auth]\npam_service = "{SERVICE}"\nfull = ["root", "@{WHEEL}"]\n'
    f'limited = ["@{OPERATORS}"]\nfailures = 3\n'
)
LEGACY = AUTH + "legacy_key_login = true\n"
RULES = "auth required pam_unix.so\naccount required pam_unix.so\n"


@pytest.fixture(scope="module")
def service() -> Iterator[None]:
    with pam_service(SERVICE, RULES), group(WHEEL), group(OPERATORS):
        yield


@pytest.fixture
def admin(service: None) -> Iterator[str]:
    with account("sysadmd-keys-a", also=WHEEL) as name:
        yield name


@pytest.fixture
def operator(service: None) -> Iterator[str]:
    with account("sysadmd-keys-b", also=OPERATORS) as name:
        yield name


@pytest.fixture
def daemon(tmp_path: Path, service: None) -> Iterator[Daemon]:
    with Daemon(tmp_path / "state", QUIET + AUTH) as daemon:
        yield daemon


def log_in(client: Client, name: str) -> str:
    return str(client.ask("rpc", "auth", {"username": name, "password": PASSWORD})[0])


def register(client: Client, key: PrivateKey | RsaKey, **more: str) -> Any:
    text = key.text if isinstance(key, RsaKey) else as_text(key.public.pem)
    args = {"action": "register_ssl_cert", "pub_key": text, **more}
    return client.ask("rpc", "settings", args)


def step(client: Client, args: object) -> tuple[int, Any]:
    """The code and the args of an answer; 200: it is none of an error."""
    frame = client.ask_raw("rpc", "auth_ssl", args)
    code = int(frame["args"]["code"]) if frame["name"] == "error" else 200
    return code, frame["args"]


def challenge(client: Client) -> str:
    code, args = step(client, "")
    assert code == 200 and args.keys() == {"test_string"}
    return str(args["test_string"])


def by_key(client: Client, key: PrivateKey, pin: str | None = None) -> tuple[int, Any]:
    text = challenge(client)
    proof = key.prove("client", client.pin if pin is None else pin, text)
    args = {"signature": proof, "public_key": as_text(key.public.pem)}
    return step(client, args)


def by_rsa(client: Client, key: RsaKey) -> tuple[int, Any]:
    return step(client, {"encrypted_string": key.sign(challenge(client))})


def may(client: Client) -> str:
    return str(client.ask("rpc", "query")["rpc/dispatcher"])


def closed_for(client: Client) -> str:
    with pytest.raises(ConnectionClosed) as closed:
        while True:
            client.receive()
    assert closed.value.rcvd is not None
    return f"{closed.value.rcvd.code} {closed.value.rcvd.reason}"


def test_a_registered_key_logs_in_as_its_account(daemon: Daemon, admin: str) -> None:
    key = PrivateKey.new()
    with daemon.stranger() as client:
        assert by_key(client, key)[0] == 401
        log_in(client, admin)
        assert register(client, key, nickname="work", email="a@example.org") == {}
        # Again, by another nickname: no second one.
        assert register(client, key, nickname="home") == {}
    with daemon.stranger() as client:
        code, (token, seconds) = by_key(client, key)
        assert (code, seconds) == (200, 900)
        assert may(client) == "read/write"
        (listed,) = client.ask("rpc", "settings", {"action": "list_keys"})["keys"]
        assert (listed["account"], listed["nickname"], listed["kind"]) == (
            *(admin, "home", "ed25519"),
        )
        assert listed["used"] is not None
        client.ask_raw("rpc", "auth_token", {"token": token})
        trail = "\n".join(client.trail())
        assert f"logged in by key {key.public.fingerprint} 'home' as full" in trail
        assert f"key register {key.public.fingerprint} 'work' for {admin}" in trail


def test_a_proof_is_good_for_one_attempt_at_one_server(daemon: Daemon, admin: str) -> None:
    key = PrivateKey.new()
    with daemon.stranger() as client:
        log_in(client, admin)
        register(client, key)
    with daemon.stranger() as client, daemon.stranger() as other:
        text = challenge(client)
        args = {
            "signature": key.prove("client", client.pin, text),
            "public_key": as_text(key.public.pem),
        }
        # Of another connection, and of none; neither is a guess.
        assert step(other, args)[0] == 401
        challenge(other)
        assert step(other, args)[0] == 401
        assert step(client, args)[0] == 200
        assert step(client, args)[0] == 401
        # What was signed for another server, or as a server.
        for _ in range(2):
            assert by_key(client, key, pin="another")[0] == 401
        text = challenge(client)
        wrong = key.prove("server", client.pin, text)
        assert step(client, {**args, "signature": wrong})[0] == 401
        # A right one forgives those before it; the third behind it blocks the address.
        assert step(client, "")[0] == 429
        client.ask("rpc", "auth_token", {"token": daemon.token})
        client.ask("rpc", "clients", {"action": "unblock", "address": "127.0.0.1"})
        assert by_key(client, key)[0] == 200


def test_a_key_follows_the_role_and_lets_nobody_in_without_one(
    daemon: Daemon, admin: str
) -> None:
    key = PrivateKey.new()
    with daemon.stranger() as client:
        log_in(client, admin)
        register(client, key)
    with daemon.stranger() as client:
        assert by_key(client, key)[0] == 200
        # A mistake in the configuration: who is in is out, and who was in has lost nothing.
        daemon.config.write_text(QUIET + AUTH.replace(f"@{WHEEL}", "@sysadmd-none"))
        daemon.reload()
        assert closed_for(client).startswith("4401 ")
    with daemon.stranger() as client:
        assert by_key(client, key)[0] == 401
    daemon.config.write_text(QUIET + AUTH.replace(f"@{OPERATORS}", f"@{WHEEL}", 1))
    daemon.reload()
    with daemon.stranger() as client:
        assert by_key(client, key)[0] == 200
    leave(admin, WHEEL)
    with daemon.stranger() as client:
        assert by_key(client, key)[0] == 401
    with daemon.client() as client:
        (kept,) = client.ask("rpc", "settings", {"action": "list_keys"})["keys"]
        assert kept["fingerprint"] == key.public.fingerprint
        assert any("access ended" in line for line in client.trail())


def test_a_key_without_an_account_is_forgotten_in_time(tmp_path: Path) -> None:
    key, other = PrivateKey.new().public, PrivateKey.new().public
    now = time.time()

    def fill(change: Transaction) -> None:
        keys.register(change, key, "gone", 1, "", "")
        keys.register(change, other, "back", 2, "", "")
        keys.lose(change, "gone")
        keys.lose(change, "back")
        keys.regain(change, "back")

    change = Transaction(tables(tokens.SCHEMA, keys.SCHEMA))
    fill(change)
    assert keys.lost(change.db, "gone") is True
    assert keys.lost(change.db, "back") is False
    assert keys.lost(change.db, "other") is None
    assert keys.tidy(change, now + keys.KEPT - 60) == []
    assert [gone.account for gone in keys.tidy(change, now + keys.KEPT + 60)] == ["gone"]
    assert [left.account for left in keys.listed(change.db)] == ["back"]
    # A clock that was wrong then makes nothing older.
    for wrong in (0, round(now * 1000) + 10**12):
        change.db.execute("UPDATE keys SET lost = ?", (wrong,))
        assert keys.tidy(change, now + 60) == []
        assert keys.tidy(change, now + keys.KEPT) == []
    assert [gone.account for gone in keys.tidy(change, now + keys.KEPT + 120)] == ["back"]


def test_another_account_of_the_same_name_is_not_it(daemon: Daemon, admin: str) -> None:
    key = PrivateKey.new()
    with daemon.stranger() as client:
        log_in(client, admin)
        register(client, key)
    delete(admin)
    with (
        account("sysadmd-keys-c", also=WHEEL),
        account(admin, also=WHEEL),
        daemon.stranger() as client,
    ):
        assert by_key(client, key)[0] == 401


def test_many_that_come_back_at_once_all_come_in(tmp_path: Path, admin: str) -> None:
    key, rsa = PrivateKey.new(), RsaKey(tmp_path)
    with Daemon(tmp_path / "state", QUIET + LEGACY) as daemon:
        with daemon.stranger() as client:
            log_in(client, admin)
            register(client, key)
            register(client, rsa)

        def come(number: int) -> int:
            with daemon.stranger() as client:
                return (by_rsa(client, rsa) if number % 2 else by_key(client, key))[0]

        # More than may fail from an address.
        with ThreadPoolExecutor(12) as pool:
            assert list(pool.map(come, range(12))) == [200] * 12


def test_a_key_that_is_revoked_ends_its_connections_and_tokens(
    daemon: Daemon, admin: str
) -> None:
    key, other = PrivateKey.new(), PrivateKey.new()
    with daemon.stranger() as client, daemon.stranger() as kept:
        log_in(client, admin)
        register(client, key)
        register(client, other)
        assert by_key(kept, other)[0] == 200
        with daemon.stranger() as first, daemon.stranger() as second:
            token = by_key(first, key)[1][0]
            second.ask("rpc", "auth_token", {"token": token})
            args = {"action": "revoke_ssl_cert", "pub_key": as_text(key.public.pem)}
            assert client.ask("rpc", "settings", args) == {}
            assert closed_for(first) == closed_for(second) == "4401 the key was revoked"
        with daemon.stranger() as first:
            assert by_key(first, key)[0] == 401
            assert first.ask_raw("rpc", "auth_token", {"token": token})["args"]["code"] == 401
        # Who registered it has come by a password, and the other key is another one.
        assert may(client) == may(kept) == "read/write"
        # Who revokes his own hears that it is done.
        args = {"action": "revoke_ssl_cert", "fingerprint": other.public.fingerprint}
        assert kept.ask("rpc", "settings", args) == {}
        assert closed_for(kept) == "4401 the key was revoked"


def test_keys_outlive_the_daemon(tmp_path: Path, admin: str) -> None:
    key = PrivateKey.new()
    with Daemon(tmp_path / "state", QUIET + AUTH) as daemon:
        with daemon.stranger() as client:
            log_in(client, admin)
            register(client, key)
        daemon.kill()
    with Daemon(tmp_path / "state", QUIET + AUTH) as daemon, daemon.stranger() as client:
        assert by_key(client, key)[0] == 200


def test_who_may_do_what_to_whose_keys(daemon: Daemon, admin: str, operator: str) -> None:
    key, other = PrivateKey.new(), PrivateKey.new()
    text = as_text(key.public.pem)
    with daemon.stranger() as boss, daemon.stranger() as client, daemon.client() as root:
        log_in(boss, admin)
        log_in(client, operator)
        register(client, key, nickname="phone")
        register(boss, other)
        ask = {"action": "list_ssl_certs"}
        mine = client.ask("rpc", "settings", ask)
        assert mine.keys() == {operator} and mine[operator].keys() == {text}
        assert "Nickname: phone\n" in mine[operator][text]
        assert boss.ask("rpc", "settings", ask).keys() == {admin, operator}
        sums = {"action": "list_ssl_checksums"}
        assert client.ask("rpc", "settings", sums) == {"md5_keys": [key.public.checksum]}
        assert len(boss.ask("rpc", "settings", sums)["md5_keys"]) == 2
        # Of others neither to be told of, nor revoked, nor made.
        for args in (
            {"action": "revoke_ssl_cert", "pub_key": as_text(other.public.pem)},
            {"action": "revoke_ssl_cert", "fingerprint": "none"},
            {"action": "register_ssl_cert", "pub_key": text, "user": admin},
        ):
            assert client.ask_raw("rpc", "settings", args)["args"]["code"] == 403
        # A token is no account, be its name one.
        add = {"action": "add", "name": operator, "role": "limited"}
        token = root.ask("rpc", "tokens", add)["token"]
        with daemon.stranger() as named:
            named.ask("rpc", "auth_token", {"token": token})
            assert named.ask("rpc", "settings", ask) == {}
            args = {
                "action": "register_ssl_cert",
                "pub_key": as_text(PrivateKey.new().public.pem),
            }
            assert named.ask_raw("rpc", "settings", args)["args"]["code"] == 403
        # The same key for two accounts, and one for none.
        spare = as_text(PrivateKey.new().public.pem)
        args = {"action": "register_ssl_cert", "pub_key": text}
        assert boss.ask_raw("rpc", "settings", args)["args"]["code"] == 409
        for user, code in (("nobody", 409), ("sysadmd-none", 404)):
            args = {"action": "register_ssl_cert", "pub_key": spare, "user": user}
            assert boss.ask_raw("rpc", "settings", args)["args"]["code"] == code
        # Another's by who may: then it is his.
        third = PrivateKey.new()
        register(root, third, user=operator)
        with daemon.stranger() as phone:
            assert by_key(phone, third)[0] == 200
            assert phone.ask("rpc", "query")["rpc/settings"] == "read/write"
            assert may(phone) == "read"
        gone = {"action": "revoke_ssl_cert", "pub_key": text, "user": admin}
        assert boss.ask_raw("rpc", "settings", gone)["args"]["code"] == 404
        boss.ask("rpc", "settings", {**gone, "user": operator})
        assert boss.ask_raw("rpc", "settings", gone)["args"]["code"] == 404


def test_bad_requests_are_told_what_is_wrong(daemon: Daemon) -> None:
    with daemon.client() as client:
        wrong: list[tuple[dict[str, object], str]] = [
            ({"action": "register_ssl_cert"}, "args.pub_key must be the base64"),
            ({"action": "register_ssl_cert", "pub_key": "*"}, "args.pub_key: it is no base64"),
            ({"action": "register_ssl_cert", "pub_key": ["a"]}, "args.pub_key must be"),
            ({"action": "nonsense"}, "rpc/settings knows the actions register_ssl_cert"),
        ]
        for args, said in wrong:
            detail = client.ask_raw("rpc", "settings", args)["args"]["detail"]
            assert detail.startswith(said)
        text = as_text(PrivateKey.new().public.pem)
        labels: list[dict[str, object]] = [
            {"nickname": "\x1b"},
            {"email": 7},
            {"user": "x" * 200},
        ]
        for more in labels:
            args = {"action": "register_ssl_cert", "pub_key": text, **more}
            frame = client.ask_raw("rpc", "settings", args)
            assert frame["args"]["detail"].endswith("of at most 64 characters")
    with daemon.stranger() as client:
        proofs: list[object] = [
            *(7, [], {"signature": "a"}, {"signature": "*", "public_key": text}),
            *({"signature": 7, "public_key": text}, {"signature": "", "public_key": text}),
            {"signature": "AAAA"},
        ]
        for proof in proofs:
            challenge(client)
            assert step(client, proof)[0] == 400
        # None of these was a guess.
        for _ in range(5):
            assert step(client, {"encrypted_string": "AAAA"})[0] == 401
        assert len(challenge(client)) == 43
        assert client.ask_raw("rpc", "settings", {"action": "list_keys"})["args"]["code"] == 401


def test_the_original_s_keys_log_in_only_where_that_is_allowed(
    tmp_path: Path, admin: str
) -> None:
    key, stranger = RsaKey(tmp_path), RsaKey(tmp_path)
    with Daemon(tmp_path / "state", QUIET + LEGACY) as daemon, daemon.local() as root:
        with daemon.stranger() as client:
            log_in(client, admin)
            register(client, PrivateKey.new())
            register(client, key, nickname="desk")
        with daemon.stranger() as client:
            # It is not said which of the keys it is.
            assert by_rsa(client, key)[0] == 200
            assert may(client) == "read/write"
            assert by_rsa(client, key)[0] == 200
            used = [
                line
                for line in client.trail()
                if "by legacy key " in line and " 'desk' as full" in line
            ]
            assert len(used) == 2
            for _ in range(3):
                assert by_rsa(client, stranger)[0] == 401
            assert step(client, "")[0] == 429
        blocked = "too many failed logins; passwords and keys are refused"
        wait_for(lambda: blocked in daemon.log.read_text())
        # Who came by it is out, and his token, when it is not allowed any more.
        root.ask("rpc", "clients", {"action": "unblock", "address": "127.0.0.1"})
        with daemon.stranger() as client:
            token = by_rsa(client, key)[1][0]
            daemon.config.write_text(QUIET + AUTH)
            daemon.reload()
            assert closed_for(client) == "4401 auth.legacy_key_login is off"
        with daemon.stranger() as client:
            assert client.ask_raw("rpc", "auth_token", {"token": token})["args"]["code"] == 401
        assert root.ask("rpc", "settings", {"action": "list_keys"})["keys"]
    with Daemon(tmp_path / "state", QUIET + AUTH) as daemon, daemon.stranger() as client:
        for _ in range(5):
            code, args = by_rsa(client, key)
            assert code == 401 and "set auth.legacy_key_login" in args["detail"]
        # An RSA key can't be used in the form of the others.
        text = challenge(client)
        proof = {"signature": key.sign(text), "public_key": key.text}
        assert step(client, proof)[0] == 401


def test_so_many_keys_and_no_more(daemon: Daemon, operator: str) -> None:
    with daemon.stranger() as client:
        log_in(client, operator)
        for _ in range(32):
            register(client, PrivateKey.new())
        args = {"action": "register_ssl_cert", "pub_key": as_text(PrivateKey.new().public.pem)}
        frame = client.ask_raw("rpc", "settings", args)
        assert frame["args"]["code"] == 409 and "revoke some" in frame["args"]["detail"]
        first = client.ask("rpc", "settings", {"action": "list_keys", "limit": 30})
        rest = {"action": "list_keys", "after": first["next"]}
        assert len(client.ask("rpc", "settings", rest)["keys"]) == 2


def test_an_account_that_is_deleted_keeps_its_keys_and_nobody_gets_in(
    daemon: Daemon, admin: str
) -> None:
    key = PrivateKey.new()
    with daemon.stranger() as client:
        log_in(client, admin)
        register(client, key)
    delete(admin)
    with daemon.stranger() as client:
        # As is one whose directory is away.
        assert by_key(client, key)[0] == 503
    with daemon.client() as client:
        assert len(client.ask("rpc", "settings", {"action": "list_keys"})["keys"]) == 1


# For want of a thread a call can't be begun.
NO_THREAD = (
    "from server.login import accounts; accounts.apart ="
    " lambda *_: (_ for _ in ()).throw(RuntimeError('there is no thread'))"
)


def test_without_a_thread_it_is_to_be_tried_again(tmp_path: Path) -> None:
    key = PrivateKey.new()
    with Daemon(tmp_path / "state", QUIET, before=NO_THREAD) as daemon:
        with daemon.client() as client:
            args = {"action": "register_ssl_cert", "pub_key": as_text(key.public.pem)}
            error = client.ask_raw("rpc", "settings", args)["args"]
            assert error["code"] == 429 and "there is no thread" in error["detail"]
        with daemon.stranger() as client:
            for _ in range(6):
                assert by_key(client, key)[0] == 429
