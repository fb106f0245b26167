"""What `sysadmctl check` decides, and how a monitoring plugin says it. Pure.

Source: Monitoring Plugins Development Guidelines, "Plugin Output for Nagios" and "Performance
data": a line with the state, `|`, figures as 'label'=value;warning;critical;least;most.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sysadmd.ctl.bar import mapping
from sysadmd.ctl.pool_text import (
    briefly,
    is_too_full,
    percent_used,
    pool_troubles,
)
from sysadmd.ctl.priorities import priority_of
from sysadmd.text import printable

OK: Final = 0
WARNING: Final = 1
CRITICAL: Final = 2
UNKNOWN: Final = 3
STATES: Final = ("OK", "WARNING", "CRITICAL", "UNKNOWN")
# The worst first: what is known to be bad is not hidden by what is not known.
_WORST: Final = (CRITICAL, WARNING, UNKNOWN, OK)
# Priority of a pool that is not ONLINE.
_URGENT: Final = 9
# The collectors by the names that the server's configuration has.
COLLECTORS: Final = ("hostname", "zpool", "life_preserver")
_SAMPLE: Final = re.compile(r"(?P<name>[a-zA-Z_:]+)(?:\{(?P<labels>[^{}]*)\})? (?P<value>\S+)")
_LABEL: Final = re.compile(r'collector="([^"\\]*)"')
# Where the trouble of a collector begins in what is said of all of them.
_BEGINS: Final = re.compile(rf"(?:^|; )({'|'.join(COLLECTORS)}): ")


@dataclass(frozen=True, slots=True)
class PlugFigure:
    """Performance data. value: in its unit; warning, critical: empty if there is no such."""

    label: str
    value: str
    unit: str = ""
    warning: str = ""
    critical: str = ""
    least: str = ""
    most: str = ""

    def __str__(self) -> str:
        label = _plain(self.label).replace("=", "-").replace("'", "''")
        limits = (self.warning, self.critical, self.least, self.most)
        return f"'{label}'={self.value}{self.unit};{';'.join(limits)}".rstrip(";")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found out about one thing."""

    status: int
    text: str
    figures: tuple[PlugFigure, ...] = ()


@dataclass(frozen=True, slots=True)
class Limits:
    """How full a pool may be, %; None: what the server says."""

    warning: int | None = None
    critical: int | None = None


def worst(findings: Iterable[Verdict]) -> int:
    """The state of all together."""
    states = {finding.status for finding in findings}
    return next((status for status in _WORST if status in states), UNKNOWN)


def plugin_text(what: str, findings: Sequence[Verdict]) -> str:
    """What the plugin prints: first the worst; all of them behind, if there are several."""
    status = worst(findings)
    told = [_plain(finding.text) for finding in findings if finding.status == status]
    line = f"{what.upper()} {STATES[status]} - {briefly(told)}"
    if figures := " ".join(str(figure) for finding in findings for figure in finding.figures):
        line += f"|{figures}"
    if len(findings) == 1:
        return line
    # In the further lines, too, a bar would begin figures.
    more = [f"{STATES[finding.status]}: {_plain(finding.text)}" for finding in findings]
    return "\n".join([line, *more])


def plugin_value(what: str, findings: Sequence[Verdict]) -> dict[str, Any]:
    """The same as a value for JSON."""
    status = worst(findings)
    keys = ("label", "value", "unit", "warning", "critical", "least", "most")
    return {
        "check": what,
        "status": status,
        "state": STATES[status],
        "verdicts": [{"state": STATES[found.status], "text": found.text} for found in findings],
        "figures": [
            {key: getattr(figure, key) for key in keys}
            for found in findings
            for figure in found.figures
        ],
    }


def _plain(text: str) -> str:
    """Behind a bar there are figures, and lines end where we say so."""
    return printable(text).replace("|", "/")


def check_pools(
    state: Mapping[str, Any], names: Sequence[str], limits: Limits
) -> list[Verdict]:
    """Each of these pools, or all. state: the system state, as a snapshot has it."""
    pools = mapping(state.get("zpools"))
    found: list[Verdict] = []
    for name in dict.fromkeys(names) if names else pools:
        if name in pools:
            found.append(check_pool(name, mapping(pools[name]), limits))
        else:
            found.append(Verdict(CRITICAL, f"there is no pool {name}"))
    if not found:
        found.append(Verdict(UNKNOWN, "the server knows of no pool"))
    if trouble := _troubles(state).get("zpool"):
        found.append(Verdict(UNKNOWN, f"that is what was known last: {trouble}"))
    return found


