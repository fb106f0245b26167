"""The unit for systemd: is it one, and does the daemon fare under it as it says?"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kit import DEADLINE, QUIET, ROOT, needs
from tests.kit.daemon import MAIN
from tests.kit.systemd import under_systemd

SHIPPED = ROOT / "packaging" / "systemd" / "sysadmd.service"
CTL = (
    f'{sys.executable} -c \'import sys; sys.path.insert(0, "{ROOT}"); '
    "from sysadmd.ctl import main; main()'"
)
# Ends by itself, whatever becomes of the test.
LONG = "sleep 500"


def unit() -> str:
    """What ships, with the program that is tested."""
    text = SHIPPED.read_text()
    shipped = "ExecStart=/opt/sysadmd/bin/python -I -m sysadmd serve"
    assert text.count(f"\n{shipped}\n") == 1
    here = f"ExecStart={sys.executable} -I {MAIN} serve --listen 127.0.0.1:0"
    return text.replace(f"\n{shipped}\n", f"\n{here}\n")


def test_the_unit_is_one(tmp_path: Path) -> None:
    needs("systemd-analyze")
    copy = tmp_path / "sysadmd.service"
    copy.write_text(unit())
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
journalctl -u sysadmd -p info..info -o cat | grep '^info server.daemon: ready on'
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
    assert "info server.daemon: stopping: told to; running jobs go on" in out
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
