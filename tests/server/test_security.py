"""docs/security.md names where each claim is kept and which test shows it: all is there."""

import re

from tests.kit import ROOT

ROWS = [
    row.split("|")[3:5]
    for row in (ROOT / "docs/security.md").read_text().splitlines()
    if row.count("|") == 5 and "`test_" in row
]


def test_the_tests_that_the_document_names_exist() -> None:
    named: list[tuple[str, str]] = []
    for _, tests in ROWS:
        file = ""
        for word in re.findall(r"`([a-z0-9_.]+)`", tests):
            if word.endswith(".py"):
                file = word
            else:
                named.append((file, word))
    assert len(named) > 120
    for file, name in named:
        texts = [path.read_text() for path in ROOT.glob(f"tests/*/{file}")]
        assert any(f"def test_{name}(" in text for text in texts), (file, name)


def test_the_files_that_the_document_names_exist() -> None:
    for where, _ in ROWS:
        paths = re.findall(r"`([^`]+)`", where)
        assert paths, where
        assert all((ROOT / path).exists() for path in paths), where
