"""Login by key, from the client's side: files, the registry, profiles, what ends it."""

import contextlib
import itertools
import json
import os
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.server import ServerConnection, serve

from sysadmd.key_file import read_key
from sysadmd.keys import as_text
from sysadmd.pins import file_pin
from tests.kit import DEADLINE, QUIET, ROOT, Client, Daemon
from tests.kit.accounts import PASSWORD, account, pam_service
from tests.kit.certificates import make_client_certificates
from tests.kit.ctl import Ctl, lines
from tests.kit.profiles import change_default, default_profile, profiles_file

USER, OTHER, SERVICE = "sysadmd-ctl-k", "sysadmd-ctl-l", "sysadmd-ctl-keys"
CONFIG = (
    f'{QUIET}[auth]\npam_service = "{SERVICE}"\nfull = ["root", "{USER}"]\n'
    f'limited = ["{OTHER}"]\n'
)


@pytest.fixture(scope="module")
def people() -> Iterator[None]:
    """An account that may do everything, and one that may not."""
    with pam_service(SERVICE), account(USER), account(OTHER):
        yield


@pytest.fixture
def guarded(tmp_path: Path, people: None) -> Iterator[Daemon]:
    with Daemon(tmp_path / "state", CONFIG) as daemon:
        yield daemon


def folder(ctl: Ctl) -> Path:
    return ctl.home / ".config" / "sysadmd"


def log_in(ctl: Ctl, daemon: Daemon, user: str = USER) -> None:
    done = ctl("login", daemon.url, "--user", user, text=f"y\n{PASSWORD}\n")
    assert done.returncode == 0, done.stderr


def local(daemon: Daemon, home: Path) -> Ctl:
    """`sysadmctl` as root has it on the daemon's own machine."""
    return Ctl(home, "--state-dir", str(daemon.state_dir))


def go_over(ctl: Ctl, daemon: Daemon) -> str:
    """A profile that logs in by the default key, which is new; returns its fingerprint."""
    log_in(ctl, daemon)
    (made,) = lines(ctl("key", "new", "--json"))
    assert ctl("key", "register").returncode == 0
    return str(made["fingerprint"])


def tokens(daemon: Daemon) -> list[Any]:
    with daemon.client() as client:
        found: list[Any] = client.ask("rpc", "tokens", {"action": "list"})["tokens"]
        return found


def keys(daemon: Daemon) -> list[dict[str, Any]]:
    with daemon.client() as client:
        found: list[dict[str, Any]] = client.ask("rpc", "settings", {"action": "list_keys"})[
            "keys"
        ]
        return found


def test_a_new_key_is_its_owners_alone_and_overwrites_nothing(ctl: Ctl, tmp_path: Path) -> None:
    done = ctl("key", "new")
    assert done.returncode == 0, done.stderr
    file = folder(ctl) / "key.pem"
    fingerprint = read_key(file).public.fingerprint
    assert done.stdout == f"{fingerprint} in {file}\n"
    assert (file.stat().st_mode & 0o777, folder(ctl).stat().st_mode & 0o777) == (0o600, 0o700)
    before = file.read_bytes()
    again = ctl("key", "new")
    assert again.returncode == 1
    assert f"{file} is there already" in again.stderr
    assert file.read_bytes() == before
    # A link is in the way, too, even one that leads nowhere.
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "nowhere")
    assert ctl("key", "new", "--file", str(link)).returncode == 1
    assert not (tmp_path / "nowhere").exists()
    (made,) = lines(ctl("key", "new", "--json", "--file", str(tmp_path / "other.pem")))
    assert made["file"] == str(tmp_path / "other.pem")
    assert made["fingerprint"] == read_key(tmp_path / "other.pem").public.fingerprint
    for impossible in (tmp_path / "no" / "such", file / "below"):
        done = ctl("key", "new", "--file", str(impossible))
        assert done.returncode == 1
        assert done.stderr.startswith(f"sysadmctl: {impossible} can't be made: ")


