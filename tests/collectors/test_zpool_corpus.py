"""Every recorded state of pools, answered by a stand-in `zpool` to the running daemon."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from collectors.zpool_output import COLUMNS
from tests.kit import Client, Daemon, wait_for
from tests.kit.corpus import ZPOOL, expected_pools, records
from tests.kit.pools import StandIn, watching


def whole_list(record: dict[str, Any]) -> bool:
    argv = record["argv"] or ()
    return len(argv) == 5 and " ".join(argv).startswith("zpool list -H -o name,size,alloc,free")


# The other files hold tries of names, options and moments: test_zpool_output reads those.
STATES = sorted(
    path.stem
    for path in ZPOOL.glob("*.jsonl")
    if any("spawn_error" in r or whole_list(r) for r in records(path.stem))
)
FAST = (
    *("ozfs-several-pools-one-bad", "fuse-capacity-over-90", "fuse-daemon-frozen"),
    *("ozfs-names-with-spaces", "ozfs-zpool-not-installed"),
)

# Change between two recorded commands.
LIVE = {"alloc", "free", "frag"}


def shown(client: Client) -> dict[str, Any]:
    """The state as a subscriber is shown it."""
    client.ask("events", "subscribe", {"systems": ["system-state"], "snapshot": True})
    while True:
        event = client.event()
        if event["name"] == "snapshot":
            client.ask("events", "unsubscribe", "system-state")
            client.events.clear()
            return event["args"]["system_state"] or {"zpools": {}}


# Recorded with what the list alone says. Since then files known to be damaged count: 6, however
# well the devices are, for nothing but their own zero counters speaks for them.
DAMAGED = {"ozfs-data-errors-no-redundancy": "6"}


def is_right(state: str, phase: int, args: dict[str, Any]) -> bool:
    wanted = expected_pools(state, phase)
    if wanted is None:
        return "error" in args
    pools = args["zpools"]
    if "error" in args or set(pools) != set(wanted):
        return False
    return all(
        pools[name]["priority"].split("/")[0] == DAMAGED.get(state, wanted[name]["priority"])
        and all(pools[name][c] == wanted[name][c] for c in COLUMNS if c not in LIVE)
        for name in wanted
    )


def replay(tmp_path: Path, states: list[str]) -> None:
    machine = StandIn(tmp_path)
    machine.put("ozfs-mirror-healthy", 1)
    settings = watching(str(machine.command)).replace("timeout = 1", "timeout = 4")
    wrong: dict[str, object] = {}
    with Daemon(tmp_path / "state", settings) as daemon, daemon.client() as client:
        wait_for(lambda: shown(client)["zpools"], "the first reading")
        for state in states:
            for phase in sorted({record.get("phase", 1) for record in records(state)}):
                machine.put(state, phase)
                try:
                    wait_for(lambda: is_right(state, phase, shown(client)), state)  # noqa: B023
                except AssertionError:
                    wrong[f"{state} {phase}"] = shown(client)
    assert not wrong, json.dumps(wrong)[:4000]


def test_a_selection_of_the_recorded_states_is_told_rightly(tmp_path: Path) -> None:
    replay(tmp_path, list(FAST))


@pytest.mark.long
@pytest.mark.parametrize("kind", ["fuse", "ozfs"])
def test_every_recorded_state_is_told_rightly(kind: str, tmp_path: Path) -> None:
    replay(tmp_path, [state for state in STATES if state.startswith(kind)])
