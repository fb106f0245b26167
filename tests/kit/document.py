"""The shapes of events.rst, as checks. Every frame that a client of a test gets passes here."""

from __future__ import annotations

import re
from typing import Any

SYSTEMS = {"dispatcher", "life_preserver", "system_state"}
PRIORITY = re.compile(r"(10|[0-9])/(Information|Warning|Critical|Urgent)")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
POOL = {
    *("size", "alloc", "free", "frag", "expandsz", "dedup", "altroot", "capacity", "health"),
}
EXTENSION = {"cursor", "prev", "time", "merged", "more"}
CATEGORY = {range(3): "Information", range(3, 6): "Warning", range(6, 9): "Critical"}


def check_frame(frame: dict[str, Any]) -> None:
    """Fail if an event's frame is not of the document's shape; other frames pass."""
    if frame["namespace"] != "events" or frame["name"] in ("response", "error"):
        return
    extended = "cursor" in frame
    keys = set(frame)
    assert keys - (EXTENSION if extended else set()) == {"namespace", "name", "id", "args"}, (
        frame
    )
    assert frame["id"] == "none"
    if frame["name"] not in SYSTEMS:
        assert extended and frame["name"] in {"gap", "snapshot", "heartbeat"}, frame
        return
    args: dict[str, Any] = frame["args"]
    if frame["name"] == "dispatcher":
        check_dispatcher(args)
    elif frame["name"] == "life_preserver":
        assert set(args) == {"message", "priority", "class"}
        assert isinstance(args["message"], str)
        assert args["class"] in ("snapshot", "replication")
        check_priority(args["priority"])
    else:
        check_system_state(args)


def check_priority(text: str) -> None:
    match = PRIORITY.fullmatch(text)
    assert match, text
    word = next((w for r, w in CATEGORY.items() if int(match[1]) in r), "Urgent")
    assert match[2] == word, text


def check_dispatcher(args: dict[str, Any]) -> None:
    assert args["state"] in ("pending", "running", "finished")
    assert isinstance(args["process_id"], str)
    if args["state"] == "pending" and "event_system" not in args:
        assert set(args) == {"state", "process_id"}
        return
    details = args["process_details"]
    assert details["state"] == args["state"]
    assert details["process_id"] == args["process_id"]
    if args["state"] == "pending":
        return
    assert TIME.fullmatch(details["time_started"])
    commands = details["cmd_list"]
    assert all(isinstance(command, str) for command in commands)
    if args["state"] == "finished":
        assert TIME.fullmatch(details["time_finished"])
        assert details["result"] in ("succeeded", "failed", "killed", "timed-out", "lost")
        assert "current_cmd" not in details
    elif commands:
        assert details["current_cmd"] in commands
    documented = {
        *("state", "process_id", "time_started", "time_finished", "cmd_list", "current_cmd"),
        *("commands", "result"),
    }
    for key, value in details.items():
        if key in documented:
            continue
        command = key.removeprefix("return_codes/")
        assert command in commands, key
        assert isinstance(value, str)
        if key != command:
            assert re.fullmatch(r"-?\d+", value), (key, value)
    for number, entry in enumerate(details.get("commands", [])):
        assert entry["command"] == commands[number]
        assert entry["state"] in ("pending", "running", "finished", "skipped")


def check_system_state(args: dict[str, Any]) -> None:
    assert isinstance(args["hostname"], str)
    assert args["hostnamechanged"] in ("true", "false")
    check_priority(args["priority"])
    for pool in args["zpools"].values():
        assert set(pool) >= POOL
        assert all(isinstance(pool[key], str) for key in POOL)
        check_priority(pool["priority"])
