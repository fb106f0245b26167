"""`completion`, a command of both programs: prints what makes a shell complete their words.

The completing is click's: the script calls the program back at each Tab. But click loses words
with a space, a colon, a comma or a quote, in one shell or another; ids of jobs may have them.
"""

from __future__ import annotations

import os
import re
from typing import Any, Final

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    FishComplete,
    ShellComplete,
    ZshComplete,
    add_completion_class,
    get_completion_class,
    split_arg_string,
)

# Only bash 4.4 and newer has `nosort`. What stands before the cursor is read as it was typed:
# bash takes words apart at COMP_WORDBREAKS, and has the last piece replaced alone.
_BASH: Final = """\
%(complete_func)s() {
    local line
    COMPREPLY=()
    while IFS= read -r line; do
        case ${line%%%%,*} in
            dir) compopt -o dirnames ;;
            file) compopt -o default ;;
            plain) COMPREPLY+=("${line#*,}") ;;
        esac
    done < <(COMP_LINE="${COMP_LINE:0:COMP_POINT}" COMP_BREAKS="$COMP_WORDBREAKS" \\
        %(complete_var)s=bash_complete "$1")
}

complete -o nosort -F %(complete_func)s %(prog_name)s
"""
_FISH: Final = """\
function %(complete_func)s
    for line in (env %(complete_var)s=fish_complete COMP_WORDS=(commandline -cp) \\
            COMP_CWORD=(commandline -ct) %(prog_name)s)
        set -l parts (string split --max 1 , -- $line)
        switch $parts[1]
            case dir
                __fish_complete_directories $parts[2]
            case file
                __fish_complete_path $parts[2]
            case plain
                echo $parts[2]
        end
    end
end

complete --no-files --command %(prog_name)s --arguments "(%(complete_func)s)"
"""
_SPACE: Final = " \t\n"
# Source: bash(1), QUOTING, and what bash expands in a word.
_PLAIN: Final = re.compile(r"[\w@%+:,./=-]", re.ASCII)
# Source: bash(1), QUOTING: the only characters that a backslash quotes within quotes.
_IN_QUOTES: Final = re.compile(r'(["$`\\])')


def last_word(line: str) -> tuple[str, str]:
    """Of a command line in bash the words before the last one, and that, as they were typed."""
    start = _last_break(line, _SPACE)
    return line[:start], line[start:]


def inserted(value: str, word: str, breaks: str) -> str:
    """What bash is to put in place of the last piece of the typed word, to make it `value`.

    breaks: characters at which it takes words apart (COMP_WORDBREAKS).
    """
    # Of an option and its value, which are one word, the value is completed.
    option, equals, rest = word.partition("=")
    joined = equals and option.startswith("-")
    if joined:
        word = rest
    before = "" if not joined or "=" in breaks else f"{option}="
    if word[:1] == '"':
        # For a ! there an interactive bash puts in history; between the others it does not.
        return before + _IN_QUOTES.sub(r"\\\1", value).replace("!", "\"'!'\"")
    if word[:1] == "'":
        return before + value.replace("'", "'\\''")
    typed = "".join(split_arg_string(word[: _last_break(word, breaks)]))
    left = value[len(typed) :] if value.startswith(typed) else value
    return before + "".join(c if _PLAIN.match(c) or not c.isascii() else f"\\{c}" for c in left)


def _last_break(text: str, breaks: str) -> int:
    """Behind the last of these characters; a quoted one is none."""
    end, at, quote = 0, 0, ""
    while at < len(text):
        character = text[at]
        if character == "\\" and quote != "'":
            at += 1
        elif quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        elif character in breaks:
            end = at + 1
        at += 1
    return end


class Bash(BashComplete):
    """As click's, for words with any characters."""

    source_template = _BASH

    def get_completion_args(self) -> tuple[list[str], str]:
        before, word = last_word(os.environ["COMP_LINE"])
        return split_arg_string(before)[1:], "".join(split_arg_string(word)[:1])

    def format_completion(self, item: CompletionItem[Any]) -> str:
        _, word = last_word(os.environ["COMP_LINE"])
        value = inserted(str(item.value), word, os.environ.get("COMP_BREAKS", ""))
        return f"{item.type},{value}"


def whole(items: list[CompletionItem[str]], incomplete: str) -> list[CompletionItem[str]]:
    """The items as words: click gives of `--queue=pk` the value alone, as bash wants it."""
    option, equals, _ = incomplete.partition("=")
    if not equals or not option.startswith("-"):
        return items
    return [CompletionItem(f"{option}={one.value}", one.type, one.help) for one in items]


class Fish(FishComplete):
    """As click's, for words with any characters."""

    source_template = _FISH

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem[str]]:
        return whole(super().get_completions(args, incomplete), incomplete)


class Zsh(ZshComplete):
    """As click's, for words with backslashes, too: behind one zsh takes the next as it is."""

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem[str]]:
        return whole(super().get_completions(args, incomplete), incomplete)

    def format_completion(self, item: CompletionItem[Any]) -> str:
        if item.help:
            value = str(item.value).replace("\\", "\\\\")
            item = CompletionItem(value, item.type, item.help)
        return super().format_completion(item)


for _name, _kind in (("bash", Bash), ("fish", Fish), ("zsh", Zsh)):
    add_completion_class(_kind, _name)


@click.command()
@click.argument("shell", type=click.Choice(("bash", "zsh", "fish")))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print what makes a shell complete the words of this command."""
    root = ctx.find_root()
    program = root.info_name or ""
    kind = get_completion_class(shell)
    assert kind is not None, shell
    # click looks for the second name in the environment, by its own rule.
    script = kind(root.command, {}, program, f"_{program}_COMPLETE".upper())
    # Not its own `source`, which for bash starts one to ask for its version.
    click.echo(ShellComplete.source(script), nl=False)
