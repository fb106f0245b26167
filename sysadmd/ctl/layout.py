"""How a line stands in a terminal: columns that shrink, text that goes on below. Pure.

Nothing is ever cut: what has no room in a line goes on in the next.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

# From so many columns on everything is aligned; below the other, nothing but the time is.
_WIDE: Final = 100
_NARROW: Final = 60
# Under the text of a line, what goes on begins there in a narrow terminal.
_INDENT: Final = 2
_TAGS: Final = {
    "dispatcher": "jobs",
    "life-preserver": "lp",
    "system-state": "state",
    "gap": "gap",
    "snapshot": "state",
}
_SYSTEM: Final = max(map(len, ("life-preserver", *_TAGS)))
_TAG: Final = max(map(len, _TAGS.values()))
_WORD: Final = len("information")
_SHORT_WORD: Final = len("critical")


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """What stands before an event's text. word: of its priority."""

    time: str
    system: str
    word: str


def head(columns: Columns, width: int | None) -> str:
    """The columns, for a terminal so wide; None: for none, where a program reads."""
    tag = _TAGS.get(columns.system, columns.system)
    if width is None or width >= _WIDE:
        return f"{columns.time}  {columns.system:<{_SYSTEM}}  {columns.word:<{_WORD}}  "
    short = "info" if columns.word == "information" else columns.word
    if width >= _NARROW:
        return f"{columns.time}  {tag:<{_TAG}}  {short:<{_SHORT_WORD}}  "
    # What is as usual need not be said where there is so little room.
    quiet = "" if columns.word == "information" else f"{short} "
    return f"{columns.time} {tag} {quiet}"


def lay_out(before: str, text: str, width: int | None) -> list[str]:
    """The lines of a text that has `before` in its first; printable. None: one line.

    None is wider than the terminal, unless it is too narrow for the beginning and a character.
    """
    if width is None:
        return [before + text]
    indent = len(before) if width >= _NARROW and 2 * len(before) <= width else _INDENT
    return _wrapped(before, text, width, " " * min(indent, max(0, width - 2)))


def _wrapped(before: str, text: str, width: int, indent: str) -> list[str]:
    """Between words, where a word fits into a line; else within it."""
    from rich.cells import cell_len

    lines: list[str] = []
    line, used = before, cell_len(before)
    # Nothing stands in the line yet.
    fresh = not before.strip(" ")
    for word in _words(text):
        size = cell_len(word)
        if used + len(word.rstrip(" ")) <= width and used + cell_len(word.rstrip(" ")) <= width:
            line, used, fresh = line + word, used + size, False
            continue
        if not fresh and len(indent) + cell_len(word.rstrip(" ")) <= width:
            lines.append(line.rstrip(" "))
            line, used = indent + word, len(indent) + size
            continue
        for character in word:
            size = cell_len(character)
            if used + size > width and character != " " and not (fresh and line == indent):
                lines.append(line.rstrip(" "))
                line, used, fresh = indent, len(indent), True
            line, used = line + character, used + size
            fresh = fresh and character == " "
    lines.append(line.rstrip(" ") if text.strip(" ") else line)
    return lines


def _words(text: str) -> list[str]:
    """The words, each with the spaces behind it."""
    words: list[str] = []
    begin = 0
    for at in range(1, len(text)):
        if text[at - 1] == " " and text[at] != " ":
            words.append(text[begin:at])
            begin = at
    words.append(text[begin:])
    return words
