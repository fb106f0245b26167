"""The daemon as a program: ready line, files, lock, signals, exit statuses."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.kit import QUIET, Daemon, wait_for
from tests.kit.daemon import MAIN, sysadmd


def test_the_endpoint_says_how_to_connect(daemon: Daemon) -> None:
    endpoint = json.loads((daemon.state_dir / "endpoint.json").read_text())
    assert endpoint["url"] == daemon.url
    assert endpoint["pid"] == daemon.pid
    assert Path(endpoint["certificate"]).exists()
    assert Path(endpoint["token_file"]).read_text().strip() == daemon.token
    for name in ("", "admin.token", "endpoint.json", "state.db", "lock", "tls/key.pem"):
        assert (daemon.state_dir / name).stat().st_mode & 0o077 == 0, name


def test_a_second_daemon_names_the_first_and_leaves(daemon: Daemon) -> None:
    second = sysadmd("serve", "--state-dir", str(daemon.state_dir), "--listen", "127.0.0.1:0")
    assert second.returncode == 1
    assert f"pid {daemon.pid}" in second.stderr
    assert daemon.client().ask("rpc", "identify")["type"] == "server"


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = sysadmd("serve", "--state-dir", str(tmp_path / "s"), "--listen", address)
    assert done.returncode == 1
    assert address in done.stderr
    assert "Traceback" not in done.stderr


def test_missing_openssl_is_said(tmp_path: Path) -> None:
    done = sysadmd("serve", "--state-dir", str(tmp_path / "s"), PATH=str(tmp_path))
    assert done.returncode == 1
    assert "openssl is missing" in done.stderr


def test_several_listeners_serve(tmp_path: Path) -> None:
    with Daemon(tmp_path / "s", QUIET, options=("--listen", "[::1]:0")) as daemon:
        assert daemon.client().ask("rpc", "identify")["type"] == "server"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_says_goodbye_and_exits_with_0(daemon: Daemon, number: signal.Signals) -> None:
    client = daemon.client()
    assert daemon.process is not None
    daemon.process.send_signal(number)
    with pytest.raises(ConnectionClosed) as closed:
        client.receive()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1001
    assert daemon.wait(20) == 0
    assert not (daemon.state_dir / "endpoint.json").exists()


def test_a_state_file_that_is_not_ours_is_refused(tmp_path: Path) -> None:
    state = tmp_path / "s"
    state.mkdir(mode=0o700)
    (state / "state.db").write_bytes(b"not a database, but precious" * 100)
    done = sysadmd("serve", "--state-dir", str(state), "--listen", "127.0.0.1:0")
    assert done.returncode == 1
    assert "move it away" in done.stderr
    assert (state / "state.db").read_bytes() == b"not a database, but precious" * 100


def test_check_config_names_every_mistake_and_serve_refuses_them(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text('nonsense = 1\n[server]\nlisten = ["x"]\n[auth]\nfailures = 0\n')
    done = sysadmd("check-config", "--config", str(file))
    assert done.returncode == 2
    lines = (done.stdout + done.stderr).splitlines()
    assert [line.split(": ")[1] for line in lines] == [
        "nonsense",
        "server.listen[0]",
        "auth.failures",
    ]
    file.write_text('nonsense = 1\n[server]\nlisten = []\ntls = {certificate = "x"}\n')
    done = sysadmd("check-config", "--config", str(file))
    lines = (done.stdout + done.stderr).splitlines()
    assert [line.split(": ")[1] for line in lines] == [
        "nonsense",
        "server.tls.key",
        "server.listen",
    ]
    file.write_text("a=" + "[" * 5000)
    done = sysadmd("check-config", "--config", str(file))
    assert (done.returncode, "not TOML" in done.stderr) == (2, True)
    assert "Traceback" not in done.stderr
    assert sysadmd("serve", "--config", str(file)).returncode == 2
    assert sysadmd("serve", "--config", str(tmp_path / "absent")).returncode == 2
    file.write_text("")
    done = sysadmd("check-config", "--config", str(file))
    assert (done.returncode, done.stdout) == (0, f"{file}: ok\n")
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, MAIN, "check-config"]
        told = subprocess.run(
            [*command, "--config", str(file)], stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert told.returncode == 1
    assert b"Traceback" not in told.stderr
    assert sysadmd("serve", "--listen", "nowhere").returncode == 2
    assert sysadmd("frobnicate").returncode == 2


def test_a_reload_takes_what_is_right_and_refuses_what_is_wrong(daemon: Daemon) -> None:
    client = daemon.client()
    job = {"commands": ["true"], "queue": "fresh"}
    assert (
        client.ask_raw("rpc", "dispatcher", {"action": "submit", "job": job})["name"] == "error"
    )
    daemon.config.write_text(QUIET + "[dispatcher.queues]\nfresh = 2\n")
    daemon.reload()
    client.ask("rpc", "dispatcher", {"action": "submit", "job": job})
    daemon.config.write_text("[server]\nmax_clients = 0\n")
    daemon.reload("reload refused")
    client.ask("rpc", "dispatcher", {"action": "submit", "job": job})
    daemon.config.write_text(QUIET + '[server]\nlisten = ["127.0.0.1:1"]\n')
    daemon.reload("needs a restart")
    daemon.reload("needs a restart")
    reloads = daemon.log.read_text().count("needs a restart")
    daemon.config.write_text(QUIET)
    daemon.reload()
    assert daemon.log.read_text().count("needs a restart") == reloads


def test_the_log_can_be_json(tmp_path: Path) -> None:
    with Daemon(tmp_path / "s", QUIET, options=("--log-format", "json")) as daemon:
        daemon.stop()
    for line in daemon.log.read_text().splitlines():
        assert {"time", "level", "logger", "message"} <= json.loads(line).keys()


def test_the_daemon_starts_though_nobody_reads_its_output(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path / "s", QUIET)
    read, write = os.pipe()
    os.close(read)
    with daemon.log.open("w") as log:
        process = subprocess.Popen(daemon.command(), stdout=write, stderr=log)
    os.close(write)
    wait_for((daemon.state_dir / "endpoint.json").exists, "the endpoint")
    process.terminate()
    assert process.wait(20) == 0


def open_files(daemon: Daemon) -> int:
    return psutil.Process(daemon.pid).rlimit(psutil.RLIMIT_NOFILE)[0]


def test_more_clients_after_a_reload_get_their_open_files(tmp_path: Path) -> None:
    few, more = (f"{QUIET}[server]\nmax_clients = {clients}\n" for clients in (100, 2000))
    limited = ("sh", "-c", 'ulimit -Sn 128; exec "$@"', "sh")
    with Daemon(tmp_path / "state", few, wrapper=limited) as daemon:
        before = open_files(daemon)
        daemon.config.write_text(more)
        daemon.reload()
        assert open_files(daemon) == before + 1900


def test_more_clients_than_files_can_be_had_for_are_refused_at_a_reload(tmp_path: Path) -> None:
    config = "{}[server]\nmax_clients = {}\n[dispatcher.queues]\n{} = 1\n".format
    unprivileged = 'ulimit -n 1000; exec setpriv --bounding-set -all "$@"'
    wrapper = ("sh", "-c", unprivileged, "sh")
    with Daemon(tmp_path / "state", config(QUIET, 2, "old"), wrapper=wrapper) as daemon:
        daemon.config.write_text(config(QUIET, 5000, "new"))
        daemon.reload()
        log = daemon.log.read_text()
        assert "server.max_clients = 5000 needs 5640 open files" in log
        assert "stays 2" in log
        with daemon.client() as client, daemon.client():
            # The number is the old one, all else is new.
            with pytest.raises(InvalidStatus) as refused:
                daemon.stranger()
            assert refused.value.response.status_code == 503
            client.ask("rpc", "dispatcher", {"action": "pause", "queue": "new"})


def test_a_configuration_that_is_made_later_is_read_at_a_reload(tmp_path: Path) -> None:
    default = tmp_path / "default.toml"
    where = f"pathlib.Path({str(default)!r})"
    before = (
        f"import pathlib, sysadmd.machine; sysadmd.machine.default_config = lambda: {where}"
    )
    daemon = Daemon(tmp_path / "state", before=before)
    daemon.named = False
    with daemon:
        daemon.reload("no configuration file")
        default.write_text(f"{QUIET}[server]\nmax_clients = 0\n")
        daemon.reload("reload refused")
        default.write_text(f"{QUIET}[server]\nmax_clients = 1\n")
        daemon.reload()
        with daemon.client(), pytest.raises(InvalidStatus):
            daemon.stranger()
        default.unlink()
        daemon.reload("no configuration file")
