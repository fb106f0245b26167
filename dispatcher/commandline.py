"""Commands as people write them: text to argument vectors and back. Never a shell or a process.

Spaces and tabs separate arguments; `"` groups; three quotes in a row stand for one; `""` alone
is an empty argument. Source: QProcess::splitCommand of the original, which had no empty ones.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from sysadmd.errors import BadRequest

_PIECES = re.compile(r'"+|[ \t]+|[^" \t]+')


@dataclass(frozen=True, slots=True)
class Spec:
    """What is to be run: the argument vector, and the text that people see for it."""

    argv: tuple[str, ...]
    text: str


def split(text: str) -> tuple[str, ...]:
    """The argument vector of a command line; empty if it is blank.

    Raises: BadRequest if a quote is left open.
    """
    arguments: list[str] = []
    # Of the argument that has begun.
    pieces: list[str] = []
    grouped = False
    for piece in _PIECES.findall(text):
        if piece[0] == '"':
            # Three in a row are a quote; of what is left, two are an empty group.
            pieces.append('"' * (len(piece) // 3))
            grouped ^= len(piece) % 3 == 1
        elif grouped or piece[0] not in " \t":
            pieces.append(piece)
        elif pieces:
            arguments.append("".join(pieces))
            pieces.clear()
    if grouped:
        raise BadRequest(
            'has a quote that is not closed; write " in pairs, or """ for a quote itself'
        )
    if pieces:
        arguments.append("".join(pieces))
    return tuple(arguments)


def join(argv: Sequence[str]) -> str:
    """The text that `split` takes apart into exactly this vector."""
    return " ".join(map(_quote, argv))


def _quote(argument: str) -> str:
    if not argument:
        return '""'
    escaped = argument.replace('"', '"""')
    return f'"{escaped}"' if " " in argument or "\t" in argument else escaped


def parse_command(value: str | Sequence[str], field: str = "command") -> Spec | None:
    """A command given as text or as argument vector; None: blank text, which is dropped.

    field: how the caller names the place of `value`, for the error's text.
    Raises: BadRequest, naming the field and what is allowed.
    """
    if isinstance(value, str):
        text = value
        try:
            argv = split(value)
        except BadRequest as error:
            raise BadRequest(f"{field} {error}") from error
        if not argv:
            return None
    else:
        argv = tuple(value)
        if not argv:
            raise BadRequest(
                f"{field} is an empty list; allowed: the program and its arguments,"
                " at least one text"
            )
        text = join(argv)
    check_text(text, field)
    return Spec(argv, text)


def check_text(text: str, field: str) -> None:
    """Raises: BadRequest for text that can't be handed to a program."""
    if "\0" in text:
        raise BadRequest(f"{field} has a NUL character; allowed: any text without NUL")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BadRequest(
            f"{field} has half of a surrogate pair; allowed: text that can be written as UTF-8"
        ) from error
