"""The original client, by a model of it: it connects, stays, and shows what is true."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.kit import QUIET, Client, Daemon, wait_for
from tests.kit.accounts import PASSWORD, account, group, lock, pam_service
from tests.kit.original_client import Frame, OriginalClient, Screen
from tests.kit.pools import StandIn
from tests.kit.qt_socket import QtSocket, needs_qt
from tests.kit.replay import Tools
from tests.kit.rsa_keys import RsaKey
from tests.kit.state_file import state_file

SERVICE, WHEEL = "sysadmd-original", "sysadmd-orig-w"
RULES = "auth required pam_unix.so\naccount required pam_unix.so\n"
NIGHTS = ("Sun Nov  1 03:00:00 UTC 2026", "Mon Nov  2 03:00:00 UTC 2026")
FAILED = "FAILED replication task on tank -> backup: LOGFILE: /var/log/lpreserver/x.log"


@pytest.fixture(scope="module")
def service() -> Iterator[None]:
    with pam_service(SERVICE, RULES), group(WHEEL):
        yield


@pytest.fixture
def admin(service: None) -> Iterator[str]:
    with account("sysadmd-orig-a", also=WHEEL) as name:
        yield name


class Machine:
    """A machine with a log, pools and packages; its daemon; and who watches from elsewhere."""

    def __init__(self, folder: Path) -> None:
        self.log = folder / "lp" / "lpreserver.log"
        self.log.parent.mkdir()
        self.log.touch()
        self.pools = StandIn(folder / "pools")
        self.pools.directory.mkdir()
        self.pools.put("ozfs-mirror-healthy", 1)
        self.tools = Tools(folder / "tools")
        self.tools.install("pkg")
        self.auth = f'[auth]\npam_service = "{SERVICE}"\nfull = ["root", "@{WHEEL}"]\n'
        config = QUIET.partition("[collectors.zpool]")[0] + (
            f'[collectors.zpool]\ncommand = "{self.pools.command}"\ninterval = 1\n'
            f'[collectors.life_preserver]\nlog = "{self.log}"\n'
            f'[classes]\npkg = "{self.tools.folder}/pkg"\n'
        )
        self.config = config + self.auth + "failures = 3\nlegacy_key_login = true\n"
        self.daemon = Daemon(folder / "state", self.config)
        self.key = RsaKey(folder)
        self.watcher = OriginalClient(self.key, ("system-state", "dispatcher"))

    def write(self, line: str) -> None:
        with self.log.open("a") as out:
            out.write(f"{line}\n")

    def begin(self, name: str, *systems: str) -> Client:
        """Start; its user logs in for the first time and has it register its key. Returns who
        does things on the machine."""
        self.watcher.systems += systems
        self.daemon.start()
        self.watcher.log_in(name, PASSWORD)
        self.come_back()
        self.watcher.register()
        return self.daemon.local()

    def come_back(self) -> None:
        """What the watcher does by itself, a minute after a cut."""
        assert self.watcher.keeps_active
        self.watcher.connect(self.daemon.url)
        self.watcher.until_authorized()

    def cut(self) -> None:
        """Let the daemon die, and start it again."""
        self.daemon.kill()
        self.watcher.until_cut()
        self.daemon.start()

    def heard(self, system: int) -> int:
        """How many events of a system the watcher has heard, as it is written down."""
        with state_file(self.daemon.state_dir) as db:
            query = "SELECT place FROM heard WHERE system = ?"
            row = db.execute(query, (system,)).fetchone()
        return int(row[0].split(":")[1].split(".")[system]) if row else 0


@pytest.fixture
def machine(tmp_path: Path, service: None) -> Iterator[Machine]:
    machine = Machine(tmp_path)
    try:
        yield machine
    finally:
        machine.watcher.close()
        machine.daemon.kill()


def is_end(frame: Frame) -> bool:
    return bool(frame["name"] == "dispatcher" and frame["args"].get("state") == "finished")


def run(client: Client, **jobs: list[str]) -> None:
    client.ask("rpc", "dispatcher", {"action": "run", **jobs})


@pytest.mark.parametrize("qt", [False, True], ids=["any socket", "Qt's socket"])
def test_it_comes_back_by_its_key_and_hears_the_end_of_its_job(
    machine: Machine, admin: str, tmp_path: Path, qt: bool
) -> None:
    if qt:
        needs_qt()
        systems = ("system-state", "dispatcher", "life-preserver")
        machine.watcher = OriginalClient(machine.key, systems, QtSocket)
    go = tmp_path / "go"
    script = f'sh -c "until [ -e {go} ]; do sleep 0.1; done"'
    watcher = machine.watcher
    with machine.begin(admin) as root:
        assert watcher.frames[0]["args"]["type"] == "server"
        run(root, job=["echo a", script])
        watcher.until_shown(lambda screen: screen.states.get("job") == ["running"])
        wait_for(lambda: machine.heard(0) >= 2, "that it has heard the start")
    machine.cut()
    machine.come_back()
    go.touch()
    watcher.until(is_end)
    assert watcher.screen.rows["job"] == ["echo a", script]
    assert watcher.screen.logs["echo a"] == "a\n"
    watcher.ping()
    assert watcher.authorized


def test_what_ended_while_it_was_away_it_hears_once(machine: Machine, admin: str) -> None:
    watcher = machine.watcher
    with machine.begin(admin, "life-preserver") as root:
        run(root, before=["true"])
        watcher.until(is_end)
        wait_for(lambda: machine.heard(0) >= 3, "that it has heard that")
    machine.cut()
    with machine.daemon.local() as root:
        run(root, away=["echo b"], other=["false"])
        machine.write(f"{NIGHTS[0]}: {FAILED}")
        with machine.daemon.client() as other:
            other.ask("events", "subscribe", {"systems": ["life-preserver"], "since": "oldest"})
            other.event()
    machine.come_back()
    states = watcher.screen.states
    ends = ["running", "finished"]
    watcher.until_shown(
        lambda screen: (
            "life-preserver" in screen.shown
            and all(states.get(job) == ends for job in ("before", "away", "other"))
        )
    )
    assert watcher.screen.messages[-1] == ("life-preserver", f"{NIGHTS[0]}: {FAILED}")
    # And again: of all that nothing is new.
    told = len(watcher.screen.messages)
    wait_for(lambda: machine.heard(1) == 1, "that it has heard the failure")
    machine.cut()
    machine.come_back()
    with machine.daemon.local() as root:
        run(root, last=["true"])
    watcher.until(is_end)
    assert states["away"] == ends
    assert len(watcher.screen.messages) == told
    frames = watcher.since_login
    assert not [frame for frame in frames if frame["name"] == "life-preserver"]
    # What is so now it is told: it has forgotten that at the cut.
    assert [frame for frame in frames if frame["name"] == "system-state"]
    assert watcher.screen.priority == 0


def test_a_failure_two_nights_in_a_row_lights_up_twice(machine: Machine, admin: str) -> None:
    watcher = machine.watcher
    with machine.begin(admin, "life-preserver"):
        for count, line in enumerate((*NIGHTS, "", ""), 1):
            machine.write(f"{line}: {FAILED}" if line else FAILED)
            watcher.until_shown(partial(has_lit, count))
            # A line without a date gets that of its event: of two in one second it shows one.
            wait_for(partial(is_past, watcher.screen.shown["life-preserver"]), "a second")
        assert watcher.screen.lit("life-preserver")[:2] == [f"{n}: {FAILED}" for n in NIGHTS]


def has_lit(count: int, screen: Screen) -> bool:
    return len(screen.lit("life-preserver")) == count


def is_past(message: str) -> bool:
    """Is it another second than the message's?"""
    return time.strftime("%H:%M:%S") not in message


