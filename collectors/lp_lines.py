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
# What stands where bytes are missing, as where they are no UTF-8.
MISSING: Final = "\ufffd"

# 18:00:02, 18.00.02, 18時00分02秒, 18 h 00 min 02 s: what stands between differs.
_TIME: Final = r"\d{1,2}\D{1,4}\d\d\D{1,5}\d\d"
# A date is short in every locale: a long line of digits costs no more than that.
_DATE: Final = re.compile(rf"^.{{0,64}}?{_TIME}.{{0,64}}?: ", re.DOTALL)
_FAILURES: Final = ("ERROR", "FAILED", "Failed", "Cannot")
STARTING: Final = "Starting replication "
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


# Of any wording of a failure, and what tells of the opposite.
FAILED: Final = 7
_SUCCESSES: Final = ("Creating snapshot on ", "Finished replication task on ")


@dataclass(frozen=True, slots=True)
class Message:
    """An event's worth of a line. date: as it stands there, "": it has none. follow: a
    replication has begun that writes to this file."""

    text: str
    kind: Kind
    priority: int
    date: str = ""
    follow: str | None = None
    dataset: str | None = None
    ends_replication: bool = False

    @property
    def outcome(self) -> Literal["success", "failure"] | None:
        """How what it is about went, if it says so."""
        if self.priority >= FAILED:
            return "failure"
        return "success" if self.text.startswith(_SUCCESSES) else None


# The wordings behind a date, wherever they stand in a line.
_WORDING: Final = re.compile(
    ": (?=" + "|".join([STARTING, *(re.escape(rule[0]) for rule in RULES)]) + ")"
)
# A failure, though it be glued to what was torn.
_FAILURE: Final = re.compile("(?=ERROR: |FAILED )|: (?=" + "|".join(_FAILURES) + ")")
# A date that is not at the line's beginning has a year, too; it ends where the text begins, and
# is no longer than this; characters.
_TIME_WITHIN: Final = re.compile(_TIME)
# Most have no blank in their time.
_CLOCK: Final = re.compile(r"\d{1,2}[^\d\s]{1,4}\d\d[^\d\s]{1,5}\d\d")
_YEAR: Final = re.compile(r"\d{4}")
DATE_LENGTH: Final = 128
# Where the date at the beginning says nothing of the shape of others, that of the C locale.
_C_DATE: Final = re.compile(r"[A-Z][a-z]{2} [A-Z][a-z]{2} [ \d]\d $")
# Dates of one locale differ by so much in length: a day or an hour of one digit, the zone.
_LENGTHS: Final = (0, -1, 1, -2, 2, -3, 3)
_NUMBER: Final = re.compile(r"\d+")
_WORD: Final = re.compile(r"[^\W\d_]+")
_BLANKS: Final = re.compile(" +")
_FIRST: Final = re.compile(r"\d+|[^\W\d_]+|")
# A file system that lost data leaves NULs; an editor's mark is where files were joined.
_HOLE: Final = re.compile("(\0+\ufeff*|\ufeff+)")
# A line with more holes is rubbish: it is read on as if they were text.
HOLES: Final = 64


def messages(line: bytes, *, cut: bool = False) -> list[Message]:
    """What a line says that anybody is told; usually one message or none. cut: it was longer.

    A damaged line can hold several: one that was torn (the disk was full, the machine went
    down) has the next one glued to it, or a hole. What is whole in it is told, each for itself.
    """
    text = line.decode("utf-8", "replace").rstrip("\r").lstrip(" ") + (CUT_MARK if cut else "")
    if "\0" not in text and "\ufeff" not in text:
        return _read(text, damaged=MISSING in text)
    piece, *others = _HOLE.split(text, HOLES)
    found = _read(piece, damaged=True)
    for hole, piece in zip(others[::2], others[1::2], strict=True):
        news = _read(piece, damaged=True)
        if not news and found and piece:
            # Only a part of what was said before is missing.
            between = MISSING if "\0" in hole else hole
            last = found[-1]
            found[-1] = _message(f"{last.text}{between}{piece}", last.date) or last
        found += news
    return found


def _read(text: str, *, damaged: bool) -> list[Message]:
    """The messages of a text without holes. damaged: its date need not be one any more."""
    # A failure is told even where the date is missing; a time in it is not its date.
    undated = text.startswith(_FAILURES)
    dated = None if undated else _DATE.match(text)
    begin = dated.end() if dated is not None else 0
    date = text[: max(0, begin - 2)]
    if begin and ": " not in (said := text[begin:]):
        # As nearly every line: no more than one date is in it.
        message = _message(said, date)
        if message is not None or not (damaged or _FAILURE.search(said)):
            return [message] if message is not None else []
    texts = [(date, text[begin:])]
    if _WORDING.search(text, begin) is not None:
        texts = _glued(text, begin, date)
    if not undated and dated is None:
        del texts[0]
    each = (_message(said, date) for date, said in texts)
    found = [message for message in each if message is not None]
    if not found and (dated is None or damaged):
        # Behind what is no date any more, or one without a time of day.
        found = _behind(_WORDING.search(text, 0, DATE_LENGTH), text)
    # Nor is a failure silent that stands where nobody would look for one.
    return found or _behind(_FAILURE.search(text, begin), text)


def _behind(found: re.Match[str] | None, text: str) -> list[Message]:
    message = _message(text[found.end() :]) if found is not None else None
    return [message] if message is not None else []


def _glued(text: str, begin: int, date: str) -> list[tuple[str, str]]:
    """Date and text of each of several lines that stand in one: the first begins here.

    date: of the first, without what separates it; empty: it has none.
    """
    texts: list[tuple[str, str]] = []
    own = date
    for wording in _WORDING.finditer(text, begin):
        before = text[max(begin, wording.start() - DATE_LENGTH) : wording.start()]
        length = _date_length(before.rpartition(": ")[2], date)
        if length:
            start = wording.start() - length
            texts.append((own, text[begin:start].rstrip("\r")))
            own, begin = text[start : wording.start()], wording.end()
    return [*texts, (own, text[begin:])]


def _date_length(before: str, date: str) -> int:
    """How much at the end of this is a date, in characters. 0: none is there.

    date: another one, of the same locale or not; empty: none is known.
    """
    time = _CLOCK.search(before) or _TIME_WITHIN.search(before)
    if time is None:
        return 0
    shape = _shape(date)
    for more in _LENGTHS if date else ():
        end = before[max(0, len(before) - len(date) - more) :]
        if _shape(end) == shape:
            return len(end)
    if _YEAR.search(before) is None:
        return 0
    known = _C_DATE.search(before, 0, time.start())
    return len(before) - (known.start() if known is not None else time.start())


def _shape(date: str) -> tuple[int, str]:
    """Equal for dates of one locale that begin with equally long words or numbers."""
    first = _FIRST.match(date)
    same = _NUMBER.sub("0", _WORD.sub("a", date))
    return len(first[0]) if first is not None else 0, _BLANKS.sub(" ", same)


def _message(text: str, date: str = "") -> Message | None:
    """What the text behind a date says; None: nothing that anybody is told."""
    if text.startswith(STARTING) and (starting := _STARTING.match(text)) is not None:
        return Message(
            *(text, "replication", 1, date),
            follow=starting["file"],
            dataset=starting["dataset"],
        )
    for beginning, kind, priority in RULES:
        if text.startswith(beginning):
            ends = text.startswith(("Finished replication task", "FAILED replication task"))
            return Message(text, kind, priority, date, ends_replication=ends)
    return None
