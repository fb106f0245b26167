"""What freebsd-update says of a job of sysadm/update. Text in, fields out; no file, no process.

Not for `pkg upgrade`, by which a system of packages updates its base.

Source: freebsd-update.sh of FreeBSD 13.2, and of 15 for what it says since. A step is told
without a newline, and ended by `done.` later, so it is read by what has come, not by the line.
Exit status 0 does not mean installed, nor 1 that nothing was fetched: text alone is judged.
"""

from __future__ import annotations

import re
from typing import Any, Final

from dispatcher.reports import Fields
from server.job_classes.progress import JobProgress
from sysadmd.text import printable

# Of a line only its beginning is kept: a path has 1024 bytes, other lines far less.
_LINE: Final = 2048
# In so many bytes a line has said which step it is of.
_HEAD: Final = 96

_STEP: Final = re.compile(
    rb"(?P<mirrors>Looking up )"
    rb"|(?P<key>Fetching public key from )"
    rb"|(?P<index>Fetching metadata (?:signature|index))"
    rb"|(?P<metadata>Fetching \d{1,9} metadata (?:patches|files)|Applying metadata patches)"
    rb"|(?P<inspect>Inspecting system)"
    rb"|(?P<prepare>Preparing to download files)"
    rb"|(?P<patches>Fetching (?P<of_patches>\d{1,9}) patches\.)"
    rb"|(?P<apply>Applying patches)"
    rb"|(?P<files>Fetching (?P<of_files>\d{1,9}) files\.\.\. )"
    rb"|(?P<result>The following files |No updates (?:needed|are available) "
    rb"|There are updates )"
    rb"|(?P<install>Creating snapshot of existing boot environment|Installing updates\.\.\.)"
)
# Where in a fetch each step begins. Looking at each file of the system takes minutes, silently.
_BEGINS: Final = {
    "mirrors": 0.01,
    "key": 0.02,
    "index": 0.03,
    "metadata": 0.05,
    "inspect": 0.10,
    "prepare": 0.50,
    "patches": 0.60,
    "apply": 0.80,
    "files": 0.85,
    "result": 0.99,
}
# What fetching is of a job that installs as well; and where one begins that only installs.
_FETCHING: Final = 0.8
_ONLY_INSTALLING: Final = 0.05

_SIGNS: Final = re.compile(rb"\.+|\d+|[^.\d]")
_LIST: Final = re.compile(
    rb"The following files (?:will be (updated|added|removed) as part of|are affected by)"
)
# What may stand between the first line of a list and its paths.
_OF_HEADING: Final = frozenset(
    (b"been downloaded, however, because the files have been modified", b"locally:")
)
_RELEASE: Final = re.compile(rb"([0-9A-Za-z][0-9A-Za-z.+_-]{0,63}):")
_NONE_NEEDED: Final = re.compile(
    rb"No updates needed to update system to ([0-9A-Za-z][0-9A-Za-z.+_-]{0,63})\."
)
_AGAIN: Final = re.compile(rb"(?:[\"'].*install[\"'] )?again to finish installing updates")

# So many problems are kept, and so many characters of each.
_MOST: Final = 50
_LENGTH: Final = 500

# A complaint's beginning, and over how many lines it goes.
_COMPLAINTS: Final = tuple(
    (re.compile(wording), lines)
    for wording, lines in (
        (rb"WARNING: .* (?:is approaching its|HAS PASSED ITS) ", 3),
        (rb"Files on mirror ", 3),
        (rb"The update metadata.* is correctly signed, but", 3),
        (rb"Updates cannot be installed when the system securelevel", 2),
        (rb"Error processing configuration file", 2),
        (rb"WARNING: ", 1),
        (rb"freebsd-update: ", 1),
        (rb".* should not be run non-interactively", 1),
        (rb"\S+ is incompatible with the use of packaged base", 1),
        (rb"No mirrors remaining, giving up", 1),
        (rb"You have a partially completed upgrade pending", 1),
        (rb"You must be root to run this", 1),
        (rb"File does not exist or is not readable: ", 1),
        (rb"The specified jail either doesn't exist", 1),
    )
)
# The last line of a complaint over several.
_LAST: Final = (
    b"Cowardly refusing",
    b"will not have been corrected",
    b"release within the next",
    b"is greater than zero",
    b"==> ",
)
# What may also follow on the line of a step, and says enough without it.
_ANYWHERE: Final = re.compile(
    rb"(?:[0-9a-f]{64} has incorrect hash\."
    rb"|Cannot read file: .*"
    rb"|Unknown file type: .*"
    rb"|File changed while FreeBSD Update running: .*"
    rb"|Cannot identify running kernel"
    rb"|Could not create kernel backup directory"
    rb"|Update (?:manifest is corrupt|files missing) .*"
    rb"|[A-Za-z0-9_.+-]{1,64}: [^:]{1,1024}: (?:[^:]{1,64}: )?(?:No space left on device"
    rb"|Read-only file system|Operation not permitted|Permission denied|Input/output error))$"
)
# How a step ends that has failed.
_FAILED: Final = (
    b" failed.",
    b" invalid signature.",
    b" key has incorrect hash.",
    b" metadata is corrupt.",
    b" update metadata index corrupt.",
)


