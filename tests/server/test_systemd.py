"""The units for systemd: are they such, and do daemon and bridge fare as these say?"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kit import DEADLINE, QUIET, ROOT, needs
from tests.kit.daemon import MAIN
from tests.kit.systemd import under_systemd

UNITS = ROOT / "packaging" / "systemd"
CTL = (
    f'{sys.executable} -c \'import sys; sys.path.insert(0, "{ROOT}"); '
    "from sysadmd.ctl import main; main()'"
)
# Ends by itself, whatever becomes of the test.
LONG = "sleep 500"


def unit(name: str = "sysadmd", command: str = "serve") -> str:
    """What ships, with the program that is tested."""
    text = (UNITS / f"{name}.service").read_text()
    shipped = f"\nExecStart=/opt/sysadmd/bin/python -I -m sysadmd {command}"
    assert text.count(shipped) == 1
    here = f"\nExecStart={sys.executable} -I {MAIN} {command} --listen 127.0.0.1:0"
    return text.replace(shipped, here)


def bridge() -> str:
    return unit("sysadmd-bridge", "bridge")


@pytest.mark.parametrize(("name", "text"), [("sysadmd", unit()), ("sysadmd-bridge", bridge())])
def test_the_unit_is_one(name: str, text: str, tmp_path: Path) -> None:
    needs("systemd-analyze")
    copy = tmp_path / f"{name}.service"
    copy.write_text(text)
    # The manual page is installed with the program.
    argv = ["systemd-analyze", "--man=no", "verify", str(copy)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


SETUP = f"""
cat > /etc/sysadmd/sysadmd.toml <<'END'
{QUIET}
END
systemctl start sysadmd
{CTL} run --id long --no-wait {LONG}
until pgrep -fx "{LONG}"; do sleep 0.1; done
"""


@pytest.mark.long
def test_jobs_live_on_and_what_follows_a_start_finds_the_daemon(tmp_path: Path) -> None:
    script = f"""{SETUP}
job=$(pgrep -fx "{LONG}")
systemctl restart sysadmd
test "$job" = "$(pgrep -fx "{LONG}")"
{CTL} jobs | grep long
systemctl show -p StatusText sysadmd
echo 'log_level = "debug"' | cat - /etc/sysadmd/sysadmd.toml > /etc/sysadmd/new
mv /etc/sysadmd/new /etc/sysadmd/sysadmd.toml
systemctl reload sysadmd
until journalctl -u sysadmd | grep 'configuration reloaded'; do sleep 0.1; done
systemctl kill --signal=KILL --kill-whom=main sysadmd
until test "$(systemctl show -P NRestarts sysadmd)" = 1; do sleep 0.1; done
until systemctl is-active sysadmd; do sleep 0.1; done
test "$job" = "$(pgrep -fx "{LONG}")"
journalctl -u sysadmd -p info..info -o cat | grep '^info server.service: ready on'
journalctl -u sysadmd -o json | tail -1 | grep -o '"SYSLOG_IDENTIFIER":"[a-z]*"'
{sys.executable} {MAIN} stop --jobs
none pgrep -fx "{LONG}"
until systemctl is-active sysadmd | grep '^inactive'; do sleep 0.1; done
echo nonsense >> /etc/sysadmd/sysadmd.toml
none systemctl start sysadmd
echo "state $(systemctl is-failed sysadmd), restarts $(systemctl show -P NRestarts sysadmd)"
stat -c 'mode %a' /var/db /var/db/sysadmd
journalctl -u sysadmd
"""
    out = under_systemd(tmp_path, {"sysadmd.service": unit()}, script)
    assert "StatusText=serving on wss://127.0.0.1:" in out
    assert '"SYSLOG_IDENTIFIER":"sysadmd"' in out
    assert "state failed, restarts 0" in out
    assert "mode 755\nmode 700\n" in out
    assert "info server.service: stopping: told to; running jobs go on" in out
    assert "will not outlive" not in out


@pytest.mark.long
def test_a_unit_that_kills_jobs_is_warned_of(tmp_path: Path) -> None:
    # What somebody writes who knows nothing of KillMode.
    start = re.findall("^ExecStart=.*$", unit(), re.MULTILINE)[0]
    script = f"""{SETUP}
