"""`sysadmctl run`, `rerun`, `jobs`, `log`, `queue` against a real daemon."""

import re
import struct
from pathlib import Path

import pytest

from tests.kit import DEADLINE, Daemon
from tests.kit.ctl import Ctl, lines
from tests.kit.tmux import Tmux


def at(daemon: Daemon) -> Ctl:
    return Ctl(Path("/nonexistent"), "--state-dir", str(daemon.state_dir))


def on_columns(ctl: Ctl, columns: int, *words: str) -> str:
    size = struct.pack("HHHH", 24, columns, 0, 0)
    wide = f"import fcntl, termios; fcntl.ioctl(1, termios.TIOCSWINSZ, {size!r}); "
    return ctl.on_terminal(*words, before=wide, NO_COLOR="1")


def test_run_gives_environment_and_directory_and_rerun_asks_for_the_values_again(
    daemon: Daemon,
) -> None:
    ctl = at(daemon)
    words = ("--env", "A=1=2", "--env", "B", "--cwd", "/usr", "--id", "first")
    first = ctl("run", *words, "--", "sh", "-c", "echo $A $B; pwd", B="from here")
    assert first.stdout == "1=2 from here\n/usr\n"
    refused = ctl("rerun", "first", "--env", "A=3")
    assert refused.returncode == 1
    assert "give them again: --env B=..." in refused.stderr
    assert ctl("rerun", "first", "--env", "A=3", "--env", "B=4").stdout == "3 4\n/usr\n"
    assert len(lines(ctl("jobs", "--all", "--json"))) == 2
    unset = ctl("run", "--env", "NOT_SET_HERE", "--", "true")
    assert unset.returncode == 2
    assert "NOT_SET_HERE=VALUE" in unset.stderr


def test_a_key_for_once_gives_the_same_job_again(daemon: Daemon) -> None:
    ctl = at(daemon)
    words = ("run", "--once", "nightly", "--", "sh", "-c", "echo ran; exit 3")
    for _ in range(2):
        done = ctl(*words)
        assert (done.returncode, done.stdout) == (3, "ran\n")
    assert len(lines(ctl("jobs", "--all", "--json"))) == 1
    other = ctl("run", "--once", "nightly", "--", "true")
    assert other.returncode == 125
    assert "other commands" in other.stderr


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["--", ""], 2, "a command is empty"),
        (["--", " \t"], 2, "a command is empty"),
        (["--", "true", "+", ""], 2, "a command is empty"),
        (["--stdin", "f", "--", "cat"], 2, "a job has no standard input"),
        (["--timeout", "5 parsecs", "--", "true"], 2, "is no duration"),
        (["--env", "=x", "--", "true"], 2, "no name before the ="),
        (["ls -la /tmp"], 127, "given as one word"),
        (["--", "echo", "a", ">", "b"], 0, "'>' is an argument of echo"),
        (["--", "true", "+", "sh", "-c", "exit 7", "+", "true"], 7, "command 2 of 3"),
        (["--timeout", "0.3s", "--", "sleep", "60"], 124, "its time was up"),
        (["--quiet", "--", "false"], 1, ""),
        (["--", "true"], 0, ""),
    ],
)
def test_run_says_what_is_wrong_and_what_to_do(
    shared: Daemon, words: list[str], status: int, said: str
) -> None:
    done = at(shared)("run", *words)
    assert done.returncode == status, done.stderr
    assert said in done.stderr
    assert said or not done.stderr


def test_run_says_why_a_job_waits(daemon: Daemon) -> None:
    ctl = at(daemon)
    assert ctl("queue", "pause", "pkg_queue").returncode == 0
    words = ("run", "--queue", "pkg_queue", "--id", "w", "--", "echo", "hi")
    with ctl.started(*words) as run:
        assert run.stderr is not None
        assert "waiting: queue pkg_queue is paused" in run.stderr.readline()
        (paused,) = [q for q in lines(ctl("queue", "list", "--json")) if q["paused"]]
        assert (paused["queue"], paused["waiting"]) == ("pkg_queue", 1)
        assert re.search(r"pkg_queue +1 +0 +1 +paused", ctl("queue", "list").stdout)
        assert "`sysadmctl queue resume pkg_queue`" in ctl("show", "w").stdout
        assert ctl("queue", "resume", "pkg_queue").returncode == 0
        output, _ = run.communicate(timeout=DEADLINE)
    assert output == "hi\n"


def test_jobs_lists_what_was_asked_for_and_names_the_queues_there_are(daemon: Daemon) -> None:
    ctl = at(daemon)
    for id, program in (("good", "true"), ("bad 1", "false"), ("bad 2", "false")):
        ctl("run", "--id", id, "--", program)
    assert [j["id"] for j in lines(ctl("jobs", "--failed", "--json"))] == ["bad 2", "bad 1"]
    assert [j["id"] for j in lines(ctl("jobs", "--all", "--limit", "1", "--json"))] == ["bad 2"]
    assert "0/1" not in ctl("jobs", "--failed").stdout
    assert "1/1 (1)" in ctl("jobs", "--failed").stdout
    unknown = ctl("jobs", "--queue", "nope")
    assert unknown.returncode == 1
    assert "there are: iocage_queue, no_queue, pkg_queue" in unknown.stderr
    piped = ctl("jobs", "--watch")
    assert piped.returncode == 2
    assert "tail dispatcher" in piped.stderr