def test_login_goes_over_to_the_key_and_the_token_is_gone(guarded: Daemon, ctl: Ctl) -> None:
    missing = ctl("key", "register")
    assert missing.returncode == 2
    assert "`sysadmctl key new` makes a key" in missing.stderr
    log_in(ctl, guarded)
    (made,) = lines(ctl("key", "new", "--json"))
    done = ctl("key", "register", "--nickname", "desk")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"registered desk ({made['fingerprint']}) of {USER}\n"
    assert "login by key instead of a token" in done.stderr
    assert tokens(guarded) == []
    profile = default_profile(ctl.home)
    assert (profile["token"], profile["key"]) == ("", str(folder(ctl) / "key.pem"))
    assert ctl("run", "--", "echo", "by key").stdout == "by key\n"
    # Once more changes a name and nothing else.
    again = ctl("key", "register", "--nickname", "laptop", "--json")
    assert again.stderr == ""
    assert [key["nickname"] for key in lines(again)] == ["laptop"]
    # From anywhere: the path that is kept does not depend on where we are.
    (listed,) = lines(ctl("key", "list", "--json"))
    assert listed == lines(again)[0] | {"used": listed["used"]}
    table = ctl("key", "list").stdout.splitlines()
    assert table[0].split() == ["ACCOUNT", "NICKNAME", "KIND", "FINGERPRINT", "USED"]
    assert table[1].split()[:4] == [USER, "laptop", "ed25519", made["fingerprint"]]
    with guarded.client() as client:
        said = [line for line in client.trail() if "logged in by key" in line]
    assert any("laptop" in line for line in said)


def test_logout_forgets_the_profile_and_the_key_logs_in_again(
    guarded: Daemon, ctl: Ctl
) -> None:
    fingerprint, file = go_over(ctl, guarded), folder(ctl) / "key.pem"
    done = ctl("logout")
    assert done.returncode == 0
    assert f"the key {fingerprint} of {file} stays registered" in done.stderr
    assert f"`sysadmctl key revoke {fingerprint}`" in done.stderr
    assert not profiles_file(ctl.home).exists()
    assert len(keys(guarded)) == 1
    no = ctl("login", guarded.url, "--key", str(file), text="n\n")
    assert no.returncode == 1
    pin = file_pin(guarded.state_dir / "tls" / "certificate.pem")
    done = ctl("login", guarded.url, "--key", str(file), "--json", text="y\n")
    assert pin in done.stderr
    assert lines(done) == [
        {
            "url": guarded.url,
            "account": "sysadmd-ctl-k",
            "key": str(file),
            "fingerprint": fingerprint,
            "pin": pin,
            "profile": "127.0.0.1",
        }
    ]
    # Now the server is known, and nothing is asked.
    again = ctl("login", guarded.url, "--key", str(file))
    assert again.stdout == (
        f"logged in to {guarded.url} as sysadmd-ctl-k by the key {fingerprint} of {file};"
        " profile 127.0.0.1\n"
    )
    assert again.stderr == ""
    assert ctl("jobs").returncode == 0
    # A token that is named wins over the profile's key.
    assert ctl("jobs", "--token", "wrong").returncode == 77
    assert ctl("jobs", SYSADMCTL_TOKEN="wrong").returncode == 77
    assert ctl("jobs", "--key", str(file), SYSADMCTL_TOKEN="wrong").returncode == 0
    # Who is there can be asked without any login.
    file.rename(file.with_suffix(".away"))
    assert ctl("identify").returncode == 0
    assert ctl("jobs").returncode == 2


