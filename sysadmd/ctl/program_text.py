"""Output of programs, made fit for a terminal: colours, lines drawn over themselves. Pure.

    text = ProgramText(colours=True)     # one for each command's output
    lines = text.feed(portion)           # lines that have ended, each with its "\\n"
    text.line                            # the line that has not, as it looks now
    rest = text.end()                    # that line, without "\\n"; the next begins anew
    harmless(whole, colours=False)       # all of it at once

Where a portion ends makes no difference. Obeyed is what draws a line anew (`\\r`, `\\b`, erase
in line, go to a column; hiding the cursor is left out), so of a progress bar its last state
stays; and colours and weights (SGR): each line has its own, and ends without any. Without
`colours` they are left out. All else is written out as `sysadmd.text.printable` does it: no
other escape is let through, whatever the program writes. A line is at most LONGEST_LINE
characters, a longer one goes on as the next. Into a pipe output goes as it is.
"""

from __future__ import annotations

import itertools
import re
from typing import Final

from sysadmd.text import printable

# Characters of a line that is kept until its end comes.
LONGEST_LINE: Final = 4096
# Characters of an escape sequence; what is longer is none.
_LONGEST_ESCAPE: Final = 64
_SPECIAL: Final = re.compile(r"[\r\b\x1b]")
# Source: ECMA-48, 5.4 and 8.3: CSI with parameters, and the functions EL, CHA and SGR.
_CSI: Final = re.compile(r"\x1b\[([0-9;:]{0,60}|\?25)([mKGhl])")
_BEGUN: Final = re.compile(r"\x1b(?:\[(?:\?2?5?|[0-9;:]{0,60}))?\Z")
_PARTS: Final = re.compile(r"\x1b|\r|\x08|[^\r\b\x1b]+")
# Which of these a parameter of SGR sets, and what ends it. Hidden text (8) is not wanted, nor
# are other fonts and frames.
_SET: Final = {
    **dict.fromkeys((1, 2), "weight"),
    3: "slant",
    **dict.fromkeys((4, 21), "underline"),
    7: "reverse",
    9: "struck",
    **dict.fromkeys((*range(30, 38), *range(90, 98)), "fg"),
    **dict.fromkeys((*range(40, 48), *range(100, 108)), "bg"),
}
_UNSET: Final = {
    22: "weight",
    23: "slant",
    24: "underline",
    27: "reverse",
    29: "struck",
    39: "fg",
    49: "bg",
}
# Of 38 and 48: how many more parameters follow the kind of colour.
_MORE: Final = {"5": 1, "2": 3}
_RESET: Final = "\x1b[0m"


class ProgramText:
    """The output of one program, fed as it comes."""

    def __init__(self, *, colours: bool) -> None:
        self._colours = colours
        # The current line: each character with the parameters of SGR in force for it.
        self._cells: list[tuple[str, str]] = []
        self._cursor = 0
        self._style: dict[str, str] = {}
        self._now = ""
        # An escape sequence whose end has not come.
        self._held = ""

    def feed(self, text: str) -> str:
        """The lines that have ended with this."""
        text, self._held = self._held + text, ""
        begun = _BEGUN.search(text, max(0, len(text) - _LONGEST_ESCAPE))
        if begun is not None:
            text, self._held = text[: begun.start()], begun[0]
        return "".join(self._lines(text))

    @property
    def line(self) -> str:
        """The line that has not ended, as it looks now; may be empty."""
        return _drawn(self._cells)

    def end(self) -> str:
        """That line at its end, without `\\n`. What is fed next is another program's."""
        held, self._held = self._held, ""
        whole = "".join(self._put(printable(held)))
        rest = self.line
        self._cells, self._cursor, self._style, self._now = [], 0, {}, ""
        return whole + rest

    def _lines(self, text: str) -> list[str]:
        out: list[str] = []
        pieces = text.split("\n")
        for number, piece in enumerate(pieces):
            last = number == len(pieces) - 1
            plain = not self._cells and not self._now and len(piece) <= LONGEST_LINE
            if not last and plain and not _SPECIAL.search(piece):
                shown = printable(piece, lines=True)
                if len(shown) <= LONGEST_LINE:
                    out.append(f"{shown}\n")
                    continue
            out += self._draw(piece)
            if not last:
                out.append(f"{self.line}\n")
                self._cells, self._cursor = [], 0
        return out

    def _draw(self, piece: str) -> list[str]:
        """Draw a part of a line; lines that have become too long."""
        out: list[str] = []
        at = 0
        while at < len(piece):
            found = _CSI.match(piece, at)
            if found is not None and self._obey(found[1], found[2]):
                at = found.end()
                continue
            part = _PARTS.match(piece, at)
            assert part is not None
            at = part.end()
            if part[0] == "\r":
                self._cursor = 0
            elif part[0] == "\b":
                self._cursor = max(0, self._cursor - 1)
            else:
                out += self._put(printable(part[0], lines=True))
        return out

    def _put(self, text: str) -> list[str]:
        """Write printable text over what is there."""
        out: list[str] = []
        at = 0
        while at < len(text):
            room = LONGEST_LINE - self._cursor
            if room <= 0:
                out.append(f"{self.line}\n")
                self._cells, self._cursor, room = [], 0, LONGEST_LINE
            now = text[at : at + room]
            at += len(now)
            self._cells += [(" ", "")] * (self._cursor - len(self._cells))
            end = self._cursor + len(now)
            self._cells[self._cursor : end] = [(char, self._now) for char in now]
            self._cursor = end
        return out

    def _obey(self, parameters: str, function: str) -> bool:
        """Do what a sequence asks for; False: that is not for it to ask."""
        if parameters == "?25":
            return function in "hl"
        if function == "m":
            if self._colours:
                self._colour(parameters)
            return True
        if function not in "KG" or (parameters and not parameters.isdecimal()):
            return False
        number = min(int(parameters or "0"), LONGEST_LINE)
        if function == "G":
            self._cursor = max(0, number - 1)
            return True
        if number > 2:
            return False
        if number == 1:
            blanks = min(self._cursor + 1, len(self._cells))
            self._cells[:blanks] = [(" ", "")] * blanks
        else:
            del self._cells[0 if number else self._cursor :]
        return True

    def _colour(self, parameters: str) -> None:
        words = parameters.split(";")
        while words:
            word = words.pop(0)
            if word.partition(":")[0] in ("38", "48"):
                slot = "fg" if word.startswith("3") else "bg"
                if ":" not in word:
                    kind = words.pop(0) if words else ""
                    count = _MORE.get(kind, len(words))
                    more, words = words[:count], words[count:]
                    if kind not in _MORE or len(more) < count:
                        continue
                    word = ";".join((word, kind, *more))
                self._style[slot] = word
                continue
            number = int(word.partition(":")[0] or "0")
            if number == 0:
                self._style.clear()
            elif number in _SET:
                self._style[_SET[number]] = str(number)
            elif number in _UNSET:
                self._style.pop(_UNSET[number], None)
        self._now = ";".join(self._style.values())


def harmless(text: str, *, colours: bool) -> str:
    """All that a program has written, at once."""
    program = ProgramText(colours=colours)
    return program.feed(text) + program.end()


def _drawn(cells: list[tuple[str, str]]) -> str:
    out: list[str] = []
    for style, group in itertools.groupby(cells, key=lambda cell: cell[1]):
        text = "".join(char for char, _ in group)
        out.append(f"\x1b[{style}m{text}{_RESET}" if style else text)
    return "".join(out)
