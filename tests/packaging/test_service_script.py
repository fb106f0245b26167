"""What is said of the service is what its script does."""

import re

import pytest

from tests.kit import ROOT


def defaults() -> dict[str, str]:
    """The variables of rc.conf(5) that the script knows, with their defaults."""
    script = (ROOT / "rc.d" / "sysadmd").read_text()
    return dict(re.findall(r"^: \$\{(sysadmd_\w+):?=(.*)\}$", script, re.MULTILINE))


def test_the_document_has_each_variable_with_its_default() -> None:
    text = (ROOT / "docs" / "install-freebsd.md").read_text()
    rows = re.findall(r"^\| `(sysadmd_\w+)` \| (?:`([^`]*)` )?\|", text, re.MULTILINE)
    assert dict(rows) == defaults()


def test_the_manual_page_has_each_variable() -> None:
    page = (ROOT / "packaging" / "man" / "sysadmd.8").read_text()
    assert set(re.findall(r"^\.It Va (sysadmd_\w+)$", page, re.MULTILINE)) == set(defaults())


@pytest.mark.parametrize(
    ("what", "pattern"),
    [("logfile", r": \$\{sysadmd_logfile:=(\S+)\}"), ("pidfile", r"\npidfile=(\S+)\n")],
)
def test_the_log_is_rotated_that_the_service_writes(what: str, pattern: str) -> None:
    script = (ROOT / "rc.d" / "sysadmd").read_text()
    used = re.search(pattern, script)
    assert used is not None
    sample = ROOT / "packaging" / "newsyslog" / "sysadmd.conf.sample"
    (line,) = [line for line in sample.read_text().splitlines() if not line.startswith("#")]
    log, _mode, _count, _size, _when, _flags, pidfile, signal = line.split()
    assert {"logfile": log, "pidfile": pidfile}[what] == used[1]
    assert signal == "1"
