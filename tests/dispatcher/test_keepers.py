"""The daemon's end of the line to a keeper."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from dispatcher import book, keepers
from dispatcher.daemon_line import NEWS
from dispatcher.keepers import Link, NoAnswer
from dispatcher.words import Said
from tests.kit.waiting import DEADLINE

HELLO = book.encode({"hello": "k", "version": "1", "draining": False})
HANGING = book.encode({"hanging": [[1, 0]]})


def call(state_dir: Path, early: bytes, answer: bytes) -> tuple[Link, list[Said]]:
    """Call who says `early` to whoever is there, then this, and hangs up; what it said after
    its answer."""
    heard: list[Said] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(early)
        await reader.readline()
        writer.write(answer)
        writer.close()
        await writer.wait_closed()

    async def body() -> Link:
        (state_dir / "keeper").mkdir()
        async with await asyncio.start_unix_server(serve, state_dir / "keeper" / "k.sock"):
            link = await keepers.call(state_dir, "k", DEADLINE)
            await link.listen(heard.append)
            return link

    return asyncio.run(asyncio.wait_for(body(), DEADLINE)), heard


@pytest.mark.parametrize("early", [b"", NEWS, 2 * NEWS, HANGING + NEWS])
def test_news_for_whoever_is_there_is_no_answer(tmp_path: Path, early: bytes) -> None:
    link, heard = call(tmp_path, early, HELLO + NEWS + HANGING)
    assert (link.version, link.draining) == ("1", False)
    # What comes behind the answer is not lost.
    assert [word.hanging for word in heard] == [None, {(1, 0)}]


def test_what_is_not_understood_is_the_answer_of_another_version(tmp_path: Path) -> None:
    link, heard = call(tmp_path, b"", book.encode({"salve": 1}) + NEWS)
    assert (link.version, link.draining, len(heard)) == ("", False, 1)


def test_who_hangs_up_after_news_has_not_answered(tmp_path: Path) -> None:
    with pytest.raises(NoAnswer, match="hung up"):
        call(tmp_path, NEWS, NEWS)
