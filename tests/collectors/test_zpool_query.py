"""Queries of a `zpool` that is a real process: bounded, whatever it prints or waits for."""

from __future__ import annotations

import asyncio
import os
import resource
from pathlib import Path

import pytest

from collectors import zpool_query
from collectors.zpool_query import OUTPUT_LIMIT, Output, ZpoolQuery


def put(directory: Path, script: str) -> str:
    """A command that does this."""
    command = directory / "zpool"
    new = directory / "new"
    new.write_text(f"#!/bin/sh\n{script}\n")
    new.chmod(0o755)
    new.rename(command)
    return str(command)


def ask(directory: Path, script: str, limit: float = 60) -> Output:
    query = ZpoolQuery(directory)
    return asyncio.run(query.ask(put(directory, script), ("list",), limit))


@pytest.mark.parametrize("where", ["", ">&2"])
def test_output_without_line_ends_is_bounded(tmp_path: Path, where: str) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(OSError, match="can't be read"):
        ask(tmp_path, f"exec tr '\\0' x < /dev/zero {where}")
    grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    assert grown < 4 * OUTPUT_LIMIT


def test_what_is_printed_comes_whole_with_or_without_line_ends(tmp_path: Path) -> None:
    output = ask(tmp_path, "printf 'a\\nb'; printf 'c\\nd' >&2; exit 3")
    assert output == Output(3, "a\nb", "c\nd")


def test_a_zpool_that_asks_something_gets_no_answer_and_ends(tmp_path: Path) -> None:
    assert ask(tmp_path, "read answer || echo nobody there").stdout == "nobody there\n"


def test_another_program_at_the_same_path_is_another_one(tmp_path: Path) -> None:
    assert zpool_query.identity(str(tmp_path / "zpool")) is None
    command = put(tmp_path, "exit 1")
    first = zpool_query.identity(command)
    assert first is not None
    assert zpool_query.identity(command) == first
    put(tmp_path, "exit 2")
    second = zpool_query.identity(command)
    assert second != first
    os.utime(command, ns=(1, 1))
    assert zpool_query.identity(command) != second
