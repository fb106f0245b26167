"""What is made of freebsd-update's output: every recording, cut anywhere, and any bytes."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.reports import Report
from server.job_classes.update_report import UpdateReport
from tests.kit.corpus import CORPUS

NAMES = sorted(path.stem for path in (CORPUS / "freebsd-update").glob("*.json"))
RESULTS = ("succeeded", "failed", "killed", "timed-out", "lost")
PHASES = (
    *("start", "mirrors", "key", "index", "metadata", "inspect", "prepare", "patches"),
    *("apply", "files", "result", "install", "done"),
)

AGAIN = b'install"\nagain to finish installing updates.\n'
FOUND = {
    "status": "updatesavailable",
    "release": "13.2-RELEASE-p4",
    "files": {"updated": 23, "added": 1, "removed": 1, "modified_locally": 1},
}
NONE = {"status": "noupdates", "release": "13.2-RELEASE-p3"}
NO_KEY = "Fetching public key from mirror1.update.test... failed."
BAD = "2d8662b416c2113b90e790fa7cfddc49eb43c58b920928bb48a14ec8841c9c5d has incorrect hash."
EOL = (
    "WARNING: FreeBSD 13.2-RELEASE-p3 HAS PASSED ITS END-OF-LIFE DATE. Any security issues"
    " discovered after Thu Nov 19 19:18:01 UTC 2026 will not have been corrected."
)
NO_TERMINAL = "freebsd-update fetch should not be run non-interactively."
# Of each recording: phase, percent, done and total, problems, and what else is told at its end.
FINAL: dict[str, tuple[str, int, int, int, list[str], dict[str, Any]]] = {
    "fetch-after-kill": ("done", 100, 36, 36, [], FOUND),
    "fetch-bad-file": ("files", 97, 35, 36, [BAD], {}),
    "fetch-eol-past": ("result", 99, 0, 0, [EOL], NONE),
    "fetch-install-none": ("done", 100, 0, 0, [], NONE),
    "fetch-killed": ("patches", 75, 18, 23, [], {}),
    "fetch-mirror-down": ("done", 100, 36, 36, [NO_KEY], FOUND),
    "fetch-no-server": (
        *("key", 2, 0, 0),
        [NO_KEY.replace("mirror1.", ""), "No mirrors remaining, giving up."],
        {},
    ),
    "fetch-no-tty": ("start", 0, 0, 0, [NO_TERMINAL], {}),
    "fetch-none": ("done", 100, 0, 0, [], NONE),
    "fetch-tty": ("done", 100, 36, 36, [], FOUND),
    "fetch-updates": ("done", 100, 36, 36, [], FOUND),
    "install": ("done", 100, 0, 0, [], {"status": "runagain"}),
    "install-after-reboot": ("done", 100, 0, 0, [], {"status": "runagain"}),
    "install-kernel-first": ("done", 100, 0, 0, [], {"status": "rebootrequired"}),
    "install-none": ("result", 0, 0, 0, [], {"status": "noupdates"}),
    "install-second-run": ("done", 100, 0, 0, [], {"status": "installed"}),
    "updatesready": ("done", 100, 0, 0, [], {"status": "updatesavailable"}),
    "updatesready-none": ("result", 0, 0, 0, [], {"status": "noupdates"}),
}


def recording(name: str) -> tuple[list[bytes], str]:
    """The chunks of a recorded run, and the result that a job of it has."""
    found = json.loads((CORPUS / "freebsd-update" / f"{name}.json").read_text())
    result = "killed" if found["signal"] else "failed" if found["rc"] else "succeeded"
    return [text.encode() for _, text in found["output"]], result


def report(action: str = "checkupdates", told: dict[str, Any] | None = None) -> Report:
    return UpdateReport({"action": action}, told or {})


def play(chunks: Iterable[bytes], result: str, action: str = "checkupdates") -> dict[str, Any]:
    """The final fields of a job of one command."""
    played = report(action)
    for chunk in chunks:
        played.output(0, chunk)
    return dict(played.ended(result))


def expected(name: str) -> dict[str, Any]:
    phase, percent, done, total, problems, more = FINAL[name]
    progress = {"phase": phase, "package": "", "percent": percent, "done": done, "total": total}
    return {"progress": progress, **({"problems": problems} if problems else {}), **more}


@pytest.mark.parametrize("name", NAMES)
def test_a_recording_gives_these_fields_at_its_end(name: str) -> None:
    assert play(*recording(name)) == expected(name)


@pytest.mark.parametrize("name", NAMES)
def test_wherever_the_output_is_cut_the_end_is_the_same(name: str) -> None:
    chunks, result = recording(name)
    whole = b"".join(chunks)
    assert play([whole], result) == expected(name)
    assert play((bytes([byte]) for byte in whole), result) == expected(name)
    for cut in range(len(whole)):
        assert play([whole[:cut], whole[cut:]], result) == expected(name)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("action", ["checkupdates", "startupdate", "applyupdate"])
def test_progress_never_falls_and_is_whole_only_by_success(name: str, action: str) -> None:
    chunks, result = recording(name)
    played = report(action)
    looks = [played.fields()["progress"]]
    for byte in b"".join(chunks):
        played.output(0, bytes([byte]))
        looks.append(played.fields()["progress"])
    assert max(look["percent"] for look in looks) < 100
    looks.append(played.ended(result)["progress"])
    for before, after in itertools.pairwise(looks):
        assert PHASES.index(before["phase"]) <= PHASES.index(after["phase"])
        for key in ("percent", "done", "total"):
            assert before[key] <= after[key]
        assert after["done"] <= after["total"]
    assert (looks[-1]["percent"] == 100) == (result == "succeeded")


def test_patches_and_files_are_counted_by_the_signs_of_their_progress() -> None:
    played = report()
    seen: list[tuple[int, int]] = []
    for chunk in recording("fetch-updates")[0]:
        played.output(0, chunk)
        progress = played.fields()["progress"]
        if progress["phase"] in ("patches", "files"):
            seen.append((progress["done"], progress["total"]))
    patches = [0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 22]
    files = [23, 25, 27, 29, 31, 33, 35, 35]
    # The line's end says that the last one is there too.
    assert seen == [(done, 23) for done in patches] + [
        (23, 23),
        *((n, 36) for n in files),
        (36, 36),
    ]


def test_a_job_of_two_commands_goes_on_with_the_second() -> None:
    fetched, installed = recording("fetch-updates")[0], recording("install-second-run")[0]
    played = report("startupdate")
    for chunk in fetched:
        played.output(0, chunk)
    before = played.fields()["progress"]
    for chunk in installed:
        played.output(1, chunk)
    during = played.fields()["progress"]
    assert (before["phase"], before["percent"]) == ("result", 79)
    assert (during["phase"], during["percent"]) == ("install", 99)
    progress = {"phase": "done", "package": "", "percent": 100, "done": 36, "total": 36}
    files = FOUND["files"]
    assert played.ended("succeeded") == {
        "progress": progress,
        "status": "installed",
        "release": "13.2-RELEASE-p4",
        "files": files,
    }


def test_a_line_that_one_command_left_open_is_not_of_the_next() -> None:
    played = report("startupdate")
    played.output(0, b"Installing updates...")
    played.output(1, b" done.\n")
    assert "status" not in played.ended("succeeded")
    played = report("startupdate")
    played.output(0, b"No updates are avail")
    played.output(1, b"able to install.\n")
    assert "status" not in played.ended("succeeded")


@pytest.mark.parametrize(
    ("output", "status"),
    [
        (b"Installing updates... done.\n", "installed"),
        (b"Installing updates... done.", "installed"),
        (b"Installing updates...\nRestarting sshd after upgrade\nx\n done.\n", "installed"),
        (b"Installing updates...Scanning /usr/share/certs for it...\n done.\n", "installed"),
        (b"Creating snapshot of existing boot environment... done.\n", None),
        (b"Installing updates...\n", None),
        (b"Installing updates...\nStopping sshd, not done.\n", None),
        (b" done.\n", None),
        (b"Installing updates...\nCompleting this upgrade\n" + AGAIN, "runagain"),
        (
            b"Installing updates...\nthen run\n'freebsd-update " + AGAIN.replace(b'"\n', b"' "),
            "runagain",
        ),
        (b"Installing updates...\nKernel updates have been installed.\n", "rebootrequired"),
        (b"Installing updates...\n" + AGAIN + b"Installing updates... done.\n", "installed"),
        (b"Installing updates... done.\nNo updates are available to install.\n", "installed"),
        (b"again to finish installing updates.\n", None),
        (b"", None),
    ],
)
def test_what_has_become_of_installing_is_what_the_text_says(
    output: bytes, status: str | None
) -> None:
    for result in RESULTS:
        assert play([output], result, "startupdate").get("status") == status


def test_updates_of_which_only_a_part_was_installed_are_not_told_as_available() -> None:
    lists = b"The following files will be added as part of updating to\n13.2-RELEASE-p4:\n/a\n"
    assert play([lists], "failed", "startupdate")["status"] == "updatesavailable"
    begun = play([lists, b"Installing updates...rm: /a: Permission denied\n"], "failed")
    assert "status" not in begun
    assert begun["files"] == {"updated": 0, "added": 1, "removed": 0, "modified_locally": 0}
    assert begun["problems"] == ["rm: /a: Permission denied"]


def test_files_that_were_only_modified_here_are_no_updates() -> None:
    ended = play(
        [
            b"The following files are affected by updates. No changes have\n"
            b"been downloaded, however, because the files have been modified\n"
            b"locally:\n/etc/a\n/etc/b\n\n"
            b"No updates needed to update system to 14.1-RELEASE-p10.\n"
        ],
        "succeeded",
    )
    assert ended["status"] == "noupdates"
    assert ended["release"] == "14.1-RELEASE-p10"
    assert ended["files"]["modified_locally"] == 2


@pytest.mark.parametrize(
    ("output", "problems"),
    [
        (b"Fetching public key from a.b... key has incorrect hash.\n", None),
        (
            b"Fetching metadata signature for 13.2-RELEASE from a.b... invalid signature.\n",
            None,
        ),
        (b"Fetching metadata index... update metadata index corrupt.\n", None),
        (b"Fetching 2 metadata files... metadata is corrupt.\n", None),
        (b"Fetching 13 files... ....10. failed.\n", ["Fetching 13 files... failed."]),
        (b"Creating snapshot of existing boot environment... failed.\n", None),
        (
            b"You have a partially completed upgrade pending\nRun 'x' first.\n",
            ["You have a partially completed upgrade pending"],
        ),
        (b"You must be root to run this.\n", None),
        (
            b"Updates cannot be installed when the system securelevel\nis greater than zero.\n",
            ["Updates cannot be installed when the system securelevel is greater than zero."],
        ),
        (
            b"\nFiles on mirror (13.2-RELEASE-p2) appear older than what\nwe are currently"
            b" running (13.2-RELEASE-p3)!\nCowardly refusing to proceed any further.\n",
            [
                "Files on mirror (13.2-RELEASE-p2) appear older than what we are currently"
                " running (13.2-RELEASE-p3)! Cowardly refusing to proceed any further."
            ],
        ),
        (
            b"Error processing configuration file, line 4:\n==> Server\x1b[31m a\n",
            ["Error processing configuration file, line 4: ==> Server\\x1b[31m a"],
        ),
        (b"Inspecting system... Cannot read file: //etc/a\n", ["Cannot read file: //etc/a"]),
        (b"freebsd-update: Directory does not exist or is not writable: /x\n", None),
        (b"Update manifest is corrupt -- this should never happen.\n", None),
        (b"cp: /a: No space left on device\n" * 3, ["cp: /a: No space left on device"]),
        (
            b"WARNING: FreeBSD 13.2 is approaching its End-of-Life date.\nIt is strongly\n"
            b"release within the next 2 weeks.\nInstalling updates... done.\n",
            [
                "WARNING: FreeBSD 13.2 is approaching its End-of-Life date. It is strongly"
                " release within the next 2 weeks."
            ],
        ),
        (
            b"WARNING: FreeBSD 13.2 is approaching its End-of-Life date.\nLooking up a",
            ["WARNING: FreeBSD 13.2 is approaching its End-of-Life date."],
        ),
        (b"src component not installed, skipped\nLooking up a mirrors... none found.\n", []),
    ],
)
def test_what_it_complains_about_is_a_problem(
    output: bytes, problems: list[str] | None
) -> None:
    alone = [output.decode().removesuffix("\n")] if problems is None else problems
    assert play([output], "failed").get("problems", []) == alone


def test_without_statistics_a_step_ends_on_a_line_of_its_own() -> None:
    played = report()
    played.output(0, b"Fetching 23 patches...\ndone.\nApplying patches... done.\n")
    progress = played.fields()["progress"]
    assert (progress["phase"], progress["done"], progress["total"]) == ("apply", 23, 23)


def test_a_report_goes_on_where_the_last_daemon_had_come_to() -> None:
    told = {"progress": {"phase": "files", "percent": 90, "done": 30, "total": 36}}
    played = report(told=told)
    for chunk in recording("fetch-updates")[0]:
        played.output(0, chunk)
        progress = played.fields()["progress"]
        assert progress["percent"] >= 90
        assert progress["done"] >= 30
        assert progress["total"] == 36


def test_tens_of_thousands_of_paths_are_counted_in_no_time_and_no_room() -> None:
    played = report()
    played.output(0, b"Fetching 400000 files... ")
    started = time.process_time()
    for tenth in range(1, 40_001):
        played.output(0, b"....%d" % (10 * tenth))
    played.output(0, b" done.\n")
    assert played.fields()["progress"]["done"] == 400_000
    played.output(0, b"The following files will be updated as part of updating to\n")
    played.output(0, b"14.0-RELEASE:\n")
    for number in range(100_000):
        played.output(0, b"/usr/share/%d\n" % number)
    assert time.process_time() - started < 10
    assert played.ended("succeeded")["files"]["updated"] == 100_000


def test_what_is_kept_is_bounded() -> None:
    played = UpdateReport({}, {})
    for _ in range(1000):
        played.output(0, b"The following files " + b"x" * 10_000)
    for number in range(1000):
        played.output(0, b"\nfreebsd-update: %d \xff\x1b" % number + b"y" * 2000)
    played.output(0, b"Fetching 9 files... " + b"1" * 100_000 + b"." * 100_000)
    ended = played.ended("failed")
    assert len(ended["problems"]) == 50
    assert max(map(len, ended["problems"])) == 500
    assert all(text.isprintable() for text in ended["problems"])
    assert len(json.dumps(ended)) < 60_000


PIECES = st.one_of(
    st.binary(max_size=40),
    st.sampled_from(
        [
            *(b"Fetching 23 patches.", b"Fetching 999999999 files... ", b"....10", b"20", b"."),
            *(
                b" ",
                b"done.\n",
                b"\n",
                b"\r\n",
                b" done.\n",
                b"/usr/bin/a\n",
                b"13.2-RELEASE:\n",
            ),
            *(b"The following files will be added as part of updating to\n", b"locally:\n"),
            *(b"The following files are affected by updates. No changes have\n", AGAIN),
            *(b"Installing updates...", b"Kernel updates have been installed.", b"WARNING: "),
            *(
                b"WARNING: a HAS PASSED ITS b\n",
                b"failed.\n",
                b"Fetching public key from a... ",
            ),
            *(b"No updates needed to update system to 13.2-RELEASE-p3.\n", b"Looking up a "),
        ]
    ),
)


@given(st.lists(st.tuples(st.integers(0, 2), PIECES)), st.sampled_from(RESULTS), st.booleans())
def test_any_bytes_give_fields_that_only_grow(
    pieces: list[tuple[int, bytes]], result: str, check: bool
) -> None:
    played = report("checkupdates" if check else "startupdate")
    played.event(b"{")
    played.grown(1, 1.0)
    assert played.watched is None
    before = played.fields()["progress"]
    for command, piece in pieces:
        played.output(command, piece)
        after = played.fields()["progress"]
        assert after["phase"] in PHASES
        for key in ("percent", "done", "total"):
            assert before[key] <= after[key]
        before = after
    ended = played.ended(result)
    json.dumps(ended)
    assert (ended["progress"]["percent"] == 100) == (result == "succeeded")


@given(st.lists(PIECES).map(b"".join), st.data())
def test_any_bytes_give_the_same_wherever_they_are_cut(
    whole: bytes, data: st.DataObject
) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=5)))
    bounds = itertools.pairwise([0, *cuts, len(whole)])
    assert play((whole[a:b] for a, b in bounds), "failed") == play([whole], "failed")
