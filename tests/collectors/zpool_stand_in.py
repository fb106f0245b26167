"""A `zpool` that answers as a recorded one did: `zpool_stand_in.py DIRECTORY ARGUMENTS…`.

DIRECTORY holds `records.jsonl`, the records of the state of the pools that it is to be in.
"""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import Any

# `zpool list -o` takes short names, too.
LONG_NAMES = {"cap": "capacity", "expandsize": "expandsz"}


def answer(records: list[dict[str, Any]], arguments: list[str]) -> dict[str, Any]:
    """The record that fits; of a list with other columns, one with them put in order."""
    if arguments[:1] == ["events"]:
        return {"rc": None}
    exact = [r for r in records if r["argv"][1:] == arguments]
    if exact:
        return exact[0]
    if arguments[:3] == ["list", "-H", "-o"]:
        return in_columns(records, arguments[3].split(","))
    if arguments == ["status", "-p"]:
        if not any("-p" in r["argv"] for r in records):
            return {"rc": 2, "stdout": "", "stderr": "invalid option 'p'\n"}
        # Recorded without it; the counts look the same.
        return answer(records, ["status"])
    # A state without a status on record: nothing is known beyond the list.
    nothing = {"rc": 0, "stdout": "", "stderr": ""}
    return next((r for r in records if r["argv"][1] == arguments[0]), nothing)


def in_columns(records: list[dict[str, Any]], wanted: list[str]) -> dict[str, Any]:
    """The recorded list with the most columns, in this order; or its complaint about one."""
    lists = [r for r in records if r["argv"][1:4] == ["list", "-H", "-o"] and not r["argv"][5:]]
    good = [r for r in lists if r["rc"] == 0]
    if not good:
        # It said the same whatever it was asked.
        return next(r for r in records if r["argv"][1] == "list")
    fullest = max(good, key=lambda record: len(record["argv"][4]))
    names = [LONG_NAMES.get(name, name) for name in fullest["argv"][4].split(",")]
    lacking = [name for name in wanted if name not in names]
    if lacking:
        text = f"bad property list: invalid property '{lacking[0]}'\nusage:\n"
        return {"rc": 2, "stdout": "", "stderr": text}
    rows = [line.split("\t") for line in fullest["stdout"].splitlines()]
    lines = ["\t".join(row[names.index(name)] for name in wanted) + "\n" for row in rows]
    return {**fullest, "stdout": "".join(lines)}


def main() -> int:
    directory, *arguments = sys.argv[1:]
    lines = (Path(directory) / "records.jsonl").read_text().splitlines()
    record = answer([json.loads(line) for line in lines], arguments)
    status: int | None = record["rc"]
    if status is None:
        signal.pause()
        return 1
    sys.stdout.write(record["stdout"])
    sys.stderr.write(record["stderr"])
    return status


if __name__ == "__main__":
    sys.exit(main())
