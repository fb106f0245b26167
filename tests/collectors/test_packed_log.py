"""Compressed logs as they are read: the same bytes as before, and no more than allowed."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import random
import shutil
import subprocess
import tempfile
import tracemalloc
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.log_file import CHUNK, LogFile
from collectors.packed_log import COMPLAINT, MEMORY, ZSTD_MEMORY, PackedLog
from tests.kit import needed


def zstd(data: bytes, *options: str) -> bytes:
    if shutil.which("zstd") is None:
        needed("zstd")
    command = ["zstd", "-qc", *options]
    return subprocess.run(command, input=data, stdout=subprocess.PIPE, check=True).stdout


PACKERS: Final[dict[str, Callable[[bytes], bytes]]] = {
    ".bz2": bz2.compress,
    ".gz": gzip.compress,
    ".xz": lzma.compress,
    ".zst": zstd,
}
KINDS = pytest.mark.parametrize("kind", PACKERS)


@contextmanager
def opened(data: bytes) -> Generator[int]:
    """A descriptor of a file that holds this; who reads it closes it."""
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        yield os.dup(file.fileno())


@contextmanager
def packed(data: bytes, name: str, **bounds: int) -> Generator[PackedLog]:
    with opened(data) as file, closing(PackedLog(file, name, **bounds)) as log:
        yield log


def content(seed: int, size: int, repeat: int) -> bytes:
    return random.Random(seed).randbytes(size) * repeat


contents = st.builds(
    content, st.integers(0, 9), st.integers(0, 2 * CHUNK), st.sampled_from((1, 1, 7))
)
places = st.lists(st.tuples(st.integers(0, 5 * CHUNK), st.integers(0, CHUNK)), max_size=6)


@KINDS
@settings(max_examples=25)
@given(data=contents, places=places)
def test_any_place_of_a_packed_log_is_that_of_the_plain_one(
    kind: str, data: bytes, places: list[tuple[int, int]]
) -> None:
    with (
        packed(PACKERS[kind](data), f"a{kind}") as log,
        opened(data) as file,
        closing(LogFile(file)) as plain,
    ):
        for offset, size in places:
            assert log.read(offset, size) == data[offset : offset + size]
            assert log.fingerprint(offset) == plain.fingerprint(offset)
        assert log.begins(data[:300])
        assert not log.damage


@pytest.mark.parametrize("kind", [".bz2", ".gz", ".xz"])
@settings(max_examples=10)
@given(parts=st.lists(contents, min_size=1, max_size=3), padding=st.sampled_from((0, 4, 512)))
def test_streams_one_behind_the_other_are_one_log(
    kind: str, parts: list[bytes], padding: int
) -> None:
    data = b"".join(PACKERS[kind](part) + bytes(padding) for part in parts)
    with packed(data, f"a{kind}") as log:
        assert log.read(0, 70 * CHUNK) == b"".join(parts)
        assert not log.damage


@KINDS
@settings(max_examples=10)
@given(data=contents, cut=st.integers(1, 10_000))
def test_of_a_damaged_log_comes_what_stands_before_the_damage(
    kind: str, data: bytes, cut: int
) -> None:
    whole = PACKERS[kind](data)
    left = whole[: max(0, len(whole) - cut)]
    with packed(left, f"a{kind}") as log:
        assert data.startswith(log.read(0, 30 * CHUNK))
        assert log.damage


@KINDS
@settings(max_examples=10)
@given(data=st.binary(max_size=2000))
def test_what_was_never_packed_is_damage(kind: str, data: bytes) -> None:
    with packed(b"\1" + data, f"a{kind}") as log:
        assert log.read(0, CHUNK) == b""
        assert "can't be unpacked" in log.damage


@KINDS
def test_zeros_are_no_empty_log(kind: str) -> None:
    with packed(bytes(4096), f"a{kind}") as log:
        assert log.read(0, CHUNK) == b""
        assert "can't be unpacked" in log.damage


@KINDS
def test_no_more_comes_than_a_log_may_hold(kind: str) -> None:
    with packed(PACKERS[kind](bytes(40 * CHUNK)), f"a{kind}", output=4 * CHUNK) as log:
        # Nor by going back and reading again.
        for _ in range(2):
            assert 4 * CHUNK <= log.next_data(0) <= 6 * CHUNK
            assert "holds more than" in log.damage


@KINDS
def test_reading_takes_no_longer_than_a_log_may(kind: str) -> None:
    with packed(PACKERS[kind](bytes(40 * CHUNK)), f"a{kind}", seconds=0) as log:
        assert log.next_data(0) <= 2 * CHUNK
        assert "longer" in log.damage


def greedy(size: int) -> bytes:
    """A few bytes for which unpacking is to take so much memory."""
    data = lzma.compress(b"text\n", format=lzma.FORMAT_ALONE)
    return data[:1] + size.to_bytes(4, "little") + data[5:]


def test_unpacking_takes_no_more_memory_than_is_good() -> None:
    assert 2**26 < MEMORY < 2**30
    with packed(greedy(2**26), "a.xz") as log:
        assert log.read(0, CHUNK) == b"text\n"
    with packed(greedy(2**30), "a.xz") as log:
        assert log.read(0, CHUNK) == b""
        assert "emory" in log.damage
    # Of its input's end zstd hears too late to take less.
    window = ZSTD_MEMORY.bit_length()
    with packed(zstd(b"text\n", f"--long={window}"), "a.zst") as log:
        assert log.read(0, CHUNK) == b""
        assert "emory" in log.damage


ZSTD_THAT = """#!/bin/sh
{does}
echo unpacked
exit 3
"""


def stand_in_zstd(directory: Path, monkeypatch: pytest.MonkeyPatch, does: str) -> None:
    """From now on zstd does this first."""
    script = directory / "zstd"
    script.write_text(ZSTD_THAT.format(does=does))
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")


def test_of_what_zstd_complains_the_end_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # More than a pipe holds, and it is read before what was unpacked comes.
    flood = "yes 'frame is odd' | head -n 300000 >&2; echo the last word >&2"
    stand_in_zstd(tmp_path, monkeypatch, flood)
    with packed(b"any", "a.zst") as log:
        tracemalloc.start()
        assert log.read(0, CHUNK) == b"unpacked\n"
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 2**20
        assert log.damage.endswith("the last word); its rest is lost")
        assert len(log.damage) < 2 * COMPLAINT


def test_a_zstd_that_says_nothing_is_not_waited_for_longer_than_a_log_may_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in_zstd(tmp_path, monkeypatch, "exec sleep 600")
    with packed(b"any", "a.zst", seconds=0) as log:
        assert log.read(0, CHUNK) == b""
        assert "longer" in log.damage


# Of zstd the process is held by a limit of the system.
@pytest.mark.parametrize("kind", [".bz2", ".gz", ".xz"])
def test_much_that_gives_nothing_ends_in_time(kind: str) -> None:
    nothing = PACKERS[kind](b"") * 10_000
    with packed(nothing, f"a{kind}", seconds=0) as log:
        assert log.read(0, CHUNK) == b""
        assert "longer" in log.damage
