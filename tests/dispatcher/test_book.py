"""A keeper's book: what one end writes the other one reads, whatever its length."""

from pathlib import Path

from dispatcher import book
from dispatcher.words import Barred, Dead, Fact, Left

BARRED, LEFT = {"barred": [1, 0]}, {"left": [1, 0]}


def test_a_line_longer_than_a_portion_is_read_whole(tmp_path: Path) -> None:
    writer = book.BookWriter(tmp_path, "k", 1)
    reader = book.BookReader(tmp_path, "k", 1, 0)
    long = {"dead": 1, "children": list(range(200_000))}
    for line in (BARRED, long, LEFT):
        writer.write(line)
    found: list[Fact] = []
    while lines := reader.read()[0]:
        found += lines
        reader.move(*reader.read()[1:])
    assert found == [Barred((1, 0)), Dead(), Left((1, 0))] == writer.facts()


def test_a_line_without_its_end_is_left_for_later(tmp_path: Path) -> None:
    writer = book.BookWriter(tmp_path, "k", 1)
    writer.write(BARRED)
    with book.path(tmp_path, "k", 1).open("ab") as torn:
        torn.write(b'{"end"' + b" " * 600_000)
    reader = book.BookReader(tmp_path, "k", 1, 0)
    assert reader.read()[0] == [Barred((1, 0))]
    reader.move(*reader.read()[1:])
    assert reader.read()[0] == []


def test_a_book_that_is_shorter_than_what_was_read_is_read_anew(tmp_path: Path) -> None:
    writer = book.BookWriter(tmp_path, "k", 1)
    writer.write(BARRED)
    for position in (-1, 10_000):
        facts, _, end = book.BookReader(tmp_path, "k", 1, position).read()
        assert facts == [Barred((1, 0))]
        assert end == writer.path.stat().st_size


def test_what_is_not_known_is_passed_over_and_can_be_told(tmp_path: Path) -> None:
    writer = book.BookWriter(tmp_path, "k", 1)
    writer.write({"mark": 1})
    writer.write(BARRED)
    reader = book.BookReader(tmp_path, "k", 1, 0)
    assert reader.read()[0] == [Barred((1, 0))]
    assert reader.strange == b'{"mark":1}'


def test_what_is_read_is_whole_if_nothing_stands_behind_it(tmp_path: Path) -> None:
    writer = book.BookWriter(tmp_path, "k", 1)
    reader = book.BookReader(tmp_path, "k", 1, 0)
    writer.write(BARRED)
    reader.read()
    assert reader.is_whole
    with writer.path.open("ab") as torn:
        torn.write(b'{"end"')
    reader.read()
    assert not reader.is_whole
    writer.write(LEFT)
    reader.read()
    assert reader.is_whole
    writer.turn([BARRED])
    reader.read()
    assert not reader.is_whole
    reader.move(*reader.read()[1:])
    reader.move(*reader.read()[1:])
    assert reader.read() == ([], 2, writer.path.stat().st_size)
    assert reader.is_whole
