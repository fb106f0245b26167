"""Tells that something happened in a directory, as quickly as the system can. Hints only.

Source: watchdog; its observer stays "alive" when a directory's emitter has died, its emitter
when the system has dropped the watch; scheduling the same watch again does nothing. What has
died is watched anew by a new observer.
"""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver
from watchdog.utils import BaseThread

from sysadmd.machine import FORCED_PORTABLE

log = logging.getLogger(__name__)

UNWATCHED: Final = "can't be watched ({}); changes are found by looking every 2 s"
# More changes a second to other files of the directory than anybody makes who keeps logs there:
# each costs some 70 us, and a rename holds up those behind it for up to 0.5 s.
STORM: Final = 400
# Then nothing is watched for so long, and whoever asks should look that often; s.
REST: Final = 10.0
POLL: Final = 0.15
# Source: proc(5). A line for each watch of an inotify instance.
_FILES: Final = Path("/proc/self/fd")
_INFO: Final = Path("/proc/self/fdinfo")


class _Handler(FileSystemEventHandler):
    """Used by the observer's thread; `stormy` is for all to read."""

    def __init__(self, tell: Callable[[], None], ours: frozenset[str]) -> None:
        self._tell = tell
        self._ours = ours
        self._since = time.monotonic()
        self._count = 0
        self.stormy = False

    def on_any_event(self, event: FileSystemEvent) -> None:
        if event.src_path not in self._ours:
            self._count_neighbour()
        # Reading a file is an event, too, on some systems: not one that we wait for.
        if event.event_type not in ("opened", "closed_no_write"):
            self._tell()

    def _count_neighbour(self) -> None:
        now = time.monotonic()
        if now - self._since >= 1:
            self._since, self._count = now, 0
        self._count += 1
        if self._count > STORM and not self.stormy:
            self.stormy = True
            self._tell()


class DirectoryWatch:
    """Calls `tell`, in a thread of its own, when files of a directory change."""

    def __init__(self, directory: Path, tell: Callable[[], None], name: str = "") -> None:
        """name: of the file that is waited for; what happens to others may be too much."""
        self._directory = directory
        self._tell = tell
        self._name = name
        self._handler: _Handler | None = None
        self._observer: BaseObserver | None = None
        # Device and inode: what is mounted over a directory often has its inode's number.
        self._folder = (0, 0)
        self._marks: frozenset[tuple[str, str]] = frozenset()
        self._rests_until = -math.inf
        self._said = False

    @property
    def poll(self) -> float:
        """How long who waits for a hint should wait at most, s; infinite while all is well."""
        return POLL if time.monotonic() < self._rests_until else math.inf

    def check(self) -> bool:
        """Watch, or watch again if the directory or the watcher has changed.

        Returns whether the directory is watched. Cheap: called at every look.
        """
        if FORCED_PORTABLE:
            return False
        try:
            info = self._directory.stat()
        except OSError:
            self.close()
            return False
        if self._handler is not None and self._handler.stormy:
            self.close()
            self._rests_until = time.monotonic() + REST
            log.debug("%s changes too often to be watched", self._directory)
        if time.monotonic() < self._rests_until:
            return False
        folder = (info.st_dev, info.st_ino)
        if self._observer is not None and folder == self._folder and self._is_alive():
            return True
        died = self._observer is not None and folder == self._folder
        self.close()
        if not os.access(self._directory, os.R_OK):
            # The observer would say nothing, and see nothing.
            self._say(UNWATCHED.format("it is not ours to read"))
            return False
        try:
            self._begin()
        except Exception as error:  # noqa: BLE001 - a library's; who asks looks without it
            self.close()
            self._say(UNWATCHED.format(error))
            return False
        if died:
            self._say("was not watched any more and is watched anew")
        self._folder = folder
        return True

    def close(self) -> None:
        """Watch no more."""
        observer, self._observer, self._handler = self._observer, None, None
        if observer is not None:
            # Also one that has no thread of its own: its emitters have.
            observer.stop()

    def _begin(self) -> None:
        _hush()
        before = _marks()
        # By its own name: a link itself would be watched, not where it leads to.
        place = os.path.realpath(self._directory)
        ours = frozenset((place, str(Path(place, self._name))))
        self._handler = _Handler(self._tell, ours)
        self._observer = Observer()
        self._observer.schedule(self._handler, place, recursive=False)
        self._observer.start()
        self._marks = _marks() - before

    def _is_alive(self) -> bool:
        assert self._observer is not None
        emitters = self._observer.emitters
        if not emitters or not all(emitter.is_alive() for emitter in emitters):
            return False
        # The system drops a watch when the file system is unmounted, and says it to nobody
        # here. Another one in its place, or the same again, may have device and inode of it.
        return self._marks <= _marks_of({file for file, _ in self._marks})

    def _say(self, what: str) -> None:
        if not self._said:
            self._said = True
            log.warning("%s %s", self._directory, what)


def _marks() -> frozenset[tuple[str, str]]:
    """All that inotify watches for this process; nothing where that can't be known."""
    try:
        files = {
            file.name for file in _FILES.iterdir() if _leads_to(file) == "anon_inode:inotify"
        }
    except OSError:
        return frozenset()
    return _marks_of(files)


def _marks_of(files: set[str]) -> frozenset[tuple[str, str]]:
    """Descriptor and watch, for each watch of these descriptors."""
    found: set[tuple[str, str]] = set()
    for file in files:
        try:
            lines = (_INFO / file).read_text().splitlines()
        except OSError:
            continue
        found.update((file, line) for line in lines if line.startswith("inotify "))
    return frozenset(found)


def _leads_to(file: Path) -> str:
    try:
        return os.fspath(file.readlink())
    except OSError:
        # Closed meanwhile.
        return ""


class _Whisper(logging.Handler):
    """watchdog's complaints are ours to judge: at a stop, in a storm, they say nothing new."""

    def emit(self, record: logging.LogRecord) -> None:
        log.debug("watchdog: %s", record.getMessage())


class _Hook:
    """What threads of watchdog end with is a debug line: the next look finds them dead."""

    def __init__(self, former: Callable[[threading.ExceptHookArgs], object]) -> None:
        self._former = former

    def __call__(self, told: threading.ExceptHookArgs) -> None:
        if isinstance(told.thread, BaseThread):
            name, what = told.thread.name, told.exc_type.__name__
            log.debug("watchdog's %s ended: %s: %s", name, what, told.exc_value)
        else:
            self._former(told)


def _hush() -> None:
    """Have no line of watchdog's in the service's log but for debugging. The only place."""
    logger = logging.getLogger("watchdog")
    if not any(isinstance(handler, _Whisper) for handler in logger.handlers):
        logger.addHandler(_Whisper())
        # Beneath it a line for each event would be made.
        logger.setLevel(logging.WARNING)
        logger.propagate = False
    if not isinstance(threading.excepthook, _Hook):
        threading.excepthook = _Hook(threading.excepthook)