def test_on_a_narrow_terminal_the_state_stays_and_ids_can_still_be_used(daemon: Daemon) -> None:
    ctl = at(daemon)
    for _ in range(2):
        ctl("run", "--", "sh", "-c", f"exit 3 # {'x' * 80}")
    for columns in (40, 80):
        shown = on_columns(ctl, columns, "jobs", "--all").splitlines()
        assert len(shown) == 3
        assert all(len(line) <= columns for line in shown)
        for line in shown[1:]:
            id, state, *_ = line.split()
            assert state == "failed"
            assert ctl("show", id).returncode == 0


def test_log_begins_with_the_last_lines_and_marks_those_that_come(daemon: Daemon) -> None:
    ctl = at(daemon)
    ctl("run", "--id", "n", "--", "echo", "first", "+", "seq", "20")
    assert ctl("log", "n", "-n", "2").stdout == "19\n20\n"
    assert ctl("log", "n", "-n", "1", "--command", "0").stdout == "first\n"
    assert ctl("log", "n", "--timestamps", "-n", "1").stdout == " " * 9 + "20\n"
    gate = daemon.state_dir / "gate"
    script = f"echo old; until [ -e {gate} ]; do sleep 0.05; done; echo new"
    ctl("run", "--no-wait", "--id", "live", "--", "sh", "-c", script)
    with ctl.started("log", "-f", "--timestamps", "live") as log:
        assert log.stdout is not None
        assert log.stdout.readline().endswith("old\n")
        gate.touch()
        assert re.fullmatch(r"\d\d:\d\d:\d\d new\n", log.stdout.readline())
        log.communicate(timeout=DEADLINE)
    assert log.returncode == 0


def test_a_line_that_is_drawn_over_itself_is_left_as_it_was_in_the_end(shared: Daemon) -> None:
    script = r"printf '10 %%\r20 %%\r'; sleep 0.3; printf '\033[K100 %%\n'; printf 'ends'"
    shown = on_columns(at(shared), 80, "run", "--", "sh", "-c", script)
    rows = [row.rpartition("\r")[2] for row in shown.replace("\r\n", "\n").split("\n")]
    assert rows == ["100 %", "ends"]
    # As it is into a pipe; the kit reads each \r as a line's end.
    piped = at(shared)("run", "--", "sh", "-c", script).stdout
    assert piped == "10 %\n20 %\n\x1b[K100 %\nends"


def test_lists_have_short_ids_and_commands_as_one_types_them(daemon: Daemon) -> None:
    ctl = at(daemon)
    assert on_columns(ctl, 80, "jobs").startswith(
        "no job runs or waits; `sysadmctl jobs --all`"
    )
    assert "no job has failed in pkg_queue" in on_columns(
        ctl, 80, "jobs", "--failed", "--queue", "pkg_queue"
    )
    id = ctl("run", "--no-wait", "--", "sh", "-c", 'echo "a b"').stdout.strip()
    ctl("run", "--id", "nightly-backup", "--", "true")
    assert ctl("jobs", "--all").stdout.splitlines()[-1].startswith(id)
    for columns in (80, 40):
        shown = on_columns(ctl, columns, "jobs", "--all")
        assert f"\r\n{id[:8]}  " in shown
        assert id[:9] not in shown
    assert "nightly-backup" in on_columns(ctl, 80, "jobs", "--all")
    assert "0  sh -c 'echo \"a b\"'\n" in ctl("show", id[:8]).stdout


def test_queues_say_what_came_of_it_and_names_stay_whole_at_40_columns(daemon: Daemon) -> None:
    ctl = at(daemon)
    said = ctl("queue", "pause", "pkg_queue").stdout
    assert said == "queue pkg_queue is paused; no job runs or waits in it\n"
    ctl("run", "--no-wait", "--queue", "pkg_queue", "--", "sleep", "60")
    row = on_columns(ctl, 40, "queue", "list").splitlines()[2]
    assert row.split() == ["pkg_queue", "1", "0", "1", "paused"]
    said = ctl("queue", "resume", "pkg_queue").stdout
    # By then it has started, or not.
    assert said.replace("0 running, 1", "1 running, 0") == (
        "queue pkg_queue goes on; 1 running, 0 waiting\n"
    )
    assert ctl("kill", "last").returncode == 0


def test_a_command_without_output_is_said_with_what_it_was(daemon: Daemon) -> None:
    ctl = at(daemon)
    ctl("run", "--id", "j", "--", "echo", "x", "+", "false", "+", "true")
    terminal = "import os; os.dup2(1, 2); "
    shown = ctl.on_terminal("log", "j", "--command", "2", before=terminal, NO_COLOR="1")
    assert "no output of command 2: true (skipped)" in shown
    assert ctl("log", "j", "--command", "2").stdout == ""
    whole = ctl.on_terminal("log", "j", "--command", "0", before=terminal, NO_COLOR="1")
    assert whole == "x\r\n"


def test_a_list_that_is_watched_leaves_no_copies_above(daemon: Daemon, tmp_path: Path) -> None:
    ctl = at(daemon)
    with Tmux(tmp_path, 80, 24) as terminal:
        terminal.starts_ctl(ctl.options, "jobs", "--watch")
        terminal.sees("no job runs or waits")
        for n in range(3):
            ctl("run", "--no-wait", "--id", f"job-{n}", "--", "sleep", "60")
            terminal.sees(f"job-{n}")
        assert terminal.run("capture-pane", "-p", "-S", "-100").count("job-0") == 1
        terminal.types("C-c")
        terminal.sees("status 130.")
    assert ctl("kill", "job-0", "job-1", "job-2").returncode == 0
