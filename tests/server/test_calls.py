"""Who calls a server over a bridge, whatever that bridge shows to whom."""

from __future__ import annotations

from pathlib import Path

from tests.kit.bridged import Bridged

# A bridge at which everybody sees and reaches everybody of the other side.
SHOWS_ALL = """
import server.bridge.roster as r
plain = r.Roster.enter
r.Roster.enter = lambda self, id, side, keys: plain(self, id, side, {*keys, "everybody's"})
"""


def test_a_key_that_the_server_does_not_know_opens_nothing_whoever_lets_it_through(
    tmp_path: Path,
) -> None:
    with Bridged(tmp_path, f"exec({SHOWS_ALL!r})") as world:
        world.let_in("alice", "mallory")
        world.server("one", ["alice"])
        done = world.ctl("mallory", "one")("identify")
        assert (done.returncode, done.stdout) == (69, "")
        assert "the key is not registered at the server" in done.stderr
        assert world.ctl("alice", "one")("identify").returncode == 0
