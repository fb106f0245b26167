"""What becomes of jobs when this daemon ends: do they go on, or does who manages us end them?

Keeper and guard are sessions of their own and hold nothing of ours, so rc(8) with daemon(8),
runit and shells leave them alone. systemd ends all that is in a unit's control group, unless
its KillMode says otherwise; and with process 1 of a container all of it ends.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from server.job_classes.tool import ask
from sysadmd.apart import apart
from sysadmd.errors import ToolFailed

# How long systemctl has to answer; s.
TIMEOUT: Final = 10.0
# Source: systemd.kill(5). With `mixed` jobs get the KILL alone.
_KILLING: Final = frozenset({"control-group", "mixed"})
_KILL_MODE: Final = re.compile(r"^KillMode=(.+)$", re.MULTILINE)
_UNIT: Final = re.compile(r"[^/]+\.(service|scope)")


@dataclass(frozen=True, slots=True)
class Unit:
    """A service of systemd, by name. of_user: of a user's own manager."""

    name: str
    of_user: bool

    @property
    def systemctl(self) -> tuple[str, ...]:
        """The command line of who answers for it, to be gone on with."""
        return ("systemctl", "--user") if self.of_user else ("systemctl",)


@dataclass(frozen=True, slots=True)
class Doom:
    """Why jobs end with this daemon, and what to do about it."""

    reason: str
    remedy: str


def unit_of(cgroups: str) -> Unit | None:
    """The service in which the process of this /proc/PID/cgroup runs, or None.

    None also for a scope: a login's session, or a container seen from outside, which nobody
    stops to stop us. Source: cgroups(7).
    """
    paths = dict(line.split(":", 2)[1:] for line in cgroups.splitlines() if line.count(":") > 1)
    # Where both layouts are mounted, one of them has systemd's names.
    for path in (paths.get("name=systemd", ""), paths.get("", "")):
        units = [part for part in path.split("/") if _UNIT.fullmatch(part)]
        if units and units[-1].endswith(".service"):
            of_user = any(unit.startswith("user@") for unit in units[:-1])
            return Unit(units[-1], of_user=of_user)
    return None


def doom_of(pid: int, unit: Unit | None, shown: str) -> Doom | None:
    """Why jobs of the daemon with this pid end with it; None: they do not, as far as is known.

    shown: what `systemctl show` prints of the unit, if anything.
    """
    if pid == 1:
        return Doom(
            "it is process 1 of a container, with which all in there ends",
            "start it from an init that goes on without it",
        )
    found = _KILL_MODE.search(shown)
    if unit is None or found is None or found[1] not in _KILLING:
        return None
    edit = " ".join((*unit.systemctl, "edit", unit.name))
    return Doom(
        f"systemd ends them with {unit.name} (KillMode={found[1]})",
        f"put KillMode=process into its [Service] section ({edit}), as in the unit that comes"
        " with sysadmd",
    )


async def find() -> Doom | None:
    """As `doom_of` this process. Asks systemd, if we are in a service of it."""
    # Where there is no thread for it, it can't be known.
    with suppress(RuntimeError):
        return await apart(_find, "service manager")
    return None


def _find() -> Doom | None:
    unit = _own_unit()
    shown = ""
    if unit is not None:
        argv = [*unit.systemctl, "show", "-p", "KillMode", "--", unit.name]
        if unit.of_user:
            # By definition (pam_systemd(8)); systemctl finds a user's manager by it.
            argv = ["env", f"XDG_RUNTIME_DIR=/run/user/{os.geteuid()}", *argv]
        # Without an answer it can't be known.
        with suppress(ToolFailed):
            shown = ask(argv, TIMEOUT).output
    return doom_of(os.getpid(), unit, shown)


def _own_unit() -> Unit | None:
    try:
        return unit_of(Path("/proc/self/cgroup").read_text(errors="replace"))
    except OSError:
        return None
