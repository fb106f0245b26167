"""What `sysadmctl` prints, on terminals and elsewhere, and when nobody takes it."""

import json
import signal
from pathlib import Path

import pytest

from sysadmd.ctl.run import exit_status
from sysadmd.text import printable
from tests.kit import DEADLINE, Daemon
from tests.kit.ctl import Ctl, lines

EVIL = "evil \x1b]0;title\x07\x9b31m\u202e\u061c\u200b\ud800 end"


def test_no_control_character_is_left_in_printable_text() -> None:
    shown = printable(EVIL + "\r\n\t")
    assert shown.isprintable()
    assert shown.startswith(r"evil \x1b]0;title\x07\x9b31m\u202e\u061c\u200b\ud800 end\r\n\t")
    assert printable("a\n\tb", lines=True) == "a\n\tb"


def test_names_from_the_server_reach_no_terminal_raw(daemon: Daemon, ctl: Ctl) -> None:
    with daemon.client() as client:
        command = ["printf", "%s\\n", "\x1b[31m[bold]red\x9b0m"]
        job = {"id": "evil [red] id", "commands": [command], "queue": "pkg_queue"}
        client.ask("events", "subscribe", "dispatcher")
        client.ask("rpc", "dispatcher", {"action": "submit", "job": job})
        client.until(lambda frame: frame["args"]["state"] == "finished")
    where = ("--state-dir", str(daemon.state_dir))
    for words in (
        ["jobs", "--all"],
        ["show", "evil [red] id"],
        ["log", "evil [red] id"],
        ["tail", "--since", "oldest", "--count", "3"],
        ["tail", "--since", "oldest", "--count", "3", "--json"],
        ["audit"],
    ):
        shown = ctl.on_terminal(*where, *words, NO_COLOR="1")
        assert "\x9b" not in shown, words
        assert "\x1b[31m" not in shown, words
        if words[0] != "log":
            assert "evil [red] id" in shown, words
    # Colours are all that a program may do to a terminal.
    coloured = "\x1b[31m[bold]red\\x9b0m\x1b[0m\r\n"
    assert ctl.on_terminal(*where, "log", "evil [red] id") == coloured
    raw = ctl(*where, "log", "evil [red] id").stdout
    assert raw == "\x1b[31m[bold]red\x9b0m\n"


def test_colours_are_for_terminals_and_can_be_refused(daemon: Daemon, ctl: Ctl) -> None:
    where = ("--state-dir", str(daemon.state_dir))
    assert ctl(*where, "run", "--", "true").returncode == 0
    words = (*where, "tail", "--since", "oldest", "--count", "3")
    assert "\x1b[" in ctl.on_terminal(*words)
    assert "\x1b" not in ctl.on_terminal(*words, NO_COLOR="1")
    assert "\x1b" not in ctl(*words).stdout


@pytest.mark.parametrize(
    "words",
    [
        ["jobs", "--all"],
        ["show", "job"],
        ["log", "job"],
        ["log", "job", "--follow"],
        ["state"],
        ["audit"],
        ["identify"],
        ["queue", "pause", "pkg_queue"],
        ["queue", "resume", "pkg_queue"],
        ["tail", "--since", "oldest", "--count", "2"],
        ["run", "--", "echo", "x"],
        ["run", "--no-wait", "--", "echo", "x"],
    ],
)
def test_json_is_all_that_is_printed_wherever_the_option_stands(
    shared: Daemon, ctl: Ctl, words: list[str]
) -> None:
    where = ("--state-dir", str(shared.state_dir))
    with shared.client() as client:
        client.ask("events", "subscribe", "dispatcher")
        client.ask("rpc", "dispatcher", {"action": "run", "job": "echo x"})
        # An active job is shown by other keys.
        client.until(
            lambda f: f["args"] | {"process_id": "job", "state": "finished"} == f["args"]
        )
    before = lines(ctl(*where, "--json", *words))
    behind = 2 if words[0] == "queue" else 1
    after = lines(ctl(*words[:behind], *where, "--json", *words[behind:]))
    assert before
    assert before[0].keys() == after[0].keys()


