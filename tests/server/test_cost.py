"""What a peer or the machine says costs time in proportion to its length, whatever it is.

The one place where time is measured in a test: as a ratio, of CPU time of this thread.
"""

import contextlib
import gc
import re
import time
from collections.abc import Callable

import pytest

from collectors.lp_lines import messages
from collectors.lp_progress import Progress
from collectors.zpool_output import parse_list, parse_status, unknown_column
from dispatcher.commandline import join, parse_command, split
from dispatcher.orders import Order, check
from server.classes.log_window import MAX_LENGTH, window
from server.classes.tokens import parse_new_token
from server.login import tokens
from server.wire.protocol import ProtocolError, parse_request
from sysadmd import journal
from sysadmd.errors import SysadmdError
from sysadmd.text import printable, quoted
from tests.kit.json_families import FAMILIES
from tests.kit.state_file import tables

# Twice the bytes cost at most so many times the time.
AT_MOST = 3.0
# A size that takes so long is large enough to be measured; s.
MEASURABLE = 0.001
# It is doubled so often: what disturbs one measurement must not look like another law.
DOUBLINGS = 3
# No text is longer than a request may be.
LARGEST = (1 << 20) >> DOUBLINGS


def cost(work: Callable[[str], object], text: str) -> float:
    """Seconds of this thread that it takes, the least of some."""
    found: list[float] = []
    gc.disable()
    for _ in range(3):
        begun = time.thread_time()
        with contextlib.suppress(ProtocolError, SysadmdError, ValueError):
            work(text)
        found.append(time.thread_time() - begun)
    gc.enable()
    return min(found)


def ratio(work: Callable[[str], object], family: Callable[[int], str]) -> float:
    """How many times the time twice the bytes take, at a size that can be measured."""
    size = 1024
    while (once := cost(work, family(size))) < MEASURABLE and size < LARGEST:
        size *= 2
    more = cost(work, family(size << DOUBLINGS))
    # What is too quick to be measured at the largest size is in proportion to nothing.
    return float((more / max(once, MEASURABLE / 2)) ** (1 / DOUBLINGS))


def repeated(unit: str, before: str = "", behind: str = "") -> Callable[[int], str]:
    """So many bytes of a unit between two texts."""
    return lambda size: before + unit * (size // len(unit)) + behind


@pytest.mark.parametrize("family", FAMILIES)
def test_a_request_costs_in_proportion_to_its_length(family: str) -> None:
    assert ratio(parse_request, FAMILIES[family]) <= AT_MOST


STATUS, HEADS = "  pool: a\n", "\tNAME  STATE READ WRITE CKSUM\n"
TEXTS = {
    "blanks": repeated(" "),
    "words": repeated("a "),
    "quotes": repeated('"'),
    "groups": repeated('" '),
    "one group": repeated("a b ", '"', '"'),
    "triple quotes": repeated('""" '),
    "letters": repeated("x"),
    "digits": repeated("1"),
    "dotted digits": repeated("1."),
    "dates": repeated("18:00:02 "),
    "colons": repeated(": "),
    "control characters": repeated("\x1b"),
    "surrogates": repeated("\ud800"),
    "apostrophes": repeated("'"),
    "patterns": repeated("yyyy'"),
    "lines": repeated("\n"),
    "tabs": repeated("\t"),
    "overlong vdev": repeated(" ", f"{STATUS}{HEADS}\tlonger-than-its-column", "y"),
    "vdevs": repeated("\ta  X 1 1 1\n", f"{STATUS}{HEADS}"),
    "scans": repeated("scan: scrub in progress\n", STATUS),
    "indented scans": repeated("\tscan: scrub in progress\n", STATUS),
    "percents": repeated("1", f"{STATUS} scan: scrub in progress\n"),
    "errors": repeated("1", f"{STATUS} scan: scrub with ", " errors on x"),
    "heads": repeated(HEADS, STATUS),
    "columns": repeated("invalid property '"),
    "replications": repeated(": ", "18:00:02: Starting replication SYNC task on "),
    "replication files": repeated(": /", "18:00:02: Starting replication SYNC task on "),
    "estimates": repeated("total estimated size is 1", behind="x"),
}

_DATABASE = tables(journal.SCHEMA, tokens.SCHEMA)

PARSERS: dict[str, Callable[[str], object]] = {
    "time_format": lambda text: window(text, "1", "", 0),
    "start_time": lambda text: window("yyyy-MM-dd", text, "", 0),
    "command": split,
    "command and text": lambda text: parse_command(text, "args.x[0]"),
    "vector": lambda text: join([text]),
    "job": lambda text: check(Order(commands=(), id=text, key=text, env={text: text})),
    "cursor": lambda text: journal.parse_cursor(_DATABASE, "0" * 16, "0" * 16 + ":1:" + text),
    "token": lambda text: tokens.find(_DATABASE, text),
    "token's name": lambda text: tokens.named(_DATABASE, text),
    "role": lambda text: parse_new_token("x", text, None),
    "expires": lambda text: parse_new_token("x", "read", text),
    "printable": printable,
    "quoted": quoted,
    "Life Preserver": lambda text: messages(text.encode()),
    "progress": Progress().read,
    "zpool list": lambda text: parse_list(text, frozenset()),
    "zpool status": parse_status,
    "zpool's complaint": unknown_column,
}


@pytest.mark.parametrize("parser", PARSERS)
def test_a_text_costs_in_proportion_to_its_length(parser: str) -> None:
    found = {name: ratio(PARSERS[parser], family) for name, family in TEXTS.items()}
    assert max(found.values()) <= AT_MOST, found


def test_the_measure_finds_what_is_quadratic() -> None:
    # As it was: from each quote it looked for the end of a string that has none.
    strings = re.compile(r'"(?:[^"\\]|\\.)*"')
    family = FAMILIES["escaped quotes that do not end"]
    assert ratio(lambda text: strings.sub("", text), family) > AT_MOST


def test_a_pattern_has_a_bounded_length() -> None:
    long = "y" * (MAX_LENGTH + 1)
    for texts in ((long, "1", ""), ("yyyy", long, ""), ("yyyy", "2026", long)):
        with pytest.raises(ValueError, match="at most 256 characters"):
            window(*texts, 0)
