"""Tells that something happened in a directory, as quickly as the system can. Hints only.

Source: watchdog; its observer stays "alive" when a directory's emitter has died, and scheduling
the same watch again does nothing: what has died is watched anew by a new observer.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver

from sysadmd.machine import FORCED_PORTABLE

log = logging.getLogger(__name__)

UNWATCHED: Final = "can't be watched ({}); changes are found by looking every 2 s"


class _Handler(FileSystemEventHandler):
    def __init__(self, tell: Callable[[], None]) -> None:
        self._tell = tell

    def on_any_event(self, event: FileSystemEvent) -> None:
        # Reading a file is an event, too, on some systems: not one that we wait for.
        if event.event_type not in ("opened", "closed_no_write"):
            self._tell()


class DirectoryWatch:
    """Calls `tell`, in a thread of its own, when files of a directory change."""

    def __init__(self, directory: Path, tell: Callable[[], None]) -> None:
        self._directory = directory
        self._handler = _Handler(tell)
        self._observer: BaseObserver | None = None
        self._inode = 0
        self._said = False

    def check(self) -> bool:
        """Watch, or watch again if the directory or the watcher has changed.

        Returns whether the directory is watched. Cheap: called at every look.
        """
        if FORCED_PORTABLE:
            return False
        try:
            inode = self._directory.stat().st_ino
        except OSError:
            self.close()
            return False
        if self._observer is not None and inode == self._inode and self._is_alive():
            return True
        died = self._observer is not None and inode == self._inode
        self.close()
        if not os.access(self._directory, os.R_OK):
            # The observer would say nothing, and see nothing.
            self._say(UNWATCHED.format("it is not ours to read"))
            return False
        try:
            self._observer = Observer()
            self._observer.schedule(self._handler, str(self._directory), recursive=False)
            self._observer.start()
        except (OSError, RuntimeError) as error:
            self.close()
            self._say(UNWATCHED.format(error))
            return False
        if died:
            self._say("was not watched any more and is watched anew")
        self._inode = inode
        return True

    def close(self) -> None:
        """Watch no more. Does not wait for the watcher's thread."""
        if self._observer is not None:
            # Also one that has no thread of its own: its emitters have.
            self._observer.stop()
        self._observer = None

    def _is_alive(self) -> bool:
        assert self._observer is not None
        emitters = self._observer.emitters
        return bool(emitters) and all(emitter.is_alive() for emitter in emitters)

    def _say(self, what: str) -> None:
        if not self._said:
            self._said = True
            log.warning("%s %s", self._directory, what)
