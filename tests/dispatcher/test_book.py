"""A keeper's book: what one end writes the other one reads, whatever its length."""

from pathlib import Path

from dispatcher import book


def test_a_line_longer_than_a_portion_is_read_whole(tmp_path: Path) -> None:
    writer = book.BookWriter(tmp_path, "k", 1)
    reader = book.BookReader(tmp_path, "k", 1, 0)
    long = {"dead": 1, "children": list(range(200_000))}
    for line in ({"next": [1, 0]}, long, {"end": [1, 0]}):
        writer.write(line)
    found: list[book.Line] = []
    while lines := reader.read()[0]:
        found += lines
        reader.move(*reader.read()[1:])
    assert found == [{"next": [1, 0]}, long, {"end": [1, 0]}]


def test_a_line_without_its_end_is_left_for_later(tmp_path: Path) -> None:
    writer = book.BookWriter(tmp_path, "k", 1)
    writer.write({"next": [1, 0]})
    with book.path(tmp_path, "k", 1).open("ab") as torn:
        torn.write(b'{"end"' + b" " * 600_000)
    reader = book.BookReader(tmp_path, "k", 1, 0)
    assert reader.read()[0] == [{"next": [1, 0]}]
    reader.move(*reader.read()[1:])
    assert reader.read()[0] == []
