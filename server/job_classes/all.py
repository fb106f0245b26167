"""The classes that there are: a new one is one file beside this, and one line here."""

from __future__ import annotations

from typing import Final

from dispatcher.reports import Reporter
from server.job_classes import iohyve, pkg, update

CLASSES: Final = (
    pkg.CLASS,
    update.CLASS,
    iohyve.CLASS,
)


def reporters() -> dict[str, Reporter]:
    """What each makes of what its jobs say."""
    return {one.name: one.reporter for one in CLASSES}
