"""The host name: of any bytes, renamed, and watched by nobody."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from sysadmd.machine import host_name
from tests.kit import Client, Daemon, needs_root, wait_for
from tests.kit.daemon import following
from tests.kit.pools import next_state

ASK = {"systems": ["system-state"], "since": "oldest"}
RENAME = "import socket; socket.sethostname({!r})"


def settings(log: Path, *, watched: bool) -> str:
    text = f"enabled = {str(watched).lower()}\ninterval = 0.1"
    return following(log).replace("enabled = false", text, 1)


def tell_trouble(log: Path) -> None:
    """Something else than the host's name is worth an event."""
    log.mkdir()


def read_name(client: Client) -> object:
    client.events.clear()
    client.ask("events", "subscribe", {"systems": ["system-state"], "snapshot": True})
    (*_, frame) = client.until(lambda frame: frame["name"] == "snapshot")
    return frame["args"]["system_state"].get("hostname")


def test_a_name_that_nobody_watches_is_the_machines_own(tmp_path: Path) -> None:
    log = tmp_path / "lpreserver.log"
    with Daemon(tmp_path / "state", following(log)) as daemon, daemon.client() as client:
        client.ask("events", "subscribe", ASK)
        tell_trouble(log)
        state = next_state(client, lambda args: "error" in args)
        assert (state["hostname"], state["hostnamechanged"]) == (host_name(), "false")


def test_a_name_that_is_watched_no_more_is_forgotten(tmp_path: Path) -> None:
    needs_root("unshare", "nsenter")
    log = tmp_path / "lpreserver.log"
    wrapper = ("unshare", "--uts", "--")
    watched, unwatched = (settings(log, watched=watched) for watched in (True, False))
    with Daemon(tmp_path / "state", watched, wrapper=wrapper) as daemon:

        def rename(name: bytes) -> None:
            inside = ["nsenter", "-t", str(daemon.pid), "-u", "--"]
            subprocess.run([*inside, sys.executable, "-c", RENAME.format(name)], check=True)

        with daemon.client() as client, daemon.client() as reader:
            client.ask("events", "subscribe", ASK)
            rename(b"one")
            next_state(client, lambda args: args["hostname"] == "one")
            # Not UTF-8: told as any other.
            rename(b"tw\xff")
            state = next_state(client, lambda args: args["hostname"] == "tw\ufffd")
            assert state["previous_hostname"] == "one"
            daemon.config.write_text(unwatched)
            daemon.reload()
            # Nothing is known that could be shown before there is a reading again.
            wait_for(lambda: read_name(reader) is None, "the name to be forgotten")
            rename(b"three")
            tell_trouble(log)
            state = next_state(client, lambda args: True)
            assert "error" in state
            assert (state["hostname"], state["hostnamechanged"]) == ("three", "false")
            daemon.config.write_text(watched)
            daemon.reload()
            # It is a first look, and no change.
            wait_for(lambda: read_name(reader) == "three", "a look")
            rename(b"four")
            state = next_state(client, lambda args: True)
            assert (state["hostname"], state["previous_hostname"]) == ("four", "three")
