"""docs/security.md names a test for each claim: they are all there."""

import re

from tests.kit import ROOT


def test_the_tests_that_the_document_names_exist() -> None:
    named: list[tuple[str, str]] = []
    for row in (ROOT / "docs/security.md").read_text().splitlines():
        file = ""
        if row.count("|") != 5 or "`test_" not in row:
            continue
        for word in re.findall(r"`([a-z0-9_.]+)`", row.split("|")[4]):
            if word.endswith(".py"):
                file = word
            else:
                named.append((file, word))
    assert len(named) > 120
    for file, name in named:
        texts = [path.read_text() for path in ROOT.glob(f"tests/*/{file}")]
        assert any(f"def test_{name}(" in text for text in texts), (file, name)