until journalctl -u sysadmd -p warning -o cat | grep 'will not outlive'; do sleep 0.1; done
systemctl stop sysadmd
none pgrep -fx "{LONG}"
journalctl -u sysadmd -o cat | grep 'stopping: told to'
"""
    # Without Type=notify nothing says when it serves.
    script = script.replace(
        "systemctl start sysadmd\n",
        "systemctl start sysadmd\n"
        "until test -e /var/db/sysadmd/endpoint.json; do sleep 0.1; done\n",
    )
    out = under_systemd(tmp_path, {"sysadmd.service": f"[Service]\n{start}\n"}, script)
    killed = "systemd ends them with sysadmd.service (KillMode=control-group)"
    assert "<4>warning" not in out
    assert f"warning server.daemon: running jobs will not outlive this daemon: {killed}" in out
    assert f"stopping: told to; running jobs end, too: {killed}" in out


@pytest.mark.long
def test_the_bridge_is_shut_in_and_does_what_it_is_for(tmp_path: Path) -> None:
    """As an account of its own that owns its state, and can't write or see anything else."""
    # Where a test has the program, the unit would hide it: it is shown again. Of the devices of
    # the room, which are mounts, systemd can make no copies.
    shown = " ".join(sorted({str(ROOT), str(Path(sys.prefix).resolve()), sys.base_prefix}))
    text = bridge().replace("ProtectHome=yes", "ProtectHome=tmpfs")
    text = text.replace("PrivateDevices=yes\n", "")
    text = text.replace("[Install]", f"BindReadOnlyPaths={shown}\n\n[Install]")
    # What it sees, as its account.
    pid = "$(systemctl show -P MainPID sysadmd-bridge)"
    inside = f"nsenter -m -r -t {pid} runuser -u sysadmd-bridge"
    key = f"{sys.executable} {MAIN} bridge-key"
    script = f"""
useradd --system --no-create-home --shell /usr/sbin/nologin sysadmd-bridge
cat > /etc/sysadmd/sysadmd.toml <<'END'
log_level = "debug"
END
systemctl start sysadmd-bridge
systemctl show -P StatusText sysadmd-bridge
stat -c 'state %a %U' /var/lib/sysadmd-bridge
ps -o 'user:32=' -p "$(systemctl show -P MainPID sysadmd-bridge)"
inside="{inside} --"
openssl genpkey -algorithm ed25519 | openssl pkey -pubout |
    $inside {key} add - --side server --name nas --state-dir /var/lib/sysadmd-bridge
until journalctl -u sysadmd-bridge -o cat | grep '1 keys are registered now'; do sleep 0.1; done
{CTL} key new --file /etc/sysadmd/alice.pem
{CTL} key show --file /etc/sysadmd/alice.pem |
    $inside {key} add - --side client --name alice --state-dir /var/lib/sysadmd-bridge
until journalctl -u sysadmd-bridge -o cat | grep '2 keys are registered now'; do sleep 0.1; done
{CTL} servers --bridge "$(systemctl show -P StatusText sysadmd-bridge | sed 's/.* //')" \
    --key /etc/sysadmd/alice.pem --cafile /var/lib/sysadmd-bridge/tls/certificate.pem
journalctl -u sysadmd-bridge -o cat | grep "the client 'alice' is here"
none $inside touch /etc/sysadmd/mine
none $inside cat /proc/1/status
systemctl reload sysadmd-bridge
until journalctl -u sysadmd-bridge | grep 'configuration reloaded'; do sleep 0.1; done
systemctl kill --signal=KILL --kill-whom=main sysadmd-bridge
until test "$(systemctl show -P NRestarts sysadmd-bridge)" = 1; do sleep 0.1; done
until systemctl is-active sysadmd-bridge; do sleep 0.1; done
systemctl stop sysadmd-bridge
systemctl show -P Result sysadmd-bridge
systemd-analyze security --no-pager sysadmd-bridge | tail -1
journalctl -u sysadmd-bridge -o cat
"""
    out = under_systemd(tmp_path, {"sysadmd-bridge.service": text}, script)
    assert "serving on wss://127.0.0.1:" in out
    assert "state 700 sysadmd-bridge\nsysadmd-bridge\n" in out
    assert "registered nas" in out
    assert "info server.service: stopping: told to\n" in out
    assert "\nsuccess\n" in out
    assert "warning" not in out and "error " not in out
