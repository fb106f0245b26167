"""Completion in real shells, by the files that are installed for them."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kit import DEADLINE, ROOT, needs

FILES = ROOT / "packaging" / "completions"
# The completed words; `words` is what stands on the line, "$1" the program, "$2" the file.
BASH = """
source "$2"
COMP_LINE='{words}'; COMP_POINT=${{#COMP_LINE}}
"_$1_completion" "$1"
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
FISH = """
source $argv[2]
complete -C '{words}'
"""
# What fills the menu is zsh's own: here it prints what it is given.
ZSH = """
mkdir functions; cp "$2" "functions/_$1"
fpath=($PWD/functions $fpath)
autoload -Uz compinit; compinit -u -D
[[ $_comps[$1] == "_$1" ]] || {{ print not found; exit 1; }}
_describe() {{ print -rl -- $completions_with_descriptions; }}
compadd() {{ print -rl -- $completions; }}
words=({words}); CURRENT=$#words
"_$1"
[[ $_comps[$1] == "_$1_completion" ]] || {{ print asked again each time; exit 1; }}
"""


def programs(tmp_path: Path) -> Path:
    """A directory with both programs, as they are in this tree."""
    directory = tmp_path / "bin"
    directory.mkdir()
    ways = {"sysadmd": "-m sysadmd", "sysadmctl": "-c 'from sysadmd.ctl import main; main()'"}
    for name, way in ways.items():
        program = directory / name
        program.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} {way} "$@"\n')
        program.chmod(0o755)
    return directory


def complete(shell: str, program: str, words: str, tmp_path: Path) -> list[str]:
    """The words that the shell offers for the last one, without what is said of them."""
    needs(shell)
    script = {"bash": BASH, "fish": FISH, "zsh": ZSH}[shell].format(words=words)
    no_rc = {"bash": ["--norc"], "fish": ["--no-config"], "zsh": ["-f"]}[shell]
    # fish has no name of the script before its arguments.
    names = [] if shell == "fish" else [shell]
    arguments = [*names, program, str(FILES / f"{program}.{shell}")]
    path = f"{programs(tmp_path)}:{os.environ['PATH']}"
    done = subprocess.run(
        [str(shutil.which(shell)), *no_rc, "-c", script, *arguments],
        env={"PATH": path, "HOME": str(tmp_path), "TERM": "dumb"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done
    return [
        line.replace("\t", ":").partition(":")[0] for line in done.stdout.split("\n") if line
    ]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("sysadmctl ta", ["tail"]),
        ("sysadmctl pkg un", ["unlock"]),
        ("sysadmctl queue pa", ["pause"]),
        ("sysadmctl key re", ["register", "revoke"]),
        ("sysadmd check", ["check-config"]),
        ("sysadmd bridge-key re", ["revoke"]),
        ("sysadmd token add --ro", ["--role"]),
    ],
)
def test_a_shell_completes_commands_words_and_options(
    shell: str, words: str, offered: list[str], tmp_path: Path
) -> None:
    assert complete(shell, words.partition(" ")[0], words, tmp_path) == offered


@pytest.mark.parametrize("program", ["sysadmd", "sysadmctl"])
def test_a_shell_that_is_not_known_is_refused_with_those_that_are(
    program: str, tmp_path: Path
) -> None:
    command = [str(programs(tmp_path) / program), "completion", "ksh"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "'bash', 'zsh', 'fish'" in done.stderr
