"""What to say beside an error: what the environment has overridden, and how to go on."""

from __future__ import annotations

import os
import socket
from typing import Final

from sysadmd.ctl import profile
from sysadmd.ctl.address import SERVER_PORT
from sysadmd.ctl.meant import LOGIN, PROFILE, STATE_DIR, Meant
from sysadmd.errors import SysadmdError
from sysadmd.machine import SYSTEM_STATE_DIR, default_state_dir

# Where a daemon of somebody else on this machine listens, if nobody has said otherwise.
PORT: Final = SERVER_PORT
# How long it is looked for there; s.
PATIENCE: Final = 0.5
UNAUTHORIZED: Final = 401


def advised(error: SysadmdError, meant: Meant) -> str:
    """What an error says, and what is to be known here beside it."""
    if error.code == "not-permitted":
        return f"{error}{_on_refusal(meant, getattr(error, 'number', None))}"
    if error.code != "unreachable":
        return str(error)
    others = _of_somebody_else(meant)
    return others or f"{error}{_on_silence(meant)}"


def _on_refusal(meant: Meant, number: int | None) -> str:
    if LOGIN in meant.by_environment:
        what = "your own account's login"
        if meant.profile is not None:
            what = f"what the profile {meant.profile} has"
        elif meant.target.state_dir is None:
            return f"; the token was that of {LOGIN}"
        return (
            f"; {LOGIN} is set, and its token was used in place of {what}: `unset {LOGIN}`"
            " undoes that"
        )
    # A key that does not log in is said with what to do.
    ours = meant.target.token and number == UNAUTHORIZED
    if meant.profile is not None and ours:
        return f"; `sysadmctl login {meant.profile}` does that"
    return ""


def _on_silence(meant: Meant) -> str:
    if STATE_DIR in meant.by_environment:
        return (
            f"; it was {STATE_DIR} that named the directory, before any profile: `unset"
            f" {STATE_DIR}` undoes that"
        )
    if PROFILE in meant.by_environment and meant.profile is not None:
        return (
            f"; it was {PROFILE} that named the profile {meant.profile}: `unset {PROFILE}`"
            " undoes that"
        )
    return _elsewhere(meant)


def _elsewhere(meant: Meant) -> str:
    """Was something kept where XDG_CONFIG_HOME does not lead now?"""
    base = os.environ.get("XDG_CONFIG_HOME")
    if not base or meant.target.state_dir is None or meant.profile is not None:
        return ""
    there = os.path.expanduser("~/.config/sysadmd/profiles.json")  # noqa: PTH111 - home or not
    if profile.path().exists() or not os.path.exists(there):  # noqa: PTH110
        return ""
    return f"; {there} does not count, since XDG_CONFIG_HOME is {base}"


def _of_somebody_else(meant: Meant) -> str | None:
    """An ordinary user has no daemon; is there one all the same?"""
    own = default_state_dir()
    named = meant.target.state_dir != own or STATE_DIR in meant.by_environment
    if named or os.geteuid() == 0 or (own / "endpoint.json").exists():
        return None
    begin = f"no daemon of yours runs (state directory {own})"
    if _listens(PORT):
        return (
            f"{begin}, but one listens on port {PORT} of this machine, most likely root's:"
            " `sysadmctl login localhost` logs in there"
        )
    if os.path.isdir(SYSTEM_STATE_DIR):  # noqa: PTH112 - as it is, readable or not
        return (
            f"{begin}, and root's ({SYSTEM_STATE_DIR}) does not listen on port {PORT}: ask its"
            " admin where it does, and `sysadmctl login localhost:PORT`"
        )
    return None


def _listens(port: int) -> bool:
    try:
        with socket.create_connection(("localhost", port), PATIENCE):
            return True
    except OSError:
        return False
