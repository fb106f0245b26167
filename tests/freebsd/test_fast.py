"""The list of what is run on FreeBSD names tests that there are."""

import ast
from pathlib import Path

from tests.kit import ROOT


def test_each_test_of_the_list_exists() -> None:
    listed = (ROOT / "tests/freebsd/fast.txt").read_text().splitlines()
    for line in listed:
        if not line.startswith("#"):
            path, _, name = line.partition("::")
            tree = ast.parse(Path(ROOT, path).read_text())
            there = {each.name for each in tree.body if isinstance(each, ast.FunctionDef)}
            assert not name or name.partition("[")[0] in there, line
