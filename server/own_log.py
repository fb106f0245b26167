"""The daemon's own log: one line a record on stderr, for people or as JSON."""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Final

from sysadmd.text import printable

LEVELS: Final = ("debug", "info", "warning", "error")


class _Lines(logging.Formatter):
    """`2026-11-24T18:00:02.123Z warning collectors.zpool: text`, always one line."""

    def format(self, record: logging.LogRecord) -> str:
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        text = record.getMessage()
        if record.exc_info:
            text += " | " + self.formatException(record.exc_info)
        text = printable(text.replace("\n", " | "))
        stamp = f"{moment}.{int(record.msecs):03d}Z"
        return f"{stamp} {record.levelname.lower()} {record.name}: {text}"


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


def set_up(level: str, form: str) -> None:
    """Log to stderr. A log that can't be written is dropped: it must not stop the daemon."""
    logging.raiseExceptions = False
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if form == "json" else _Lines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    set_level(level)


def set_level(level: str) -> None:
    logging.getLogger().setLevel(level.upper())
    # Their debug output would drown ours, and shows frames, which may hold secrets.
    for name in ("websockets", "asyncio", "watchdog", "sh"):
        logging.getLogger(name).setLevel(logging.WARNING)
