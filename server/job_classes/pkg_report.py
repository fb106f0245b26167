"""What is told of a job of pkg(8): how far it is, what it found, what went wrong. No I/O.

pkg speaks on two channels: its text has the plan (how many packages, how many bytes), its event
pipe what is under way, byte by byte. How they lie to each other is not known, and either may be
missing, so each has a state of its own, and what is told is made of both.
"""

from __future__ import annotations

from typing import Any, Final

from dispatcher.reports import Fields
from server.job_classes.pkg_audit import MOST_OUTPUT, audit_fields
from server.job_classes.pkg_events import PkgEvents
from server.job_classes.pkg_state import PackageLedger, PkgProblems
from server.job_classes.pkg_text import PkgText
from server.job_classes.progress import JobProgress

# Actions whose plan is carried out.
_CHANGING: Final = frozenset(("pkg_install", "pkg_remove", "pkg_upgrade", "pkg_autoremove"))
# Actions of which the catalogue, or the database of vulnerabilities, is the job itself.
_FETCHING: Final = frozenset(("pkg_update", "pkg_audit"))
# The share of the fetch, where a plan says that there is one; the rest is for the packages.
_FETCH: Final = 0.5
# The share of pkg itself, where it is upgraded before all others: it is one small package.
_ITSELF: Final = 0.1
# How much of a package its files are; its scripts take their time too.
_UNPACKED: Final = 0.9


class PkgReport:
    """The report on a job of `sysadm/pkg`.

    Fields: progress; problems: texts, if there are any. At the end also, of pkg_check_upgrade
    updates_available, "true" or "false", if pkg says so; of pkg_audit what `audit_fields` says.
    """

    def __init__(self, accepted: Fields, told: Fields) -> None:
        action = accepted.get("action")
        self._action = action if isinstance(action, str) else ""
        self._progress = JobProgress(told)
        self._ledger = PackageLedger()
        self._events = PkgEvents(self._ledger)
        self._text = PkgText(self._ledger)
        # The output of an audit, whole.
        self._output = bytearray()
        self._too_long = False

    def output(self, command: int, data: bytes) -> None:
        """See `Report`. There is one command a job."""
        if self._action == "pkg_audit":
            self._too_long = self._too_long or len(self._output) + len(data) > MOST_OUTPUT
            if self._too_long:
                self._output.clear()
                self._text.problems.add(
                    f"pkg has said more than {MOST_OUTPUT} bytes: too much to be read"
                )
            else:
                self._output += data
        self._text.feed(data)

    def event(self, line: bytes) -> None:
        """See `Report`."""
        self._events.line(line)

    @property
    def watched(self) -> str | None:
        """See `Report`. pkg tells of its bytes itself."""
        return None

    def grown(self, size: int, at: float) -> None:
        """See `Report`."""

    def fields(self) -> Fields:
        """See `Report`."""
        self._judge()
        return self._told(self._problems())

    def ended(self, result: str) -> Fields:
        """See `Report`."""
        succeeded = result == "succeeded"
        self._text.end_line()
        if succeeded:
            self._text.end()
        self._judge()
        problems = self._problems()
        if result == "failed" and self._action != "pkg_audit" and not self._text.planned:
            problems.add_if_none(self._text.last)
        if succeeded:
            self._progress.succeeded()
            self._progress.package = ""
            if self._action in _CHANGING:
                for name in self._ledger.left_out():
                    problems.add(f"{name}: was planned and is not done")
        fields = self._told(problems)
        if self._action == "pkg_check_upgrade" and succeeded:
            fields.update(self._updates())
        if self._action == "pkg_audit" and result in ("succeeded", "failed"):
            fields.update(audit_fields(bytes(self._output)))
        return fields

    def _told(self, problems: PkgProblems) -> dict[str, Any]:
        fields: dict[str, Any] = {"progress": self._progress.value()}
        if problems.texts:
            fields["problems"] = problems.texts
        return fields

    def _problems(self) -> PkgProblems:
        """Those of the events, and those that the text alone tells."""
        both = PkgProblems()
        both.add_all(self._events.problems)
        both.add_all(self._text.problems)
        return both

    def _updates(self) -> dict[str, str]:
        """Whether there are updates, if that is known: an old catalogue knows of none."""
        if self._text.planned:
            return {"updates_available": "true"}
        if self._text.up_to_date and not (self._text.failed or self._events.failed):
            return {"updates_available": "false"}
        return {}

    def _judge(self) -> None:
        """Make progress of the state of both channels."""
        text, events, progress = self._text, self._events, self._progress
        ahead = text.place if text.place.ahead > events.place.ahead else events.place
        progress.phase, progress.package = ahead.phase, ahead.package
        # Where no plan is known (yet), that stands which was told.
        total = sum(plan.total for plan in text.plans) or progress.total
        progress.count(self._ledger.done, total)
        progress.at(self._share())

    def _share(self) -> float:
        text, events = self._text, self._events
        if self._action in _FETCHING:
            return max(text.catalogues.share, events.catalogues.share)
        if self._action == "pkg_check_upgrade":
            return text.checked
        if not (text.itself_first or events.itself_first):
            return self._stage(second=False)
        first = 1.0 if text.at_second or events.at_second else self._stage(second=False)
        return _ITSELF * first + (1 - _ITSELF) * self._stage(second=True)

    def _stage(self, *, second: bool) -> float:
        """How far it is with pkg itself or with everything else, from 0 to 1.

        Without the plan nothing is known: it stays at 0, for what was told once is not taken
        back. The text comes first, as a rule.
        """
        plan, stage = self._text.plans[second], self._events.stages[second]
        total = plan.total
        if not total:
            return 0.0
        by_events = stage.finished + _UNPACKED * stage.share
        changed = min(1.0, max(by_events, plan.reached(_UNPACKED)) / total)
        if not plan.bytes:
            return changed
        if plan.past_fetch or stage.past_fetch:
            fetched = 1.0
        elif not stage.fetches or plan.fetch[0] > stage.fetches + 1:
            # There are no events, or none any more.
            fetched = plan.fetched_share()
        elif total == 1:
            fetched = stage.fetched
        else:
            fetched = min(1.0, stage.bytes / plan.bytes)
        return _FETCH * fetched + (1 - _FETCH) * changed
