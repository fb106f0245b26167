"""What is said of the services is what their scripts do."""

import re

import pytest

from tests.kit import ROOT

# By their scripts: what all variables of rc.conf(5) begin with.
SERVICES = ("sysadmd", "sysadmd_bridge")


def script(service: str) -> str:
    return (ROOT / "rc.d" / service).read_text()


def defaults(service: str) -> dict[str, str]:
    """The variables that the script knows, with their defaults."""
    return dict(re.findall(r"^: \$\{(sysadmd_\w+):?=(.*)\}$", script(service), re.MULTILINE))


def both() -> dict[str, str]:
    return {name: text for service in SERVICES for name, text in defaults(service).items()}


def test_the_document_has_each_variable_with_its_default() -> None:
    text = (ROOT / "docs" / "install-freebsd.md").read_text()
    rows = re.findall(r"^\| `(sysadmd_\w+)` \| (?:`([^`]*)` )?\|", text, re.MULTILINE)
    assert dict(rows) == both()


def test_the_manual_page_has_each_variable() -> None:
    page = (ROOT / "packaging" / "man" / "sysadmd.8").read_text()
    assert set(re.findall(r"^\.It Va (sysadmd_\w+)$", page, re.MULTILINE)) == set(both())


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize(
    ("what", "pattern"),
    [("logfile", r": \$\{\w+_logfile:=(\S+)\}"), ("pidfile", r"\npidfile=(\S+)\n")],
)
def test_the_log_is_rotated_that_the_service_writes(
    service: str, what: str, pattern: str
) -> None:
    used = re.search(pattern, script(service))
    assert used is not None
    sample = ROOT / "packaging" / "newsyslog" / "sysadmd.conf.sample"
    lines = [line for line in sample.read_text().splitlines() if not line.startswith("#")]
    assert len(lines) == len(SERVICES)
    fields = lines[SERVICES.index(service)].split()
    log, _mode, _count, _size, _when, _flags, pidfile, signal = fields
    assert {"logfile": log, "pidfile": pidfile}[what] == used[1]
    assert signal == "1"
