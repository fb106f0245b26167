"""Reading requests as values: what is wrong with one is a value, too. No socket."""

from __future__ import annotations

import gc
from collections.abc import Callable

from server.wire.protocol import ProtocolError, Request


def as_value(read: Callable[[], Request]) -> Request | ProtocolError:
    """What was read, or what is wrong with it.

    As a value, and without its traceback, an error keeps nothing of the request in memory.
    """
    try:
        return read()
    except ProtocolError as error:
        error.__cause__ = error.__context__ = None
        return error.with_traceback(None)


def as_value_of_long(read: Callable[[], Request]) -> Request | ProtocolError:
    """The same without the collector of garbage: it would look at all values again and again
    as they come, in vain, and nothing else runs meanwhile."""
    gc.disable()
    try:
        return as_value(read)
    finally:
        gc.enable()
