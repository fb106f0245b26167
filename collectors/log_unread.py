"""What beside a log can't be read: told once of each file, however often it is tried."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from collectors.log_folder import FileRefused
from collectors.log_generations import Generation
from collectors.log_marks import EVERYTHING, UNREAD, KnownFile
from sysadmd.text import printable

# Of so many files of one look the names are told; of more, how many.
NAMED: Final = 3


class Unread:
    """The files of one folder."""

    def __init__(self, lose: Callable[[str], None]) -> None:
        """lose: is told what is passed over unread, and why."""
        self._lose = lose
        self._new: list[str] = []

    def refuse(
        self, generation: Generation, error: FileRefused, files: list[KnownFile]
    ) -> None:
        """It is none that is read; `files` has it from now on."""
        self._note(generation, EVERYTHING, f"{error.strerror}; its lines are not told", files)

    def fail(self, generation: Generation, error: OSError, files: list[KnownFile]) -> None:
        """It could not be read, and is tried again; `files` has it from now on."""
        text = f"can't be read ({error.strerror}); its lines are not told before it can"
        self._note(generation, UNREAD, text, files)

    def _note(
        self, generation: Generation, offset: int, text: str, files: list[KnownFile]
    ) -> None:
        new = KnownFile(generation.stamp, offset=offset)
        for number, known in enumerate(files):
            if not known.head and (*known.stamp[:2], known.offset) == (
                *generation.identity,
                offset,
            ):
                # Who writes to it all the time makes it no other.
                files[number] = new
                return
        files.append(new)
        self._new.append(f"{printable(generation.name)} {text}")

    def tell(self) -> None:
        """What is new since it was told last."""
        for text in self._new[:NAMED]:
            self._lose(text)
        if len(self._new) > NAMED:
            self._lose(f"and {len(self._new) - NAMED} more files are not read")
        self._new.clear()