class UpdateReport:
    """A `Report` of freebsd-update's `fetch` and `install`, by one command or by two.

    Its fields are those of `fields` and `ended`; of lists the paths are counted, not kept.
    """

    def __init__(self, accepted: Fields, told: Fields) -> None:
        """accepted["action"]: checkupdates, startupdate, applyupdate."""
        self._whole = accepted.get("action") == "checkupdates"
        self._progress = JobProgress(told)
        self._problems = _UpdateProblems()
        self._command = 0
        self._line = bytearray()
        # Whether the line has said its step; whether the signs of its progress are running.
        self._stepped = self._counting = False
        self._counter = _SignCounter()
        # Patches and files: how many were announced.
        self._patches = self._files = 0
        self._fetching = self._installing = self._kernel = False
        self._status: str | None = None
        self._release: str | None = None
        self._list: str | None = None
        self._listed: dict[str, int] = {}

    @property
    def watched(self) -> str | None:
        """There is no such file."""
        return None

    def event(self, line: bytes) -> None:
        """freebsd-update has none."""

    def grown(self, size: int, at: float) -> None:
        """There is no such file."""

    def output(self, command: int, data: bytes) -> None:
        """More output of this command of the job."""
        if command != self._command:
            self._end_line()
            self._command = command
            # What one command has begun, no other ends.
            self._installing, self._list = False, None
        first, *others = data.replace(b"\r", b"").split(b"\n")
        self._more(first)
        for piece in others:
            self._end_line()
            self._more(piece)

    def fields(self) -> dict[str, Any]:
        """`progress`: phase, percent, and of patches and files how many are fetched."""
        return {"progress": self._progress.value()}

    def ended(self, result: str) -> dict[str, Any]:
        """`progress`; `problems`, if any; if it was said, `status`, `release` and `files`.

        status: noupdates, updatesavailable, installed, runagain (install once more),
        rebootrequired (and then install once more).
        """
        self._end_line()
        if result == "succeeded":
            self._progress.succeeded()
        ended = self.fields()
        if problems := self._problems.texts():
            ended["problems"] = problems
        if self._status is not None:
            ended["status"] = self._status
        if self._release is not None:
            ended["release"] = self._release
        if self._listed:
            kinds = ("updated", "added", "removed", "modified_locally")
            ended["files"] = {kind: self._listed.get(kind, 0) for kind in kinds}
        return ended

    def _more(self, piece: bytes) -> None:
        """What has come of the line that is not ended yet."""
        if self._counting:
            piece = self._count(piece)
        elif not self._stepped and len(self._line) < _HEAD:
            self._line += piece[:_HEAD]
            piece = piece[_HEAD:]
            step = _STEP.match(bytes(self._line))
            if step is not None:
                self._begin(step)
                if self._counting:
                    piece = bytes(self._line[step.end() :]) + piece
                    del self._line[step.end() :]
                    piece = self._count(piece)
        self._line += piece[: max(0, _LINE - len(self._line))]

    def _end_line(self) -> None:
        line = bytes(self._line)
        self._line.clear()
        self._stepped = self._counting = False
        self._read(line)

    def _begin(self, step: re.Match[bytes]) -> None:
        """A step is announced, which ends the one before."""
        phase = next(name for name in (*_BEGINS, "install") if step[name] is not None)
        self._fetched_all()
        self._stepped = True
        self._progress.phase = phase
        if phase == "install":
            self._progress.at(_FETCHING if self._fetching else _ONLY_INSTALLING)
            return
        self._fetching = self._fetching or phase != "result"
        if self._fetching:
            self._progress.at(_BEGINS[phase] * self._scale)
        if phase in ("patches", "files"):
            self._counting = True
            self._counter = _SignCounter()
            announced = int(step[f"of_{phase}"])
            if phase == "patches":
                self._patches, self._files = announced, 0
            else:
                self._files = announced
            self._fetched(0)

    @property
    def _scale(self) -> float:
        return 1.0 if self._whole else _FETCHING

    def _count(self, piece: bytes) -> bytes:
        """Signs of progress; the rest, if they have ended."""
        rest = self._counter.read(piece)
        self._fetched(self._counter.value)
        if rest is None:
            return b""
        self._counting = False
        return rest

    def _fetched(self, number: int) -> None:
        """So many are fetched of what is being fetched."""
        progress = self._progress
        files = progress.phase == "files"
        announced = self._files if files else self._patches
        number = min(number, announced)
        begin, end = ("files", "result") if files else ("patches", "apply")
        share = number / announced if announced else 0.0
        progress.at((_BEGINS[begin] + (_BEGINS[end] - _BEGINS[begin]) * share) * self._scale)
        total = max(progress.total, self._patches + self._files)
        progress.count(number + (self._patches if files else 0), total)

    def _fetched_all(self) -> None:
        if self._progress.phase == "patches":
            self._fetched(self._patches)
        elif self._progress.phase == "files":
            self._fetched(self._files)

    def _read(self, line: bytes) -> None:
        """One line, its signs of progress left out."""
        if self._list is not None:
            if line.startswith(b"/"):
                self._listed[self._list] += 1
                return
            if self._read_heading(line):
                return
            self._list = None
        if line.endswith(b"done."):
            # Before the signs have ended, they may lack the last odd one.
            self._fetched_all()
        begun = _STEP.match(line) is not None
        self._problems.read(line, begins=begun)
        self._read_fetch(line)
        self._read_install(line)

    def _read_heading(self, line: bytes) -> bool:
        """Whether this is of what stands between a list's first line and its paths."""
        if self._list is None or self._listed[self._list]:
            return False
        if self._list == "modified_locally":
            return line in _OF_HEADING
        release = _RELEASE.fullmatch(line)
        if release is not None:
            self._release = release[1].decode()
        return release is not None

    def _read_fetch(self, line: bytes) -> None:
        found = _LIST.match(line)
        if found is not None:
            kind = found[1].decode() if found[1] else "modified_locally"
            self._list, self._listed[kind] = kind, 0
            if found[1]:
                self._status = "updatesavailable"
            return
        needed = _NONE_NEEDED.match(line)
        if needed is not None:
            self._release = needed[1].decode()
            self._status = "noupdates"
        elif line.startswith(b"There are updates available to install"):
            self._status = "updatesavailable"
        elif line.startswith(b"No updates are available to install") and not self._status:
            self._status = "noupdates"

    def _read_install(self, line: bytes) -> None:
        if line.startswith(b"Installing updates..."):
            self._installing, self._kernel = True, False
            # They are in part no longer to be installed; what has become of them is said later.
            self._status = None
            line = line.removeprefix(b"Installing updates...")
        if not self._installing:
            return
        if line.strip() == b"done.":
            self._installed("installed")
        elif line.startswith(b"Kernel updates have been installed"):
            self._kernel = True
            self._status = "rebootrequired"
        elif _AGAIN.match(line):
            self._installed("rebootrequired" if self._kernel else "runagain")

    def _installed(self, status: str) -> None:
        self._status = status
        self._installing = False
        self._progress.at(0.99)