def test_output_that_nobody_takes_is_no_traceback(daemon: Daemon, ctl: Ctl) -> None:
    where = ("--state-dir", str(daemon.state_dir))
    with Path("/dev/full").open("w") as full:
        for words, status in (
            (["jobs", "--json"], 0),
            (["identify"], 1),
            (["run", "--id", "a", "--", "echo", "x"], 125),
        ):
            done = ctl(*where, *words, out=full)
            assert done.returncode == status, words
            assert "Traceback" not in done.stderr
    assert "goes on" in done.stderr


def test_output_that_is_closed_is_no_failure(daemon: Daemon, ctl: Ctl) -> None:
    where = ("--state-dir", str(daemon.state_dir))
    # As the shell's >&- leaves it.
    closed = "import os, sys; os.close(1); sys.stdout = None; "
    for words, status in (
        (["identify"], 0),
        (["jobs"], 0),
        (["run", "--id", "a", "--", "sh", "-c", "echo x; exit 3"], 3),
    ):
        done = ctl(*where, *words, before=closed)
        assert (done.returncode, done.stdout) == (status, ""), done.stderr


def test_characters_are_not_cut_where_a_portion_of_a_log_ends(shared: Daemon, ctl: Ctl) -> None:
    where = ("--state-dir", str(shared.state_dir))
    script = r"""print("x" + "\u00e4\u20ac\U0001f600" * 20000)"""
    done = ctl(*where, "run", "--", "python3", "-X", "utf8", "-c", script)
    assert done.stdout == "x" + "\u00e4\u20ac\U0001f600" * 20000 + "\n"
    raw = (
        r"""import sys; sys.stdout.buffer.write(b"\xff\xe4" * 50000 + "\u20ac".encode()[:2])"""
    )
    done = ctl(*where, "run", "--", "python3", "-c", raw)
    assert set(done.stdout) == {"\ufffd"}
    assert len(done.stdout) == 100_001


def test_ids_are_shown_whole_where_a_program_reads(shared: Daemon, ctl: Ctl) -> None:
    where = ("--state-dir", str(shared.state_dir))
    id = "long " * 40
    assert ctl(*where, "run", "--id", id, "--", "true").returncode == 0
    assert id in ctl(*where, "jobs", "--all").stdout


@pytest.mark.parametrize(
    ("result", "codes", "status"),
    [
        ("succeeded", ["0", "0"], 0),
        ("failed", ["0", "3", None], 3),
        ("failed", ["-11", None], 139),
        ("failed", ["127"], 127),
        ("timed-out", ["-15"], 124),
        ("killed", [None], 137),
        ("lost", [None], 125),
    ],
)
def test_every_end_of_a_job_has_its_status(
    result: str, codes: list[str | None], status: int
) -> None:
    job = {"result": result, "commands": [{"return_code": code} for code in codes]}
    assert exit_status(json.loads(json.dumps(job))) == status


def test_ctrl_c_ends_tail_and_says_where_to_go_on(daemon: Daemon, ctl: Ctl) -> None:
    local = ["--state-dir", str(daemon.state_dir)]
    assert ctl(*local, "run", "--", "true").returncode == 0
    with ctl.started(*local, "tail", "--since", "oldest") as tail:
        assert tail.stdout is not None
        assert "pending" in tail.stdout.readline()
        assert "running" in tail.stdout.readline()
        assert "finished" in tail.stdout.readline()
        tail.send_signal(signal.SIGINT)
        _, errors = tail.communicate(timeout=DEADLINE)
    assert tail.returncode == 130
    cursor = errors.split("--since ")[1].split("`")[0]
    assert ctl(*local, "run", "--id", "next", "--", "true").returncode == 0
    (event,) = lines(ctl(*local, "tail", "--since", cursor, "--count", "1", "--json"))
    assert event["args"] == {"process_id": "next", "state": "pending"}
    assert event["prev"] == cursor
    assert event["prev"] == cursor
