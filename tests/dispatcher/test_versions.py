"""Keeper and daemon of different versions of the code: nobody fails, no job is forgotten."""

from __future__ import annotations

import json
import shutil
import socket
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher import records, words
from dispatcher.commandline import Spec
from dispatcher.fate import Pair
from dispatcher.logs import LogFiles
from dispatcher.orders import Order
from dispatcher.queue import Queues
from dispatcher.steps import Facts, Finding, Now
from dispatcher.transitions import Advance
from sysadmd import journal
from sysadmd.journal import Transaction
from tests.kit import ROOT, wait_for
from tests.kit.accepting import accept
from tests.kit.driver import PROGRAM, Driver
from tests.kit.processes import books, holders
from tests.kit.state_file import tables

# What keepers of other versions may do differently, each as an edit of today's code; the return
# code that a command has then, None: nobody knows.
SIZE = '"size": size, "begun": begun'
HELLO = "            self._tell(book.encode(answer))\n"
NEXT = "        self._book.write(command.following)\n"
BEGAN = '{"began":[%d,%d],"pid":%d,"since":%r,"at":%r}'
OTHERS: dict[str, tuple[str, str, str, int | None]] = {
    "writes more": (
        "keeper",
        NEXT,
        NEXT + '        self._book.write({"mark": [1], "cpu": 3})\n',
        7,
    ),
    "hello without draining": ("keeper", '"draining": self._draining,\n', "", 7),
    "hello that does not lend": ("keeper", '"lends": True,\n', "", 7),
    "hello without version": ("keeper", '"version": self._setup.version,\n', "", 7),
    "hello of another shape": ("keeper", HELLO, HELLO.replace("answer", "[1]"), 7),
    "hello is no JSON": ("keeper", HELLO, '            self._tell(b"\\xff{[[\\n")\n', 7),
    "unknown words": ("keeper", HELLO, HELLO + '            self._tell(b"[1,2]\\n7\\n")\n', 7),
    "hanging of another shape": (
        *("keeper", HELLO),
        *(HELLO + '            self._tell(b\'{"hanging": [7, [1], [1, 2, 3], "x"]}\\n\')\n', 7),
    ),
    "end without size": ("book", SIZE, '"begun": begun', 7),
    "end of another version": ("book", SIZE, '"begun": begun, "size": "9", "rusage": {}', 7),
    "end without code": ("book", '"code": code, ', "", None),
    "end without time and begun": ("book", f'"time": time.time(), {SIZE}', '"x": 1', 7),
    "end with a time of another kind": ("book", "time.time()", '"now"', 7),
    "end of another shape": ("book", '{"end": job', '{"end": {"job": job[0]}', None),
    "next without a time": ("keeper", '"at": boot_clock(), ', "", 7),
    "next without pid and limit": (
        *("keeper", "HandedOver(order, following, pipe)"),
        *('HandedOver(order, {"next": job, "at": boot_clock()}, pipe)', 7),
    ),
    "next with another transit": (
        "keeper",
        '"transit"] = serving.transit',
        '"transit"] = 99',
        7,
    ),
    "began without since": ("starter", BEGAN, BEGAN.replace('"since"', '"start"'), 7),
    "began without at": ("starter", BEGAN, BEGAN.replace('"at"', '"to"'), 7),
    "began with an absurd pid": ("starter", BEGAN, BEGAN.replace('"pid":%d', '"pid":-%d'), 7),
}


def code(directory: Path, module: str, old: str, new: str) -> Path:
    """A copy of today's code with an edit; its driver program."""
    for room in ("sysadmd", "dispatcher", "tests"):
        ignored = shutil.ignore_patterns("__pycache__", "corpus")
        shutil.copytree(ROOT / room, directory / room, ignore=ignored)
    path = directory / "dispatcher" / f"{module}.py"
    text = path.read_text()
    assert old in text, old
    path.write_text(text.replace(old, new))
    return directory / PROGRAM.relative_to(ROOT)


@pytest.mark.parametrize("version", ["", "99.0"])
@pytest.mark.parametrize("name", OTHERS)
def test_a_keeper_of_other_code_is_lived_with(tmp_path: Path, name: str, version: str) -> None:
    *edit, expected = OTHERS[name]
    (tmp_path / "state").mkdir()
    driver = Driver(tmp_path / "state", kill_grace=0.3, version=version)
    driver.program = code(tmp_path / "code", *edit)
    cwd = str(driver.state_dir)
    waits = 'sh -c "until test -e go; do sleep 0.05; done; exit 7"'
    with driver:
        old = driver.submit(waits, "true", cwd=cwd)
        wait_for(lambda: driver.job(old).state == "running")
        wait_for(lambda: '{"began":' in books(driver.state_dir))
        (keeper,) = holders(driver.state_dir, "keeper")
        driver.kill()
        driver.program, driver.version = PROGRAM, ""
        driver.start()
        assert keeper in holders(driver.state_dir, "keeper")
        (driver.state_dir / "go").touch()
        job = driver.finished(old)
        assert job.commands[0].return_code == expected
        assert job.result == ("lost" if expected is None else "failed")
        # If the keeper passes for one of this version, it may have been given that, too.
        fresh = driver.finished(driver.submit("true")).result
        assert fresh == "succeeded" or (expected is None and not version)