def test_a_key_may_be_named_for_any_command(guarded: Daemon, ctl: Ctl, tmp_path: Path) -> None:
    file = tmp_path / "robot.pem"
    (made,) = lines(ctl("key", "new", "--json", "--file", str(file)))
    cafile = str(guarded.state_dir / "tls" / "certificate.pem")
    where = ["--url", guarded.url, "--cafile", cafile, "--key", str(file)]
    unknown = ctl(*where, "jobs")
    assert unknown.returncode == 77
    assert unknown.stderr.startswith(f"sysadmctl: the key {file} does not log in at")
    assert f"register it again (`sysadmctl key register --file {file}`)" in unknown.stderr
    first = ctl("login", guarded.url, "--key", str(file), text="y\n")
    assert first.returncode == 77
    assert not folder(ctl).exists()
    # By who may: for another one, from the server's own machine, of the public part alone.
    pem = subprocess.run(
        ["openssl", "pkey", "-in", str(file), "-pubout"], check=True, capture_output=True
    )
    public = tmp_path / "robot.pub"
    public.write_bytes(pem.stdout)
    admin = local(guarded, ctl.home)
    words = ("--user", OTHER, "--nickname", "robot")
    done = admin("key", "register", "--public", str(public), *words)
    assert done.stdout == f"registered robot ({made['fingerprint']}) of {OTHER}\n"
    assert done.stderr == ""
    assert ctl(*where, "jobs").returncode == 0
    assert ctl("jobs", *where).returncode == 0
    refused = ctl(*where, "run", "--", "true")
    assert refused.returncode == 77
    assert [key["nickname"] for key in lines(ctl(*where, "key", "list", "--json"))] == ["robot"]
    # It may end itself.
    assert ctl(*where, "key", "revoke", "robot").returncode == 0
    assert ctl(*where, "jobs").returncode == 77
    # Where no login is needed, none is made.
    assert admin("--key", str(tmp_path / "none"), "jobs").returncode == 0


def test_two_logins_at_once_are_no_login(shared: Daemon, ctl: Ctl) -> None:
    for words in (
        ["--url", shared.url, "--token", "x", "--key", "y", "jobs"],
        ["login", shared.url, "--token", "x", "--key", "y"],
        ["login", shared.url, "--user", "x", "--key", "y"],
        ["login", shared.url, "--name", "x", "--key", "y"],
        ["key", "register", "--file", "x", "--public", "y"],
    ):
        done = ctl(*words)
        assert done.returncode == 2, words
        assert "Usage: " in done.stderr or "Error: " in done.stderr


def test_a_file_that_is_no_key_of_ours_is_said(
    shared: Daemon, ctl: Ctl, tmp_path: Path
) -> None:
    file = tmp_path / "key.pem"
    lines(ctl("key", "new", "--json", "--file", str(file)))
    good = file.read_text()
    nobody = ["--url", "wss://127.0.0.1:1", "--key", str(file), "jobs"]
    register_public = ["--state-dir", str(shared.state_dir), "key", "register", "--public"]
    for mode in (0o640, 0o604, 0o622, 0o660):
        file.chmod(mode)
        done = ctl(*nobody)
        assert done.returncode == 2
        assert f"(mode {mode:04o}); `chmod 600 {file}` closes it" in done.stderr
    file.chmod(0o600)
    assert ctl(*nobody).returncode == 69
    rsa = subprocess.run(
        ["openssl", "genpkey", "-algorithm", "RSA"], check=True, capture_output=True, text=True
    )
    for text in ("", "x", "\0\x1b[31m", good[:60], good.replace("M", "!"), rsa.stdout):
        file.write_text(text)
        done = ctl(*nobody)
        assert done.returncode == 2
        assert done.stderr.startswith(f"sysadmctl: {file} can't be used as a key: it is no ")
        assert ctl(*register_public, str(file)).returncode == 2
    file.write_text(good)
    private = ctl(*register_public, str(file))
    assert private.returncode == 2
    assert "sends its public part alone" in private.stderr
    file.unlink()
    os.mkfifo(file, 0o600)
    for what in (file, tmp_path, tmp_path / "none"):
        for words in ([*nobody[:3], str(what), "jobs"], [*register_public, str(what)]):
            done = ctl(*words)
            assert done.returncode == 2, words
            assert str(what) in done.stderr
    assert not keys(shared)


