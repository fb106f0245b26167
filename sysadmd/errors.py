"""The errors that cross a room's door, named for the fact. Wire codes are the server's."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Final, cast

# What reading a frame raises that has not the form of the protocol; arithmetic: with 1e999.
GARBLED: Final = (
    *(ValueError, LookupError, TypeError, AttributeError),
    *(RecursionError, ArithmeticError),
)


class SysadmdError(Exception):
    """Root of every expected error. `code` is a stable word; str() says what to do about it."""

    code = "error"


class BadRequest(SysadmdError):
    """What was asked for can't be read or is out of range. The text names field and range."""

    code = "bad-request"


class NotFound(SysadmdError):
    """There is no such job, command, queue or log."""

    code = "not-found"


class NothingFound(SysadmdError):
    """What was looked for was looked for well, and there is nothing of it."""

    code = "nothing-found"


class ToolFailed(SysadmdError):
    """A program of this machine did not answer a question; the text has what it said."""

    code = "tool-failed"


class Conflict(SysadmdError):
    """What was asked for contradicts what is there already."""

    code = "conflict"


class Stopping(SysadmdError):
    """The daemon is going down and takes nothing new."""

    code = "stopping"


class StoreFull(SysadmdError):
    """The disk takes nothing, most often since it is full: nothing of the change was kept."""

    code = "no-space"


class StoreLocked(StoreFull):
    """Another process holds the state file; as with a full disk, nothing was kept."""

    code = "locked"


class StoreLost(StoreFull):
    """The files at the daemon's paths are not those that it has open; nothing was kept."""

    code = "store-lost"


class StoreDamaged(StoreFull):
    """`state.db` can't be read where this was to be read, or changed."""

    code = "damaged"


class StoreUnusable(SysadmdError):
    """`state.db` is newer than this program, or not of it; it is unchanged."""

    code = "store-unusable"


class SettingsInvalid(SysadmdError):
    """The configuration has mistakes; `problems` has one line for each of them."""

    code = "settings-invalid"

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class CannotStart(SysadmdError):
    """The daemon can't run here and now; the text says why and what to do."""

    code = "cannot-start"


class CannotStop(SysadmdError):
    """The daemon, or a job of it, does not end; the text says why and what to do."""

    code = "cannot-stop"


class BackupUnusable(SysadmdError):
    """What was to be restored or checked is no backup, or not what was saved."""

    code = "backup-unusable"


class BackupFailed(SysadmdError):
    """No backup was made; nothing of it is left."""

    code = "backup-failed"


def no_sysadmd(error: BaseException) -> str:
    """What is to be said when a reply has not the form of the protocol."""
    return f"what answers there is no sysadmd, or too new: {error!r}"


@contextmanager
def first_alone() -> Generator[None]:
    """Of a group of errors that are expected the first one alone is raised."""
    try:
        yield
    except* SysadmdError as errors:
        lost: BaseException = errors
        while isinstance(lost, BaseExceptionGroup):
            several = cast("BaseExceptionGroup[BaseException]", lost)
            lost = several.exceptions[0]
        raise lost from None