WORDS = [
    *("next", "began", "end", "barred", "left", "dead", "at", "pid", "limit", "since", "code"),
    *("time", "size", "begun", "reason", "start", "argv", "env", "cwd", "serve", "hello"),
    *("channel", "version", "draining", "hanging", "turn", "drain", "transit"),
    *("returned", "lend", "lends", "lane", "last", "room", "recall", "over"),
]
NUMBERS = st.sampled_from([0, 1, 2, -1, 2**31, 2**63, 10**400, 1.5, 1e300]) | st.floats()
VALUES = st.recursive(
    st.sampled_from([[1, 0], [1, 1], "", "\udc80", None, True]) | NUMBERS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)
OBJECTS = st.dictionaries(st.sampled_from(WORDS), VALUES, max_size=6)
LINES = (OBJECTS | VALUES).map(lambda value: json.dumps(value).encode()) | st.binary(
    max_size=40
)


@given(LINES)
def test_any_line_is_read_by_everybody(line: bytes) -> None:
    words.fact(line)
    words.said(line)
    words.commanded(words.read(line))
    assert words.read(b"[" * 100_000) == {}


@given(st.lists(LINES, max_size=8), st.booleans())
def test_whatever_a_book_says_no_job_is_forgotten(book: list[bytes], log: bool) -> None:
    class Disk(LogFiles):
        def size(self, uid: int, n: int) -> int | None:
            return None

        def may_have_begun(self, uid: int, n: int) -> bool:
            return log

        def forget(self, uid: int, n: int) -> None:
            pass

    with closing(tables(journal.SCHEMA, records.SCHEMA)) as db:
        now, change = Now(1e9, 1e3, "boot"), Transaction(db)
        order = Order(commands=(Spec(("true",), "true"), Spec(("false",), "false")))
        (one,) = accept(change, now, [order])
        queues = Queues().configure({None: 1}).adopt(None, [one.job.uid], ())

        def step(keeper: str, *facts: Facts) -> Any:
            advance = Advance(change, now, keeper, Disk(Path()), lambda boot: boot == "boot")
            for entry in facts:
                advance.facts(entry)
            if not facts:
                advance.start(queues)
            return advance.outcome

        step("k 0")
        for number in range(3):
            # The pair ends, and the next one is given what is to be started.
            keeper, following = f"k {number}", f"k {number + 1}"
            lines = [fact for line in book if (fact := words.fact(line)) is not None]
            step(following, Facts(keeper, lines, 1, 9))
            outcome = step(following, Facts(keeper, (), 1, 9, Pair.OVER, alive=False))
            for orphan in outcome.orphans:
                advance = Advance(change, now, following, Disk(Path()), lambda _: True)
                advance.finding(Finding(orphan.uid, orphan.n, gone=True))
        (state, result) = db.execute("SELECT state, result FROM jobs").fetchone()
        (keeper,) = db.execute(
            "SELECT count(*) FROM commands WHERE state = 1 AND keeper = 'k 3'"
        ).fetchone()
        # Ended, or given to a keeper that has said nothing yet.
        assert (state == 2 and result) or keeper == 1
        db.execute("SELECT * FROM commands").fetchall()


def test_whatever_a_daemon_says_the_keeper_goes_on(room: Driver) -> None:
    waits = 'sh -c "until test -e go; do sleep 0.05; done"'
    running = room.submit(waits, cwd=str(room.state_dir))
    wait_for(lambda: '"began":' in books(room.state_dir))
    (keeper,) = holders(room.state_dir, "keeper")
    room.kill()
    (path,) = (room.state_dir / "keeper").glob("*.sock")
    orders = [
        b"",
        b"\xff\n[1]\n7\nnull\n" + b"[" * 100_000,
        b'{"start": 1}\n{"start": [1]}\n{"start": {}, "argv": 3}\n{"unheard": "of"}',
        b'{"serve": 1}\n{"serve": [[9, 9], 7], "limit": "x"}\n{"serve": [[8, 8]]}',
        b'{"start": [77, 0]}\n{"start": [77, 1], "argv": "true"}',
        b'{"lend": 1}\n{"lend": [78, 0], "room": {}}\n{"over": [1, "x"]}',
        b'{"recall": [[78, 0], 3]}',
        b'{"start": [77, 2], "argv": ["true"], "env": 3, "cwd": 4, "limit": -1,'
        b' "channel": "A=B\\u0000"}',
    ]
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(str(path))
        for order in orders:
            line.sendall(order + b"\n")
        wait_for(lambda: '"end":[77,2],"code":0' in books(room.state_dir), "its last word")
        assert '"end":[77,1],"code":126' in books(room.state_dir)
        room.start()
    assert room.finished(room.submit("true")).result == "succeeded"
    assert holders(room.state_dir, "keeper") == [keeper]
    (room.state_dir / "go").touch()
    assert room.finished(running).result == "succeeded"
