"""The daemon's own log: one line a record on stderr, for people or as JSON.

Whoever logs waits for nobody: lines go to a thread that writes them. Where nobody reads on, or
the disk is full, lines are dropped and counted; the count is told where they are missing. What
Python itself says on stderr goes the same way.
"""

from __future__ import annotations

import io
import json
import logging
import os
import select
import signal
import sys
import threading
import time
from collections import deque
from typing import Any, Final

from sysadmd.apart import lasting
from sysadmd.text import printable

LEVELS: Final = ("debug", "info", "warning", "error")
# Bytes of lines that wait for who reads stderr: some thousand lines, a second of a busy daemon.
HELD: Final = 512 * 1024
# At the end of the process: how long the last lines have to be taken, s.
LAST_WORDS: Final = 1.0


# Source: syslog(3), of which sd-daemon(3) has the numbers in front of lines.
_PRIORITIES: Final = {
    logging.DEBUG: 7,
    logging.INFO: 6,
    logging.WARNING: 4,
    logging.ERROR: 3,
    logging.CRITICAL: 2,
}


class _Lines(logging.Formatter):
    """`2026-11-24T18:00:02.123Z warning collectors.zpool: text`, always one line."""

    def format(self, record: logging.LogRecord) -> str:
        text = record.getMessage()
        if record.exc_info:
            text += " | " + self.formatException(record.exc_info)
        text = printable(text.replace("\n", " | "))
        return f"{self.begin(record)}{record.levelname.lower()} {record.name}: {text}"

    def begin(self, record: logging.LogRecord) -> str:
        """What comes before the level."""
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        return f"{moment}.{int(record.msecs):03d}Z "


class _JournalLines(_Lines):
    """`<4>warning collectors.zpool: text`: the journal of systemd has its own times."""

    def begin(self, record: logging.LogRecord) -> str:
        return f"<{_PRIORITIES.get(record.levelno, 6)}>"


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        fields = {
            "time": f"{moment}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        # ASCII, but for DEL, which is not JSON's to escape.
        return json.dumps(fields).replace("\x7f", "\\u007f")


class Unhurried(logging.Handler):
    """Writes lines to a file in a thread of its own."""

    def __init__(self, file: int) -> None:
        super().__init__()
        self._file = file
        # Held for moments only, never while anything is written.
        self._news = threading.Condition()
        # What waits, and its bytes; the line being written counts until it is out.
        self._lines: deque[bytes] = deque()
        self._size = 0
        # Once a line was dropped all are, until those before it are out and this is told.
        self._dropped = 0
        # Something was dropped since we last failed to write: reason enough to try again.
        self._try = False
        # The last line was cut short.
        self._torn = False
        lasting(self._write_all, "own log")

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self._encode(record)
        except Exception:  # noqa: BLE001 - the outer edge: what can't be told stops nobody
            line = self._encode(_warning("a line for %s can't be written down", record.name))
        self.put(line)

    def put(self, line: bytes) -> None:
        """Have this written, or dropped."""
        with self._news:
            if self._dropped or self._size + len(line) > HELD:
                self._dropped += 1
                self._try = True
            else:
                self._lines.append(line)
                self._size += len(line)
            self._news.notify_all()

    def flush(self) -> None:
        """Wait until all is out, but not for ever. The logging module calls it at the end."""
        with self._news:
            self._news.wait_for(lambda: not (self._size or self._try), LAST_WORDS)

    def _encode(self, record: logging.LogRecord) -> bytes:
        return (self.format(record) + "\n").encode("utf-8", "backslashreplace")

    def _write_all(self) -> None:
        # It may hang in the kernel, where no signal is taken.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        while True:
            with self._news:
                self._news.wait_for(lambda: self._lines or self._try)
                missing = 0 if self._lines else self._dropped
                if missing:
                    self._dropped, self._try = 0, False
                    text = "%d lines of this log are missing here: they could not be written"
                    self._lines.append(self._encode(_warning(text, missing)))
                    self._size += len(self._lines[0])
                line = self._lines.popleft()
            written = self._write(line)
            with self._news:
                self._size -= len(line)
                if not written:
                    self._dropped += missing or 1
                self._news.notify_all()

    def _write(self, line: bytes) -> bool:
        """False: the disk is full, or who read it is gone."""
        rest = b"\n" + line if self._torn else line
        while rest:
            try:
                count = os.write(self._file, rest)
            except BlockingIOError:
                # Who shares it with us has made it so.
                select.select((), (self._file,), ())
            except OSError:
                return False
            else:
                rest = rest[count:]
                self._torn = bool(rest)
        return True


class _Stderr(io.RawIOBase):
    """What others than the log say there: warnings, what Python can't raise anywhere."""

    def __init__(self, handler: Unhurried) -> None:
        super().__init__()
        self._handler = handler

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        line = bytes(data)
        self._handler.put(line)
        return len(line)


def _warning(text: str, value: object) -> logging.LogRecord:
    return logging.LogRecord(__name__, logging.WARNING, __file__, 0, text, (value,), None)


def _is_journal(file: int) -> bool:
    """Does who reads this file know priorities? Source: systemd.exec(5), JOURNAL_STREAM."""
    found = os.fstat(file)
    return os.environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


def set_up(level: str, form: str) -> None:
    """Log to stderr. A log that can't be written is dropped: it must not stop the daemon."""
    handler = Unhurried(2)
    lines = _JournalLines() if _is_journal(2) else _Lines()
    handler.setFormatter(_Json() if form == "json" else lines)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    sys.stderr = io.TextIOWrapper(
        io.BufferedWriter(_Stderr(handler)), "utf-8", "backslashreplace", line_buffering=True
    )
    set_level(level)


def set_level(level: str) -> None:
    logging.getLogger().setLevel(level.upper())
    # Their debug output would drown ours, and shows frames, which may hold secrets.
    for name in ("websockets", "asyncio", "watchdog", "sh"):
        logging.getLogger(name).setLevel(logging.WARNING)
