"""What guard, keeper and starters complain of, as it is shown."""

from __future__ import annotations

import os
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from dispatcher import trouble


def said(path: Path, *texts: str) -> str:
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    kept = os.dup(2)
    os.dup2(file, 2)
    try:
        for text in texts:
            trouble.complain(text)
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(file)
    return path.read_text()


def test_what_comes_from_jobs_is_one_line_that_prints(tmp_path: Path) -> None:
    text = said(tmp_path / "log", "/x\x1b[2J\r\n\u202e\u2028\u200b\x07\udc80/ä")
    assert text == "/x\\x1b[2J\\r\\n\\u202e\\u2028\\u200b\\x07\\udc80/ä\n"


@given(st.text())
def test_any_text_prints(text: str) -> None:
    assert trouble.printable(text).isprintable()


def test_the_log_stays_short(tmp_path: Path) -> None:
    said(tmp_path / "log", *("\x1b" * 60_000 for _ in range(200)))
    assert (tmp_path / "log").stat().st_size <= trouble.LOG_SIZE + 10_000
