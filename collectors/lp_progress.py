"""How far a replication is, from the log of its `zfs send -v`. Pure: lines in, progress out.

Source: OpenZFS `zfs send -v` (zfs_main.c, libzfs_sendrecv.c): estimates, `total estimated size
is`, then `HH:MM:SS   SENT   SNAPSHOT` once a second. SENT begins again with each snapshot of an
incremental stream while the total is for all of them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Final

from sysadmd.sizes import parse_size

_TOTAL: Final = re.compile(
    r"total estimated size is (?P<size>\d{1,12}(?:\.\d{1,6})?[BKMGTPE]?)\s*$"
)
_SENT: Final = re.compile(r"\d\d:\d\d:\d\d\s+(?P<sent>\d{1,12}(?:\.\d{1,6})?[BKMGTPE]?)\s+\S")


@dataclass(frozen=True, slots=True)
class Progress:
    """What the send log has said so far; sizes as zfs writes them."""

    total: str = ""
    sent: str = ""

    def read(self, line: str) -> Progress:
        """As it is after one more line."""
        total = _TOTAL.search(line)
        if total is not None:
            return Progress(total=total["size"])
        sent = _SENT.match(line)
        return replace(self, sent=sent["sent"]) if sent is not None else self

    def message(self, dataset: str) -> str | None:
        """`Replicating tank: 1.2G/3G (40%)`; None: not enough is known."""
        total, sent = parse_size(self.total), parse_size(self.sent)
        if not total or sent is None:
            return None
        tenths = int(1000 * sent / total)
        percent = f"{tenths // 10}.{tenths % 10}" if tenths % 10 else f"{tenths // 10}"
        pool = dataset.partition("/")[0]
        return f"Replicating {pool}: {self.sent}/{self.total} ({percent}%)"
