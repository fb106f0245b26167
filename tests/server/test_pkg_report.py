"""What is told of pkg's jobs: the recorded runs replayed in any order, and hostile input."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Iterator
from functools import cache
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dispatcher.reports import Fields, Report
from server.job_classes.pkg_report import PkgReport
from tests.kit.corpus import CORPUS

PKG: Final = CORPUS / "pkg"
MOST_JSON: Final = 128 * 1024
ACTIONS: Final = {
    "install": "pkg_install",
    "delete": "pkg_remove",
    "lock": "pkg_lock",
    "unlock": "pkg_unlock",
    "update": "pkg_update",
    "upgrade": "pkg_upgrade",
    "audit": "pkg_audit",
    "autoremove": "pkg_autoremove",
}
# One piece of what a job says: of its output, or a line of its events.
Piece = tuple[bool, bytes]

# Packages done and planned, of the runs with exit status 0.
SUCCEEDED: Final = {
    "after-kill-term-fetch": (1, 1),
    "audit-qr-clean": (0, 0),
    "audit-raw-json-clean": (0, 0),
    "autoremove": (6, 6),
    "autoremove-none": (0, 0),
    "db-lock-waited": (1, 1),
    "db-locked-upgrade-check": (0, 0),
    "events-fifo-full": (3, 3),
    "events-fifo-no-reader": (2, 2),
    "events-missing": (2, 2),
    "events-socket-closed": (3, 3),
    "events-socket-no-listener": (2, 2),
    "fail-update-garbage-catalogue": (0, 0),
    "install-already": (0, 0),
    "install-conflict": (1, 1),
    "install-deps": (4, 4),
    "install-from-repository": (1, 1),
    "install-large": (1, 1),
    "install-message-unicode": (1, 1),
    "install-no-event-pipe": (2, 2),
    "install-query-answer-yes": (2, 2),
    "install-reinstall": (1, 1),
    "install-script-post-fails": (0, 1),
    "install-several-tty": (5, 5),
    "install-slow-scripts": (1, 1),
    "install-trigger-fires": (1, 1),
    "install-triggers": (1, 1),
    "lock": (0, 0),
    "lock-already": (0, 0),
    "lock-list": (0, 0),
    "lock-two": (0, 0),
    "remove-leaf": (1, 1),
    "remove-recursive": (5, 5),
    "remove-with-dependents": (5, 5),
    "unlock": (0, 0),
    "unlock-not-locked": (0, 0),
    "update-first": (0, 0),
    "update-force": (0, 0),
    "update-newer-catalogue": (0, 0),
    "update-uptodate": (0, 0),
    "update-uptodate-quiet": (0, 0),
    "upgrade": (5, 5),
    "upgrade-check": (0, 5),
    "upgrade-check-none": (0, 0),
    "upgrade-check-quiet": (0, 4),
    "upgrade-one": (1, 1),
    "upgrade-pkg-itself": (5, 5),
    "upgrade-then-check": (0, 0),
}
# Phase, package, percent, done and total of the others.
NOT_SUCCEEDED: Final = {
    "audit-fetch": ("fetch", "", 32, 0, 0),
    "audit-fetch-again": ("start", "", 0, 0, 0),
    "audit-no-database": ("start", "", 0, 0, 0),
    "audit-plain": ("start", "", 0, 0, 0),
    "audit-q": ("start", "", 0, 0, 0),
    "audit-qr": ("start", "", 0, 0, 0),
    "audit-r": ("start", "", 0, 0, 0),
    "audit-raw-json": ("start", "", 0, 0, 0),
    "autoremove-check": ("check", "", 0, 0, 6),
    "fail-connection-cut": ("fetch", "bigdata", 19, 0, 1),
    "fail-corrupt": ("fetch", "bigdata", 50, 0, 1),
    "fail-db-damaged": ("catalogue", "", 0, 0, 0),
    "fail-db-locked": ("start", "", 0, 0, 0),
    "fail-disk-full-extract": ("install", "bigdata", 95, 0, 1),
    "fail-disk-full-fetch": ("catalogue", "", 0, 0, 1),
    "fail-install-norepo": ("start", "", 0, 0, 0),
    "fail-update-404": ("catalogue", "", 65, 0, 0),
    "fail-update-refused": ("catalogue", "", 65, 0, 0),
    "install-dry-run": ("catalogue", "", 0, 0, 1),
    "install-from-unknown-repository": ("start", "", 0, 0, 0),
    "install-query-no-y": ("catalogue", "", 0, 0, 1),
    "install-unknown": ("catalogue", "", 0, 0, 0),
    "install-unknown-and-known": ("catalogue", "", 0, 0, 0),
    "kill-term-fetch": ("fetch", "bigdata", 23, 0, 1),
    "kill-term-parent-only": ("triggers", "", 99, 1, 1),
    "kill-term-script": ("install", "slowpkg", 50, 0, 1),
    "lock-unknown": ("start", "", 0, 0, 0),
    "remove-locked": ("check", "", 0, 0, 0),
    "remove-unknown": ("check", "", 0, 0, 0),
    "remove-vital": ("check", "", 0, 0, 0),
    "usage-error": ("start", "", 0, 0, 0),
    "usage-unknown-command": ("start", "", 0, 0, 0),
}
_KEEPME: Final = "keepme is locked and may not be modified"
_FILES: Final = ("meta.txz", "data.pkg", "data.tzst", "packagesite.pkg", "packagesite.tzst")
_URL: Final = "http://pkg.test/FreeBSD:14:amd64/latest"
_DAMAGED: Final = "; in file /scratch/src/libpkg/pkgdb.c:{}: file is not a database"
_UNKNOWN: Final = (
    "No packages available to install matching '{}' have been found in the repositories"
)
PROBLEMS: Final = {
    "after-kill-term-fetch": [
        "cached package bigdata-1.0: checksum mismatch, fetching from remote"
    ],
    "audit-no-database": [
        "vulnxml file vuln.xml does not exist. Try running 'pkg audit -F' first"
    ],
    "events-fifo-no-reader": [
        "Open event pipe(/scratch/events.fifo): No such device or address"
    ],
    "events-missing": ["No such event pipe: /scratch/events.fifo"],
    "events-socket-no-listener": [
        "Connect event pipe(/scratch/events.sock): Connection refused"
    ],
    "fail-connection-cut": ["fetch size does not match expected package size"],
    "fail-corrupt": ["bigdata-1.0 failed checksum from repository"],
    "fail-db-damaged": [
        "sqlite error while executing PRAGMA journal_mode = WAL" + _DAMAGED.format(2611),
        "sqlite error while executing PRAGMA synchronous = NORMAL" + _DAMAGED.format(2611),
        "sqlite error while executing PRAGMA user_version" + _DAMAGED.format(2648),
    ],
    "fail-db-locked": [
        "Cannot get an advisory lock on a database, it is locked by another process"
    ],
    "fail-disk-full-extract": [
        "Failed to extract /usr/local/share/bigdata/part19.bin from package: Write error"
    ],
    "fail-disk-full-fetch": [
        "Not enough space in /var/cache/pkg, needed 2478 KiB available 1024 KiB"
    ],
    "fail-install-norepo": [_UNKNOWN.format("tool-two")],
    "fail-update-404": [f"{_URL}/{file}: Not Found" for file in _FILES],
    "fail-update-garbage-catalogue": ["Repo extraction failed"],
    "install-from-unknown-repository": ["No repositories are enabled."],
    "remove-locked": ["1 packages requested for removal: 1 locked, 0 missing"],
    "remove-unknown": ["1 packages requested for removal: 0 locked, 1 missing"],
    "remove-vital": ["1 packages requested for removal: 1 locked, 0 missing"],
    "usage-error": ["For more information see 'pkg help install'."],
    "fail-update-refused": [f"{_URL}/{file}: Connection refused" for file in _FILES],
    "install-conflict": ["clash-a: was planned and is not done"],
    "install-script-post-fails": ["badpost: was planned and is not done"],
    "install-unknown": [_UNKNOWN.format("nosuchpkg")],
    "install-unknown-and-known": [_UNKNOWN.format("nosuchpkg")],
    "upgrade": [_KEEPME],
    "upgrade-check": [_KEEPME],
    "upgrade-pkg-itself": [_KEEPME],
    "upgrade-then-check": [_KEEPME],
    "usage-unknown-command": ["unknown command: frobnicate"],
}
UPDATES: Final = {
    "db-locked-upgrade-check": "false",
    "upgrade-check": "true",
    "upgrade-check-none": "false",
    "upgrade-check-quiet": "true",
    "upgrade-then-check": "false",
}
VUXML: Final = "https://vuxml.FreeBSD.org/freebsd/11111111-aaaa-4bbb-8ccc-00000000000{}.html"
VULNERABILITIES: Final = {
    "vulncurl": {
        "version": "8.0.1",
        "issues": [
            {
                "id": "11111111-aaaa-4bbb-8ccc-000000000002",
                "description": "vulncurl -- cookie leak; several, with commas",
                "cve": ["CVE-2026-90010"],
                "url": VUXML.format(2),
                "affected": ["< 8.1.0"],
            }
        ],
    },
    "vulnlib": {
        "version": "1.2.3",
        "issues": [
            {
                "id": "11111111-aaaa-4bbb-8ccc-000000000001",
                "description": 'vulnlib -- heap overflow in the "parse" routine',
                "cve": ["CVE-2026-90001", "CVE-2026-90002"],
                "url": VUXML.format(1),
                "affected": [">= 1.0 : < 1.3.0"],
            },
            {
                "id": "11111111-aaaa-4bbb-8ccc-000000000003",
                "description": "vulnlib -- denial of service",
                "cve": ["CVE-2026-90003"],
                "url": VUXML.format(3),
                "affected": ["<= 1.2.3"],
            },
        ],
    },
}
AUDITS: Final[dict[str, dict[str, Any]]] = {
    "audit-raw-json": {
        "vulnerable_pkgs": ["vulncurl", "vulnlib"],
        "impacts_pkgs": ["vulnapp", "vulnapp-gui"],
        "vulnerabilities": VULNERABILITIES,
    },
    "audit-raw-json-clean": {
        "vulnerable_pkgs": [],
        "impacts_pkgs": [],
        "vulnerabilities": {},
    },
}
CASES: Final = sorted(path.stem for path in PKG.glob("*.json"))


@cache
def case(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((PKG / f"{name}.json").read_text())
    return found


def action_of(name: str) -> str:
    argv = case(name)["argv"]
    action = ACTIONS.get(argv[1], "pkg_unheard_of")
    checked = action == "pkg_upgrade" and any(word.startswith("-n") for word in argv)
    return "pkg_check_upgrade" if checked else action


def result_of(name: str) -> str:
    rc = case(name)["rc"]
    return "killed" if rc is None else "failed" if rc else "succeeded"


def text_of(name: str) -> list[Piece]:
    return [(True, text.encode()) for _, text in case(name)["output"]]


def recorded_events(name: str) -> list[tuple[float, str]]:
    found: list[tuple[float, str]] | None = case(name)["events"]
    return found or []


def events_of(name: str) -> list[Piece]:
    return [(False, line.encode()) for _, line in recorded_events(name)]


def merged(name: str) -> list[Piece]:
    """Both as they came."""
    output: list[tuple[float, str]] = case(name)["output"]
    times = [at for at, _ in [*output, *recorded_events(name)]]
    pieces = zip(times, [*text_of(name), *events_of(name)], strict=True)
    return [piece for _, piece in sorted(pieces, key=lambda timed: timed[0])]


def new_report(action: str, told: Fields | None = None) -> PkgReport:
    return PkgReport({"action": action}, told or {})


def feed(report: Report, pieces: list[Piece]) -> Iterator[Fields]:
    """The fields behind each piece; percent and done never fall, and 100 is not reached."""
    last = report.fields()["progress"]
    for is_text, data in pieces:
        if is_text:
            report.output(0, data)
        else:
            report.event(data)
        fields = report.fields()
        progress = fields["progress"]
        assert last["percent"] <= progress["percent"] <= 99
        assert last["done"] <= progress["done"] <= progress["total"]
        last = progress
        yield fields


def ended(name: str, pieces: list[Piece]) -> Fields:
    report = new_report(action_of(name))
    for _ in feed(report, pieces):
        pass
    return report.ended(result_of(name))


def percents(action: str, pieces: list[Piece]) -> list[int]:
    return [fields["progress"]["percent"] for fields in feed(new_report(action), pieces)]


def expected(name: str) -> dict[str, Any]:
    ended_well = name in SUCCEEDED
    values = ("done", "", 100, *SUCCEEDED[name]) if ended_well else NOT_SUCCEEDED[name]
    keys = ("phase", "package", "percent", "done", "total")
    fields: dict[str, Any] = {"progress": dict(zip(keys, values, strict=True))}
    if name in PROBLEMS:
        fields["problems"] = PROBLEMS[name]
    if name in UPDATES:
        fields["updates_available"] = UPDATES[name]
    return fields | AUDITS.get(name, {})


def test_every_recorded_run_is_expected_to_end_in_some_way() -> None:
    assert sorted([*SUCCEEDED, *NOT_SUCCEEDED]) == CASES
    assert {name for name in CASES if case(name)["rc"] == 0} == set(SUCCEEDED)
    assert {*PROBLEMS, *UPDATES, *AUDITS} <= set(CASES)


@pytest.mark.parametrize("name", CASES)
def test_a_recorded_run_ends_as_expected_however_its_channels_lie(name: str) -> None:
    assert ended(name, merged(name)) == expected(name)
    assert ended(name, text_of(name) + events_of(name)) == expected(name)
    assert ended(name, events_of(name) + text_of(name)) == expected(name)


@pytest.mark.parametrize("name", CASES)
def test_a_recorded_run_ends_as_expected_however_it_is_shuffled_and_cut(name: str) -> None:
    random_ = random.Random(name)  # the same runs each time
    text = b"".join(data for _, data in text_of(name))
    for pieces_ in (1, 7, 60):
        cuts = sorted(random_.randrange(len(text) + 1) for _ in range(pieces_))
        pairs = itertools.pairwise([0, *cuts, len(text)])
        pieces = [(True, text[start:end]) for start, end in pairs]
        events = events_of(name)
        kinds = [True] * len(pieces) + [False] * len(events)
        random_.shuffle(kinds)
        channels = {True: iter(pieces), False: iter(events)}
        found = ended(name, [next(channels[kind]) for kind in kinds])
        wanted = expected(name)
        # How far a run was held to be that did not get to its end is a guess.
        guess = 0 if name in SUCCEEDED else 3
        percent = found["progress"]["percent"]
        assert abs(percent - wanted["progress"]["percent"]) <= guess
        assert found == wanted | {"progress": wanted["progress"] | {"percent": percent}}


@pytest.mark.parametrize("name", CASES)
def test_a_report_made_anew_goes_on_from_what_was_told(name: str) -> None:
    pieces = merged(name)
    first = new_report(action_of(name))
    for _ in feed(first, pieces[: 2 * len(pieces) // 3]):
        pass
    told = first.fields()
    second = new_report(action_of(name), told)
    assert second.fields()["progress"]["percent"] == told["progress"]["percent"]
    for fields in feed(second, pieces):
        assert fields["progress"]["percent"] >= told["progress"]["percent"]
        assert fields["progress"]["done"] >= told["progress"]["done"]
    assert second.ended(result_of(name)) == expected(name)


def test_percent_grows_all_the_way() -> None:
    for name, gap in (("install-large", 5), ("upgrade", 10), ("install-several-tty", 12)):
        found = percents(action_of(name), merged(name))
        assert found[-1] == 99
        assert max(b - a for a, b in itertools.pairwise(found)) <= gap, name


def test_the_upgrade_of_pkg_itself_is_a_small_part_of_all() -> None:
    report = new_report("pkg_upgrade")
    seen = {
        (fields["progress"]["done"], fields["progress"]["total"]): fields["progress"]["percent"]
        for fields in feed(report, merged("upgrade-pkg-itself"))
    }
    assert list(seen) == [(0, 0), (0, 1), (1, 1), (1, 5), (2, 5), (3, 5), (4, 5), (5, 5)]
    assert seen[1, 1] == 10
    assert 50 <= seen[1, 5] < 75
    assert seen[5, 5] == 99


def test_a_plan_that_replaces_another_takes_its_total() -> None:
    totals = [
        fields["progress"]["total"]
        for fields in feed(new_report("pkg_install"), merged("install-conflict"))
    ]
    assert [total for total, _ in itertools.groupby(totals)] == [0, 2, 1]


def test_progress_is_made_of_the_text_alone() -> None:
    for name in CASES:
        if not action_of(name).endswith(("install", "upgrade", "remove")):
            continue
        report = new_report(action_of(name))
        for _ in feed(report, text_of(name)):
            pass
        progress = report.ended(result_of(name))["progress"]
        # That a script failed behind the last file, events alone tell.
        done = {"install-script-post-fails": 1, "kill-term-parent-only": 0}
        assert progress["done"] == done.get(name, expected(name)["progress"]["done"]), name
        assert progress["total"] == expected(name)["progress"]["total"], name


def test_progress_is_made_where_the_reader_of_events_goes_away() -> None:
    pieces = text_of("events-socket-closed")
    one_by_one = [(True, bytes([byte])) for byte in b"".join(data for _, data in pieces)]
    found = percents("pkg_install", events_of("events-socket-closed") + one_by_one)
    # The plan comes behind the events here. Of three packages each has a third of its half.
    steps = [percent for percent in found if percent]
    assert max(b - a for a, b in itertools.pairwise(steps)) <= 17
    assert found[-1] == 98


def test_the_steps_of_a_jail_are_read_too() -> None:
    text = b"".join(data for _, data in text_of("install-no-event-pipe"))
    report = new_report("pkg_install")
    report.output(
        0, text.replace(b"[1/2] ", b"[web.1] [1/2] ").replace(b"[2/2]", b"[web.1] [2/2]")
    )
    assert report.ended("succeeded") == expected("install-no-event-pipe")


def repository(name: str, file: str) -> list[Piece]:
    url = f"http://h/{name}"
    start = [(False, b'{"type":"INFO_PROGRESS_START","data":{}}')]

    def ticks(total: int) -> list[Piece]:
        form = '{{"type":"INFO_PROGRESS_TICK","data":{{"current":{},"total":{}}}}}'
        return [(False, form.format(at, total).encode()) for at in range(total + 1)]

    def fetch(part: str) -> list[Piece]:
        kinds = ("INFO_FETCH_BEGIN", "INFO_FETCH_FINISHED")
        begin, end = (
            json.dumps({"type": kind, "data": {"url": f"{url}/{part}"}}).encode()
            for kind in kinds
        )
        return [(False, begin), *start, *ticks(10), (False, end)]

    done = json.dumps({"type": "INFO_INCREMENTAL_UPDATE", "data": {"name": name}}).encode()
    return [*fetch("meta.conf"), *fetch(file), *start, *ticks(10), (False, done)]


def test_an_update_moves_with_each_of_its_repositories() -> None:
    pieces = [
        piece
        for name, file in (("a", "data.pkg"), ("b", "packagesite.pkg"), ("c", "data.pkg"))
        for piece in repository(name, file)
    ]
    found = percents("pkg_update", pieces)
    ends = [found[(number + 1) * len(found) // 3 - 1] for number in range(3)]
    assert ends == [65, 87, 95]
    assert len(set(found)) > 30
    assert percents("pkg_install", pieces) == [0] * len(pieces)
    text = "".join(
        f"Updating {name} repository catalogue...\nFetching meta.conf: . done\n"
        f"Fetching data: .......... done\nProcessing entries: .......... done\n"
        f"{name} repository update completed. 26 packages processed.\n"
        for name in "abc"
    )
    by_text = percents("pkg_update", [(True, bytes([byte])) for byte in text.encode()])
    assert by_text[-1] == 95
    assert len(set(by_text)) > 30


def test_an_old_catalogue_does_not_read_as_up_to_date() -> None:
    checked = merged("upgrade-check-none")
    bad = merged("fail-update-garbage-catalogue")
    for pieces in (bad, [piece for piece in bad if piece[0]], [(True, b"pkg: no\n")]):
        report = new_report("pkg_check_upgrade")
        for _ in feed(report, pieces + checked):
            pass
        assert "updates_available" not in report.ended("succeeded")
    report = new_report("pkg_check_upgrade")
    report.output(0, b"pkg: No such event pipe: /x\n" + b"".join(d for t, d in checked if t))
    assert report.ended("succeeded")["updates_available"] == "false"


@pytest.mark.parametrize("result", ["failed", "killed", "timed-out", "lost"])
def test_a_check_that_did_not_succeed_says_nothing_of_updates(result: str) -> None:
    for name in UPDATES:
        report = new_report("pkg_check_upgrade")
        for _ in feed(report, merged(name)):
            pass
        fields = report.ended(result)
        assert "updates_available" not in fields
        assert fields["progress"]["percent"] < 100
        assert fields["progress"]["phase"] != "done"


def audit(output: bytes, result: str = "failed") -> Fields:
    report = new_report("pkg_audit")
    report.output(0, output)
    fields = report.ended(result)
    assert len(json.dumps(fields, ensure_ascii=False).encode()) <= MOST_JSON
    return fields


def test_an_audit_is_read_behind_other_text() -> None:
    found = b"".join(data for _, data in text_of("audit-raw-json"))
    for before in (b"Fetching vuln.xml.xz: .......... done\n", b"vulnxml file up-to-date"):
        fields = audit(before + found)
        assert {key: fields[key] for key in AUDITS["audit-raw-json"]} == AUDITS[
            "audit-raw-json"
        ]


@pytest.mark.parametrize(
    "output",
    [
        b"",
        b'{"pkg_count":2,"packages":{"a":{"version":"1"',
        b'{"pkg_count":2}',
        b'{"pkg_count":true}',
        b'{"pkg_count":2,"packages":[]}',
        b"[]",
        b"null",
        b'{"pkg_count":' + b"9" * 5000 + b"}",
        b'{"pkg_count":1,"packages":' + b'{"a":' * 100_000,
        b"{\n" * 100_000,
    ],
    ids=range(10),
)
def test_an_audit_without_an_answer_says_nothing(output: bytes) -> None:
    assert set(audit(output)) == {"progress"}


def test_an_audit_that_is_too_long_is_a_problem() -> None:
    ended = audit(b'{"pkg_count":0}' + b" " * (4 * 1024 * 1024))
    assert set(ended) == {"progress", "problems"}
    assert "too much to be read" in ended["problems"][0]


def test_an_audit_that_was_killed_says_nothing() -> None:
    assert set(audit(b'{"pkg_count":0}\n', "killed")) == {"progress"}


def test_an_audit_of_the_wrong_types_keeps_what_is_right() -> None:
    packages: dict[str, Any] = {
        "a": None,
        "b": {"version": 1, "issues": {}, "reverse dependencies": "x"},
        "c\x1b": {
            "version": "1",
            "issues": [3, {"cve": ["C", 4], "url": "\ud800/x"}],
            "reverse dependencies": ["z", "y", "z", 5, ""],
        },
    }
    fields = audit(json.dumps({"pkg_count": "x", "packages": packages}).encode())
    assert fields["vulnerable_pkgs"] == ["a", "b", "c\\x1b"]
    assert fields["impacts_pkgs"] == ["y", "z"]
    empty: dict[str, Any] = {"id": "", "description": "", "cve": [], "url": "", "affected": []}
    assert fields["vulnerabilities"] == {
        "a": {"version": "", "issues": []},
        "b": {"version": "", "issues": []},
        "c\\x1b": {
            "version": "1",
            "issues": [empty, empty | {"cve": ["C"], "url": "\\ud800/x"}],
        },
    }


def test_a_large_audit_is_bounded_and_says_what_it_left_out() -> None:
    packages = {
        f"p{number:04}": {
            "version": "1",
            "issues": [{"description": "\u00fc" * 40}],
            "reverse dependencies": [f"d{number:04}"],
        }
        for number in range(4000)
    }
    packages["a"] = {"version": "x" * MOST_JSON, "issues": [], "reverse dependencies": []}
    fields = audit(json.dumps({"pkg_count": 1, "packages": packages}).encode())
    kept = fields["vulnerabilities"]
    assert "a" not in kept
    assert len(kept) > 200
    assert len(kept) + fields["vulnerabilities_left_out"] == 4001
    assert len(fields["vulnerable_pkgs"]) + fields["vulnerable_pkgs_left_out"] == 4001
    assert len(fields["impacts_pkgs"]) + fields["impacts_pkgs_left_out"] == 4000
    assert fields["vulnerable_pkgs"] == sorted(fields["vulnerable_pkgs"])


def test_problems_are_printable_and_few_and_short() -> None:
    report = new_report("pkg_install")
    for number in range(100):
        message = f"\x1b[31m{number} " + "\u0416\x07" * 5000
        report.event(json.dumps({"type": "ERROR", "data": {"msg": message}}).encode())
        report.output(0, f"pkg: text {number}\n".encode())
    problems = report.fields()["problems"]
    assert 20 <= len(problems) <= 50
    assert all(text.isprintable() and len(text) <= 500 for text in problems)
    assert len(set(problems)) == len(problems)


def test_a_notice_is_no_problem() -> None:
    report = new_report("pkg_install")
    report.event(b'{"type": "NOTICE", "data": {"msg": "process still holds the lock"}}')
    assert set(report.fields()) == {"progress"}


@pytest.mark.parametrize("action", ["pkg_frobnicate", "", None, 7, ["pkg_audit"]])
def test_an_unknown_action_is_reported_on(action: object) -> None:
    report = PkgReport({} if action is None else {"action": action}, {"progress": [3]})
    for _ in feed(report, merged("install-deps")):
        pass
    assert report.watched is None
    report.grown(5, 1.0)
    assert report.ended("succeeded")["progress"]["done"] == 4


def test_a_line_without_end_is_not_kept() -> None:
    report = new_report("pkg_install")
    for _ in range(300):
        report.output(0, b"x" * 65536)
    report.output(0, b"\npkg: at last\n")
    assert report.fields()["problems"] == ["at last"]


def event_of(kind: str, data: object) -> bytes:
    return json.dumps({"type": kind, "data": data}).encode()


KINDS: Final = [
    *("INFO_FETCH_BEGIN", "INFO_FETCH_FINISHED", "INFO_PROGRESS_START", "INFO_PROGRESS_TICK"),
    *("INFO_INCREMENTAL_UPDATE", "INFO_INTEGRITYCHECK_BEGIN", "INFO_EXTRACT_BEGIN"),
    *("INFO_EXTRACT_FINISHED", "INFO_TRIGGERS_BEGIN", "INFO_TRIGGERS_FINISHED"),
    *("INFO_NEWPKGVERSION", "ERROR", "ERROR_LOCKED", "NOTICE", "NEVER_HEARD_OF"),
    *(
        f"INFO_{kind}_{end}"
        for kind in ("INSTALL", "UPGRADE", "DEINSTALL")
        for end in ("BEGIN", "FINISHED")
    ),
]
NUMBERS: Final = st.one_of(
    st.integers(), st.floats(), st.sampled_from([0, -1, 10**400, 2**64, 5, 7]), st.none()
)
NAMES: Final = st.one_of(
    st.sampled_from(["a", "b", "pkg"]), st.text(max_size=8), st.integers(), st.none()
)
URLS: Final = st.sampled_from(["http://h/a-1.pkg", "http://h/data.pkg", "x", "meta.conf"])
JSON: Final = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, st.text(max_size=10)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=6), inner, max_size=4)
    ),
    max_leaves=8,
)
EVENTS: Final = st.one_of(
    st.builds(
        event_of,
        st.sampled_from(KINDS),
        st.one_of(
            st.fixed_dictionaries(
                {},
                optional={
                    "url": st.one_of(URLS, NAMES),
                    "current": NUMBERS,
                    "total": NUMBERS,
                    "pkgname": NAMES,
                    "msg": NAMES,
                },
            ),
            JSON,
        ),
    ),
    JSON.map(lambda value: json.dumps(value).encode()),
    st.binary(max_size=40),
)
WORDS: Final = [
    *("[1/2] ", "[2/2] ", "[9/3] ", "[jail] ", "[", "Fetching ", "Extracting ", "Installing "),
    *("Upgrading ", "Deinstalling ", "Deleting files for ", "a-1", "b-2,1", ": ", "...", "."),
    *(" done", " 38%", "\n", "\r", "\t", "pkg: ", "Checking integrity", "0", " from "),
    *("The following 2 package(s) will be affected", "New packages to be INSTALLED:", "a: 1"),
    *("Number of packages to be installed: 2", "1 KiB to be downloaded.", "\u00fc", "\x00"),
    *("New version of pkg detected", "Updating a repository catalogue...", "data", "meta"),
    *("a repository is up to date.", "Processing entries", "==> Running trigger: x"),
    *(
        "Checking for upgrades (2 candidates)",
        "Your packages are up to date.",
        '{"pkg_count":0}',
    ),
]
TEXTS: Final = st.one_of(
    st.lists(st.sampled_from(WORDS), max_size=30).map(lambda words: "".join(words).encode()),
    st.binary(max_size=60),
)
ALL_ACTIONS: Final = st.sampled_from([*ACTIONS.values(), "pkg_check_upgrade", "other"])
RESULTS: Final = st.sampled_from(["succeeded", "failed", "killed", "timed-out", "lost"])


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.one_of(st.tuples(st.just(True), TEXTS), st.tuples(st.just(False), EVENTS))),
    ALL_ACTIONS,
    RESULTS,
    JSON,
)
def test_nothing_that_is_said_raises_or_is_kept_without_bounds(
    pieces: list[Piece], action: str, result: str, told: object
) -> None:
    report = new_report(action, {"progress": told})
    for fields in feed(report, pieces):
        json.dumps(fields, allow_nan=False)
    fields = report.ended(result)
    assert len(json.dumps(fields, allow_nan=False, ensure_ascii=False).encode()) <= MOST_JSON
    assert (fields["progress"]["percent"] == 100) == (result == "succeeded")
    assert (fields["progress"]["phase"] == "done") == (result == "succeeded")


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(TEXTS, st.lists(EVENTS, max_size=8), st.data(), ALL_ACTIONS, RESULTS)
def test_where_the_text_is_cut_makes_no_difference(
    text: bytes, events: list[bytes], data: st.DataObject, action: str, result: str
) -> None:
    whole, cut = new_report(action), new_report(action)
    for line in events:
        whole.event(line)
        cut.event(line)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)))))
    for start, end in itertools.pairwise([0, *cuts, len(text)]):
        cut.output(0, text[start:end])
    whole.output(0, text)
    assert cut.ended(result) == whole.ended(result)