class _SignCounter:
    """The signs of fetch_progress: each tenth as its number, each other second one as a dot."""

    def __init__(self) -> None:
        self.value = 0
        self._last = b""
        self._dots = 0

    def read(self, piece: bytes) -> bytes | None:
        """What follows the signs; None: they have not ended."""
        for sign in _SIGNS.finditer(piece):
            token = sign[0]
            if token[:1] == b".":
                self._dots += len(token)
            elif token.isdigit():
                # The number may be cut in two.
                self._last = ((b"" if self._dots else self._last) + token)[:9]
                self._dots = 0
            else:
                return piece[sign.start() :]
            self.value = max(self.value, int(self._last or 0) + 2 * self._dots)
        return None


class _UpdateProblems:
    """What is wrong, in the order it was said, nothing twice."""

    def __init__(self) -> None:
        self._texts: dict[str, None] = {}
        # Of a complaint over several lines: those that have come, and how many may yet.
        self._open: list[bytes] = []
        self._more = 0

    def read(self, line: bytes, *, begins: bool) -> None:
        """One more line. begins: a step, which is part of no complaint over several lines."""
        if self._open:
            if line and not begins:
                self._open.append(line)
                self._more -= 1
                if self._more and not line.startswith(_LAST):
                    return
                self._close()
                return
            self._close()
        for wording, lines in _COMPLAINTS:
            if wording.match(line):
                self._open = [line]
                self._more = lines - 1
                if not self._more:
                    self._close()
                return
        self._read_step(line, begins=begins)

    def texts(self) -> list[str]:
        """All so far."""
        self._close()
        return list(self._texts)

    def _read_step(self, line: bytes, *, begins: bool) -> None:
        after = line.partition(b"...")[2].lstrip() if begins else line
        found = _ANYWHERE.match(after)
        if found is not None:
            self._add(found[0])
        elif begins and line.endswith(_FAILED):
            self._add(line)

    def _close(self) -> None:
        if self._open:
            self._add(b" ".join(self._open))
            self._open = []

    def _add(self, text: bytes) -> None:
        if len(self._texts) < _MOST:
            shown = printable(b" ".join(text.split()).decode(errors="replace"))
            self._texts.setdefault(shown[:_LENGTH])