def check_pool(name: str, pool: Mapping[str, Any], limits: Limits) -> Verdict:
    """A pool by its health, its errors and how full it is."""
    used, troubles = percent_used(pool), pool_troubles(pool, name)
    status = WARNING if troubles else OK
    if (
        pool.get("health") != "ONLINE"
        or priority_of(pool) >= _URGENT
        or pool.get("data_errors")
    ):
        status = CRITICAL
    if used is not None:
        full = _fullness(used, limits, is_too_full(pool, name))
        if full != OK:
            troubles = [*troubles, f"{used} % full"]
        status = worst([Verdict(status, ""), Verdict(full, "")])
    share = "" if used is None else f" {used} %"
    text = f"{name} {pool.get('health') or 'of unknown health'}{share}"
    if troubles:
        text = f"{name} {pool.get('health') or 'of unknown health'}: {briefly(troubles)}"
    if used is None:
        return Verdict(status, text)
    above, far_above = (
        "" if value is None else str(value) for value in (limits.warning, limits.critical)
    )
    figure = PlugFigure(name, str(used), "%", above, far_above, "0", "100")
    return Verdict(status, text, (figure,))


def _fullness(used: int, limits: Limits, too_full: bool) -> int:
    """Limits are as `capacity_warning` is: what is above is too full."""
    if limits.critical is not None and used > limits.critical:
        return CRITICAL
    if limits.warning is None:
        return WARNING if too_full else OK
    return WARNING if used > limits.warning else OK


def _troubles(state: Mapping[str, Any]) -> dict[str, str]:
    """What is said of collectors in trouble, by their names: `error` of the system state."""
    said = state.get("error")
    if not isinstance(said, str) or not said:
        return {}
    # What zpool's is about has no name in front.
    own, *rest = _BEGINS.split(said)
    found = {"zpool": own} if own else {}
    for name, text in zip(rest[::2], rest[1::2], strict=True):
        found[name] = f"{found[name]}; {text}" if name in found else text
    return found


def check_collectors(
    state: Mapping[str, Any], metrics: str, names: Sequence[str]
) -> list[Verdict]:
    """Each of these collectors, or all. metrics: what /metrics says; empty: nothing."""
    troubles, ages = _troubles(state), collector_ages(metrics)
    found: list[Verdict] = []
    for name in dict.fromkeys(names or (*COLLECTORS, *troubles)):
        age = ages.get(name)
        figures = () if age is None else (PlugFigure(f"{name}_age", age, "s", least="0"),)
        if name in troubles:
            found.append(Verdict(CRITICAL, f"{name}: {troubles[name]}", figures))
        else:
            found.append(Verdict(OK, f"{name} tells of no trouble", figures))
    return found


def collector_ages(metrics: str) -> dict[str, str]:
    """Seconds since each collector's last good look."""
    found: dict[str, str] = {}
    for match in _samples(metrics, "sysadmd_collector_age_seconds"):
        if named := _LABEL.search(match["labels"] or ""):
            found[named[1]] = _number(match["value"])
    return {name: value for name, value in found.items() if value}


def check_daemon(
    identity: Mapping[str, Any], health: tuple[int, str] | None, metrics: str, took: float
) -> list[Verdict]:
    """A daemon that has let us in.

    health: status and text of /healthz, None: it could not be asked. took: s.
    """
    figures = [PlugFigure("time", f"{took:.3f}", "s", least="0")]
    total, count = (
        next((_number(match["value"]) for match in _samples(metrics, name)), "")
        for name in ("sysadmd_loop_lag_seconds_sum", "sysadmd_loop_lag_seconds_count")
    )
    if total and count and float(count):
        mean = f"{float(total) / float(count):.6f}"
        figures.append(PlugFigure("loop_lag", mean, "s", least="0"))
    for match in _samples(metrics, "sysadmd_loop_stood_still_seconds_total"):
        if value := _number(match["value"]):
            figures.append(PlugFigure("stood_still", value, "s", least="0"))
    whom = f"sysadmd {identity.get('version', '?')} on {identity.get('hostname', '?')}"
    if health is None:
        return [
            Verdict(OK, f"{whom} answers; over a bridge its health is not told", (*figures,))
        ]
    status, text = health
    if status == 200:
        return [Verdict(OK, f"{whom} is healthy", (*figures,))]
    reasons = [line for line in text.splitlines() if line.strip()]
    first, *rest = reasons or [f"/healthz answers {status}"]
    found = [Verdict(CRITICAL, f"{whom}: {first}", (*figures,))]
    return found + [Verdict(CRITICAL, reason) for reason in rest]


def _samples(metrics: str, name: str) -> Iterable[re.Match[str]]:
    for line in metrics.splitlines():
        if line.startswith(name) and (match := _SAMPLE.match(line)) and match["name"] == name:
            yield match


def _number(text: str) -> str:
    """As a plugin may write it; empty: none."""
    try:
        value = float(text)
    except ValueError:
        return ""
    return f"{value:.3f}".rstrip("0").rstrip(".") if abs(value) < 10**18 else ""