def test_a_key_is_revoked_by_what_names_it_alone(
    guarded: Daemon, ctl: Ctl, tmp_path: Path
) -> None:
    admin = local(guarded, ctl.home)
    made: list[str] = []
    for number, (nickname, user) in enumerate(
        (("phone", USER), ("phone", OTHER), ("desk", USER), ("", USER))
    ):
        file = str(tmp_path / f"{number}.pem")
        made += [
            key["fingerprint"] for key in lines(ctl("key", "new", "--json", "--file", file))
        ]
        words = ("--file", file, "--nickname", nickname, "--user", user)
        done = admin("key", "register", *words)
        # The profile is for who logs in by it, and none has.
        assert (done.returncode, done.stderr) == (0, "")
    ambiguous = admin("key", "revoke", "phone")
    assert ambiguous.returncode == 1
    assert f"{made[0]} of {USER}, {made[1]} of {OTHER}" in ambiguous.stderr
    unknown = admin("key", "revoke", "tablet")
    assert unknown.returncode == 1
    assert "there is no key 'tablet'" in unknown.stderr
    assert len(keys(guarded)) == 4
    assert admin("key", "revoke", made[1]).stdout == f"revoked phone ({made[1]}) of {OTHER}\n"
    assert lines(admin("key", "revoke", "phone", "--json")) == [{"revoked": made[0]}]
    assert admin("key", "revoke", "desk").returncode == 0
    assert admin("key", "revoke", made[3]).stdout == f"revoked the key ({made[3]}) of {USER}\n"
    assert keys(guarded) == []


def test_another_key_takes_the_place_of_the_one_that_logs_in(
    guarded: Daemon, ctl: Ctl, tmp_path: Path
) -> None:
    first, second = go_over(ctl, guarded), str(tmp_path / "second.pem")
    lines(ctl("key", "new", "--json", "--file", second))
    done = ctl("key", "register", "--file", second)
    assert done.returncode == 0
    assert f"`sysadmctl key revoke {first}` ends that" in done.stderr
    assert ctl("key", "revoke", first).stderr == ""
    assert ctl("jobs").returncode == 0
    # One's own, by which the profile logs in.
    (own,) = keys(guarded)
    ended = ctl("key", "revoke", own["fingerprint"])
    assert ended.returncode == 0
    assert "`sysadmctl login 127.0.0.1` logs in again" in ended.stderr
    assert ctl("jobs").returncode == 77


def test_a_tail_by_key_loses_nothing_over_a_kill_and_ends_with_the_key(
    guarded: Daemon, ctl: Ctl, tmp_path: Path
) -> None:
    fingerprint, admin = go_over(ctl, guarded), local(guarded, ctl.home)
    guarded.listen = guarded.address
    printed: list[dict[str, Any]] = []
    with ctl.started("tail", "dispatcher", "--since", "oldest", "--json") as tail:
        assert tail.stdout is not None
        out = iter(tail.stdout)
        for round in range(4):
            if round == 2:
                guarded.kill()
                guarded.start()
            assert admin("run", "--id", f"job {round}", "--", "true").returncode == 0
            printed += [json.loads(line) for line in itertools.islice(out, 3)]
        assert admin("key", "revoke", fingerprint).returncode == 0
        rest, errors = tail.communicate(timeout=DEADLINE)
    assert (tail.returncode, rest) == (77, "")
    told = [(f["args"]["process_id"], f["args"]["state"]) for f in printed]
    states = ("pending", "running", "finished")
    assert told == [(f"job {n}", state) for n in range(4) for state in states]
    for before, after in itertools.pairwise(printed):
        assert after["prev"] == before["cursor"]
    assert "connected again" in errors
    assert "the key was revoked" in errors
    assert "and register it again (`sysadmctl key register" in errors
    assert "Traceback" not in errors


@contextlib.contextmanager
def in_between(tmp_path: Path, daemon: Daemon) -> Generator[tuple[str, list[dict[str, Any]]]]:
    """Somebody with a certificate of his own who hands on what he is told.

    Yields his address, and the requests that he has heard.
    """
    make_client_certificates(tmp_path, "relay")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "relay.pem", tmp_path / "relay.key")
    heard: list[dict[str, Any]] = []

    def handle(socket: ServerConnection) -> None:
        with daemon.stranger() as behind:
            for text in socket:
                request = json.loads(text)
                heard.append(request)
                words = (request["namespace"], request["name"], request["args"])
                socket.send(json.dumps({**behind.ask_raw(*words), "id": request["id"]}))

    with serve(handle, "127.0.0.1", 0, ssl=context) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"wss://127.0.0.1:{server.socket.getsockname()[1]}", heard
        finally:
            server.shutdown()
            thread.join()


