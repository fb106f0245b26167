"""What a line of Life Preserver's log says: pure text to value. No file, no state.

Source: Life Preserver's backend of 2018, 28 different messages: `<output of date>: <text>`.
The date is of any locale, so the text begins at the first ": " behind a time of day.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["snapshot", "replication"]

CUT_MARK: Final = " [... cut]"

# A date is short in every locale: a long line of digits costs no more than that.
# 18:00:02, 18.00.02, 18時00分02秒, 18 h 00 min 02 s: what stands between differs.
_TEXT: Final = re.compile(
    r"^.{0,64}?\d{1,2}\D{1,4}\d\d\D{1,5}\d\d.{0,64}?: (?P<text>.*)$", re.DOTALL
)
_FAILURES: Final = ("ERROR", "FAILED", "Failed", "Cannot")
_STARTING: Final = re.compile(
    r"Starting replication (?:SYNC|SCHEDULED) task on (?P<dataset>.+): (?P<file>/.+)$",
    re.DOTALL,
)

# The beginning of a text -> class and priority. The first that fits counts; what fits none of
# them gives no event. No failure is silent: any wording of one is at least a 7.
RULES: Final[tuple[tuple[str, Kind, int], ...]] = (
    ("Creating snapshot on ", "snapshot", 1),
    ("Finished replication task on ", "replication", 1),
    ("WARNING: Skipping ", "snapshot", 4),
    ("WARNING: Skipped pruning snapshots on ", "snapshot", 4),
    ("WARNING: Failed to set lifepreserver-prop:", "replication", 4),
    ("Skipped replication on ", "replication", 4),
    ("Skipped pruning of remote datasets", "replication", 4),
    ("ERROR", "snapshot", 7),
    ("FAILED", "replication", 7),
    ("Failed", "replication", 7),
    ("Cannot", "replication", 7),
)


@dataclass(frozen=True, slots=True)
class Message:
    """An event's worth of a line. follow: a replication has begun that writes to this file."""

    text: str
    kind: Kind
    priority: int
    follow: str | None = None
    dataset: str | None = None
    ends_replication: bool = False


def classify(line: str) -> Message | None:
    """What a whole line says; None: nothing that anybody is told."""
    match = _TEXT.match(line)
    # A failure is told even where the date is missing.
    if match is None and not line.startswith(_FAILURES):
        return None
    text = match["text"] if match is not None else line
    starting = _STARTING.match(text)
    if starting is not None:
        return Message(
            text, "replication", 1, follow=starting["file"], dataset=starting["dataset"]
        )
    for beginning, kind, priority in RULES:
        if text.startswith(beginning):
            ends = text.startswith(("Finished replication task", "FAILED replication task"))
            return Message(text, kind, priority, ends_replication=ends)
    return None
