"""What shells offer of a server's: typed into real ones, against a real daemon."""

import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sysadmd.completion import inserted, last_word
from tests.kit import QUIET, ROOT, Daemon, needs
from tests.kit.ctl import Ctl
from tests.kit.tmux import Tmux

SHELLS = ["bash", "zsh", "fish"]
START = {
    "bash": "exec bash --norc --noprofile",
    "zsh": "exec zsh -f",
    "fish": "exec fish --no-config",
}
READY = {
    "bash": 'source "{files}/sysadmctl.bash"',
    "zsh": 'autoload -Uz compinit; compinit -u -D; eval "$(sysadmctl completion zsh)"',
    "fish": "source {files}/sysadmctl.fish",
}
# Ids, and how each is begun on the line: a brace alone zsh and fish take for an expansion.
ODD_IDS = {
    "{6b1f}": r"\{6",
    "colon:in:it": "colon:in:",
    "comma,in": "comma",
    "sp ace $HOME 'q\" `x` \\n": "sp",
    "plain-1": "plain",
}


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon with finished jobs of odd ids, and one that runs."""
    with Daemon(tmp_path_factory.mktemp("busy") / "state", QUIET) as running:
        ctl = Ctl(Path("/nonexistent"), "--state-dir", str(running.state_dir))
        for id in ODD_IDS:
            assert ctl("run", "--id", id, "--", "true").returncode == 0
        words = ("--queue", "pkg_queue", "--", "sleep", "1000")
        assert ctl("run", "--no-wait", "--id", "active-1", *words).returncode == 0
        yield running


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Tmux]:
    program = tmp_path / "bin" / "sysadmctl"
    program.parent.mkdir()
    main = "from sysadmd.ctl import main; main()"
    way = shlex.join([sys.executable, "-c", main])
    program.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {way} "$@"\n')
    program.chmod(0o755)
    with Tmux(tmp_path, 400, 40) as running:
        running.types_line(f"export PATH={shlex.quote(str(program.parent))}:$PATH")
        yield running


def start(terminal: Tmux, shell: str) -> None:
    needs(shell)
    terminal.types_line(START[shell])
    terminal.types_line(READY[shell].format(files=ROOT / "packaging" / "completions"))
    terminal.types_line("clear; echo re''ady")
    terminal.sees("ready")


@pytest.mark.parametrize("shell", SHELLS)
def test_ids_with_any_characters_are_completed_to_what_is_meant(
    shell: str, busy: Daemon, terminal: Tmux
) -> None:
    start(terminal, shell)
    for id, begun in ODD_IDS.items():
        terminal.types_line("clear")
        line = f"sysadmctl --state-dir {busy.state_dir} show {begun}"
        terminal.run("send-keys", "-l", "--", line)
        terminal.types("Tab", "Enter")
        terminal.sees("succeeded", f"id        {id}\n")


def completes(terminal: Tmux, whole: str) -> None:
    """Press Tab, again where the daemon did not answer in time on a busy machine."""
    for _ in range(9):
        terminal.types("Tab")
        try:
            terminal.sees(whole, seconds=5)
        except AssertionError:
            continue
        return
    raise AssertionError(f"not completed to {whole}: {terminal.screen()}")


@pytest.mark.parametrize("shell", SHELLS)
def test_active_jobs_queues_and_systems_are_offered(
    shell: str, busy: Daemon, terminal: Tmux
) -> None:
    start(terminal, shell)
    there = f"--state-dir {busy.state_dir}"
    for line, whole in (
        (f"sysadmctl show {there} act", "show {there} active-1"),
        (f"sysadmctl kill {there} ", "kill {there} active-1"),
        (f"sysadmctl log {there} plai", "log {there} plain-1"),
        (f"sysadmctl queue pause {there} pkg", "pause {there} pkg_queue"),
        (f"sysadmctl jobs {there} --queue pkg", "{there} --queue pkg_queue"),
        (f"sysadmctl jobs {there} --queue=pkg", "{there} --queue=pkg_queue"),
        ("sysadmctl tail life", "tail life-preserver"),
    ):
        terminal.types("C-u")
        terminal.types_line("clear")
        terminal.run("send-keys", "-l", "--", line)
        completes(terminal, whole.format(there=there))


@pytest.mark.parametrize("shell", SHELLS)
def test_where_no_server_is_nothing_is_offered_or_said(
    shell: str, terminal: Tmux, tmp_path: Path
) -> None:
    start(terminal, shell)
    terminal.types_line("clear")
    terminal.run(
        "send-keys", "-l", "--", f"echo sysadmctl; sysadmctl --state-dir {tmp_path} show a"
    )
    terminal.types("Tab")
    terminal.run("send-keys", "-l", "--", "-end")
    there = terminal.sees("show a-end")
    assert "no daemon" not in there
    assert "Traceback" not in there


def complete(words: str, **more: str) -> tuple[int, str, str]:
    environment = {
        "_SYSADMCTL_COMPLETE": "bash_complete",
        "COMP_LINE": f"sysadmctl {words}",
        "COMP_BREAKS": " \t\n\"'@><=;|&(:",
    }
    done = Ctl(Path("/nonexistent"))(**environment, **more)
    return done.returncode, done.stdout, done.stderr


def test_active_jobs_come_first_and_those_named_not_again(busy: Daemon) -> None:
    there = f"--state-dir {busy.state_dir}"
    status, out, errors = complete(f"{there} show ")
    assert (status, errors) == (0, "")
    assert out.splitlines()[0] == "plain,active-1"
    assert len(out.splitlines()) == len(ODD_IDS) + 1
    assert complete(f"{there} kill ")[1] == "plain,active-1\n"
    assert complete(f"{there} kill active-1 ")[1] == "\n"


@pytest.mark.parametrize(
    "words",
    [
        # An address that nobody has, and that answers nothing.
        "--url wss://192.0.2.1:12150 --token x show ",
        "--url wss://no-such-host.invalid --token x kill a",
        "--url nonsense queue pause ",
        "--state-dir /nonexistent jobs --queue ",
        "--key /nonexistent --token x show ",
        "--bridge wss://127.0.0.1:1 show ",
    ],
)
def test_trouble_offers_nothing_and_says_nothing(words: str) -> None:
    status, out, errors = complete(words)
    assert (status, out.strip(), errors) == (0, "", "")


@given(st.text(), st.text(alphabet=":= \t@", max_size=4))
def test_what_bash_inserts_is_read_as_the_value(value: str, breaks: str) -> None:
    # A line break in a word is no id's.
    value = "".join(c for c in value if c.isprintable())
    typed = inserted(value, "", breaks)
    assert "".join(shlex.split(typed)) == value


@given(st.text(alphabet="ab: '\"\\\t", max_size=12))
def test_a_line_falls_apart_into_its_parts(line: str) -> None:
    before, word = last_word(line)
    assert before + word == line


@pytest.mark.parametrize(
    ("value", "word", "piece"),
    [
        ("a:b:c", "a:b", "b:c"),
        ("a:b:c", "a:", "b:c"),
        ("a:b:c", r"a\:b", r"a:b:c"),
        ("{a b}", "", r"\{a\ b\}"),
        ("{a b}", r"\{a", r"\{a\ b\}"),
        ("a b", "'a", "a b"),
        ('a"b', '"a', r"a\"b"),
        ("a!b", '"a', "a\"'!'\"b"),
        ("pkg_queue", "--queue=pk", "pkg_queue"),
        ("día", "d", "día"),
    ],
)
def test_bash_replaces_the_last_piece_of_a_word_alone(
    value: str, word: str, piece: str
) -> None:
    assert inserted(value, word, ":=") == piece