def test_who_is_in_between_gets_no_proof_or_one_of_no_use(
    guarded: Daemon, ctl: Ctl, tmp_path: Path
) -> None:
    go_over(ctl, guarded)
    with in_between(tmp_path, guarded) as (url, heard):
        change_default(ctl.home, url=url)
        refused = ctl("jobs")
        assert refused.returncode == 69
        assert "another key" in refused.stderr
        assert heard == []
        # To who is taken for the server a proof is given, which the server does not take.
        pin = file_pin(tmp_path / "relay.pem")
        change_default(ctl.home, pin=pin)
        assert ctl("jobs").returncode == 77
        assert [request["name"] for request in heard] == ["auth_ssl", "auth_ssl"]


def test_what_makes_no_sense_in_place_of_a_text_to_sign_is_said(
    ctl: Ctl, tmp_path: Path, play: Callable[[Any], tuple[list[str], Any]]
) -> None:
    file = str(tmp_path / "key.pem")
    lines(ctl("key", "new", "--json", "--file", file))
    blocked = ("error", {"code": 429, "message": "Too Many Requests", "detail": "later"})
    unknown = ("error", {"code": 404, "message": "Not Found", "detail": "no such class"})
    answers: list[tuple[Any, int]] = [
        *(({}, 69), ([], 69), (None, 69), ({"test_string": 7}, 69)),
        *(({"test_string": "\ud800"}, 69), (blocked, 1), (unknown, 77)),
    ]
    for given, status in answers:

        def answer(to: str, args: dict[str, Any], given: Any = given) -> Any:
            return given

        options, asked = play(answer)
        where = [word for word in options if word not in ("--token", "x")]
        done = ctl(*where, "--key", file, "jobs")
        assert done.returncode == status, (given, done)
        assert done.stderr.startswith("sysadmctl: ")
        assert "Traceback" not in done.stderr
        # Nothing is signed that was not asked for.
        assert asked == [("rpc/auth_ssl", {})]


def test_profiles_of_before_there_were_keys_are_read(guarded: Daemon, ctl: Ctl) -> None:
    log_in(ctl, guarded)
    profile, kept = folder(ctl) / "profile.json", default_profile(ctl.home)
    profiles_file(ctl.home).unlink()
    assert kept.pop("key") is None
    assert kept.pop("bridge") is False
    profile.write_text(json.dumps(kept))
    assert ctl("jobs").returncode == 0
    profile.write_text(json.dumps({**kept, "key": 7}))
    broken = ctl("jobs")
    assert broken.returncode == 2
    assert "there is no file 7" in broken.stderr


def test_a_profile_that_can_not_be_written_keeps_its_token(guarded: Daemon, ctl: Ctl) -> None:
    log_in(ctl, guarded)
    lines(ctl("key", "new", "--json"))
    # Where the new one is written first.
    (folder(ctl) / "profiles.json.new").mkdir()
    done = ctl("key", "register")
    assert done.returncode == 1
    assert "profiles.json can't be written" in done.stderr
    assert len(tokens(guarded)) == 1
    assert ctl("jobs").returncode == 0


def test_a_key_that_is_for_another_account_is_refused(guarded: Daemon, ctl: Ctl) -> None:
    log_in(ctl, guarded, OTHER)
    (made,) = lines(ctl("key", "new", "--json"))
    denied = ctl("key", "register", "--user", USER)
    assert denied.returncode == 77
    with guarded.stranger() as client:
        client.ask("rpc", "auth", {"username": USER, "password": PASSWORD})
        register(client, folder(ctl) / "key.pem")
    taken = ctl("key", "register")
    assert taken.returncode == 1
    assert "registered for another account" in taken.stderr
    # What was not changed is not said to be.
    assert default_profile(ctl.home)["key"] is None
    assert [key["fingerprint"] for key in keys(guarded)] == [made["fingerprint"]]
    assert ctl("jobs").returncode == 0


def test_who_needs_no_key_does_not_wait_for_what_reads_them() -> None:
    code = "import sys, sysadmd.ctl.app, sysadmd.ctl.tail; print('Crypto' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"


def register(client: Client, file: Path) -> None:
    text = as_text(read_key(file).public.pem)
    client.ask("rpc", "settings", {"action": "register_ssl_cert", "pub_key": text})