def test_a_degraded_pool_that_vanishes_keeps_its_warning(machine: Machine, admin: str) -> None:
    watcher = machine.watcher
    with machine.begin(admin):
        machine.pools.put("ozfs-mirror-degraded-offline", 1)
        watcher.until_shown(lambda screen: "zfs" in screen.shown)
        assert watcher.screen.priority == 9
        machine.pools.put("ozfs-no-pools", 1)
        watcher.until_shown(lambda screen: screen.priority == 6)
        last = watcher.frames[-1]["args"]
        assert last["vanished"] and "zpools" not in last
        assert watcher.screen.shown["zfs"] == "zpool degraded"
        machine.pools.put("ozfs-mirror-healthy", 1)
        watcher.until_shown(lambda screen: "zfs" not in screen.shown)


def test_a_job_of_a_class_that_waits_is_told_of_again_and_again(
    machine: Machine, admin: str, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    machine.tools.play("pkg", "lock", speed=None, hold=(0, go))
    watcher = machine.watcher
    with machine.begin(admin) as root:
        ask = {"action": "pkg_lock", "pkg_origins": "keepme"}
        first, second = (root.ask("sysadm", "pkg", ask)["pkg_lock"] for _ in range(2))
        watcher.until_shown(
            lambda screen: screen.states.get(second["proc_id"], []) == ["pending"] * 3
        )
        assert watcher.screen.rows[second["proc_id"]] == [second["proc_cmd"]]
        # Who opens a page now hears of it, too.
        late = OriginalClient(machine.watcher.key, ("dispatcher",))
        with late:
            late.connect(machine.daemon.url)
            late.until_authorized()
            late.until_shown(lambda screen: second["proc_id"] in screen.rows)
            go.touch()
            for one in (watcher, late):
                one.until(lambda f: is_end(f) and f["args"].get("event_system") is not None)
                one.until(lambda f: is_end(f) and second["proc_id"] in str(f))
                states = one.screen.states[second["proc_id"]]
                # Nothing is told to wait that has begun.
                assert states == sorted(states, key=("pending running finished").index)
        assert first["proc_id"] in watcher.screen.states


def test_it_gives_up_after_an_error_and_so_it_gets_none_that_passes(
    machine: Machine, admin: str
) -> None:
    watcher = machine.watcher
    machine.begin(admin).close()
    watcher.until_cut_by(machine.daemon.kill)
    # PAM is broken: nobody can tell whether the account may log in.
    service = Path("/etc/pam.d") / SERVICE
    service.write_text(RULES.replace("account required pam_unix", "account required pam_none"))
    try:
        machine.daemon.start()
        watcher.connect(machine.daemon.url)
        watcher.until_cut()
        assert watcher.keeps_active and not watcher.authorized
    finally:
        service.write_text(RULES)
    # Somebody at its address has guessed at passwords.
    with machine.daemon.local() as root:
        for _ in range(3):
            with machine.daemon.stranger() as client:
                client.ask_raw("rpc", "auth", {"username": admin, "password": "wrong"})
        watcher.connect(machine.daemon.url)
        watcher.until_cut()
        assert watcher.keeps_active and not watcher.authorized
        root.ask("rpc", "clients", {"action": "unblock", "address": "127.0.0.1"})
    put_off = "a login by key was put off: too many failed"
    wait_for(lambda: put_off in machine.daemon.log.read_text())
    machine.come_back()
    watcher.until_cut_by(machine.daemon.kill)
    machine.daemon.start()
    lock(admin)
    watcher.connect(machine.daemon.url)
    watcher.until_cut()
    assert not watcher.keeps_active
    assert watcher.frames[-1]["args"]["code"] == "401"


def test_a_login_that_fails_is_a_401_and_an_empty_password_no_guess(
    machine: Machine, admin: str
) -> None:
    watcher = machine.watcher
    with machine.daemon.start():
        # As "Local system" and its CLI do.
        for _ in range(5):
            watcher.log_in(admin, "")
            watcher.connect(machine.daemon.url)
            watcher.until_cut()
            error = watcher.frames[-1]
            assert (error["namespace"], error["name"]) == ("error", "error")
            assert (error["args"]["code"], error["args"]["message"]) == ("401", "Unauthorized")
        for password in ("wrong", "wrong", "wrong", PASSWORD):
            watcher.log_in(admin, password)
            watcher.connect(machine.daemon.url)
            watcher.until_cut()
            assert watcher.frames[-1]["args"]["code"] == "401"
        assert "try again in" in watcher.frames[-1]["args"]["detail"]
        assert not watcher.keeps_active


def test_without_leave_its_key_is_of_no_use(machine: Machine, admin: str) -> None:
    machine.begin(admin).close()
    machine.daemon.config.write_text(machine.config.replace("legacy_key_login = true", ""))
    machine.cut()
    machine.watcher.connect(machine.daemon.url)
    machine.watcher.until_cut()
    assert not machine.watcher.keeps_active
    assert "legacy_key_login" in machine.watcher.frames[-1]["args"]["detail"]
