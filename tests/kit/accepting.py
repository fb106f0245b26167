"""Jobs in the tables, without a dispatcher that starts them."""

from __future__ import annotations

from collections.abc import Sequence

from dispatcher.acceptance import Accepted, Bundle, accept_all
from dispatcher.orders import Order
from dispatcher.steps import Now
from sysadmd.errors import Conflict
from sysadmd.journal import Transaction, no_note


def accept(change: Transaction, now: Now, wanted: Sequence[Order]) -> list[Accepted]:
    """All of these, or an error and none. Raises: Conflict."""
    (found,) = accept_all(change, now, [Bundle(wanted, no_note)])
    if isinstance(found, Conflict):
        raise found
    return found
