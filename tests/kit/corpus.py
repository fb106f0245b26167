"""The recorded outputs and logs that the collectors' tests replay."""

from __future__ import annotations

import json
from typing import Any

from tests.kit.daemon import ROOT

CORPUS = ROOT / "tests" / "corpus"
ZPOOL = CORPUS / "zpool"
LPRESERVER = CORPUS / "lpreserver"


def records(state: str) -> list[dict[str, Any]]:
    """The commands that were run in a state of the pools, in order."""
    return [json.loads(line) for line in (ZPOOL / f"{state}.jsonl").read_text().splitlines()]


def expected_pools(state: str, phase: int) -> dict[str, dict[str, str]] | None:
    """What a correct collector reports for it; None: that there is no answer."""
    path = ZPOOL / "expected" / f"{state}.phase{phase}.json"
    if not path.exists():
        path = ZPOOL / "expected" / f"{state}.json"
    found: dict[str, dict[str, str]] | None = json.loads(path.read_text())
    return found
