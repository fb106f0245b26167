"""The classes that there are: a new one is one file beside this, and one line here."""

from __future__ import annotations

from typing import Final

from server.job_classes import iohyve, pkg, update

CLASSES: Final = (
    pkg.CLASS,
    update.CLASS,
    iohyve.CLASS,
)

REPORTERS: Final = {one.name: one.reporter for one in CLASSES}
