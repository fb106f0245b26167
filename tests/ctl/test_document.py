"""docs/sysadmctl.md says what really is: its commands are run, its shapes are what comes."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import click
import pytest

from sysadmd.ctl.app import cli
from tests.kit import ROOT
from tests.kit.ctl import Ctl
from tests.kit.ctl_stage import Site, Spoken, line_shapes, named_shapes, spoken
from tests.kit.shapes import Shapes, read

DOCUMENT: Final = (ROOT / "docs" / "sysadmctl.md").read_text()
SHAPES: Final = Shapes(named_shapes(DOCUMENT))
LINES: Final = line_shapes(DOCUMENT)
# What ends otherwise than with 0: the pool is in a bad way; there is something vulnerable.
STATUSES: Final = {"check pool": 2, "pkg audit": 1}
# Commands that print no JSON: they are 2 with --json.
NOT_FOR_PROGRAMS: Final = {
    "top": "draws on a terminal",
    "completion": "prints a script for a shell",
}
# Of commands for people the numbers and the words in capitals; the others may be put better.
FACT: Final = re.compile(r"[A-Z]{2,}|[\w./%'=;]*\d[\w./%'=;]*")
CLOCK: Final = re.compile(r"\d\d:\d\d:\d\d")


def commands(group: click.Group = cli, path: tuple[str, ...] = ()) -> Iterator[str]:
    """All that there are, by their names."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield " ".join((*path, name))


def arguments(command: click.Command, words: list[str]) -> list[str]:
    """What is left of the words without options. Raises: click.UsageError."""
    context = click.Context(command, **command.context_settings)
    return command.make_parser(context).parse_args(list(words))[1]


def parsed(words: list[str]) -> tuple[str, list[str]]:
    """The command that is meant, and its arguments. Raises: click.UsageError."""
    command: click.Command = cli
    names: list[str] = []
    rest = words
    while isinstance(command, click.Group):
        rest = arguments(command, rest)
        if not rest:
            # `sysadmctl key`: the whole group is meant.
            break
        found = command.commands.get(rest[0])
        if found is None:
            raise click.UsageError(f"there is no command {rest[0]!r}")
        command, rest = found, rest[1:]
        names.append(command.name or "")
    if not isinstance(command, click.Group):
        rest = arguments(command, rest)
    return " ".join(names), rest


@dataclass(frozen=True, slots=True)
class Played:
    """A command of the document, and what became of it here."""

    spoken: Spoken
    done: subprocess.CompletedProcess[str]

    @property
    def command(self) -> str:
        return parsed(self.spoken.words)[0]

    @property
    def is_json(self) -> bool:
        return "--json" in self.spoken.words

    @property
    def values(self) -> list[Any]:
        return [json.loads(line) for line in self.done.stdout.splitlines()]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with Site(tmp_path_factory.mktemp("site")) as made:
        yield made


@pytest.fixture(scope="module")
def played(site: Site) -> list[Played]:
    """All commands of the document, run in its order."""
    return [Played(one, site.run(one.words)) for one in spoken(DOCUMENT)]


def test_every_command_of_the_document_ends_as_it_should(played: list[Played]) -> None:
    for one in played:
        expected = STATUSES.get(one.command, 0)
        assert one.done.returncode == expected, (one.spoken.line, one.done)
        assert "Traceback" not in one.done.stderr


def facts(text: str) -> list[str]:
    return FACT.findall(CLOCK.sub("", text))


def test_what_is_shown_of_the_output_is_what_comes(played: list[Played]) -> None:
    shown = [one for one in played if one.spoken.shown.strip() and not one.is_json]
    assert {one.command for one in shown} >= {"state", "check pool", "run", "log"}
    for one in shown:
        if one.command in ("run", "rerun", "log"):
            assert one.done.stdout == one.spoken.shown
        else:
            real = one.done.stdout.splitlines()
            said = one.spoken.shown.splitlines()
            # In the first line there is the machine's name.
            skipped = 1 if one.command == "state" else 0
            assert [*map(facts, real[skipped:])] == [*map(facts, said[skipped:])]


def test_each_line_of_json_has_a_shape_of_its_command_and_each_shape_comes(
    played: list[Played],
) -> None:
    seen: set[tuple[str, str]] = set()
    for one in (one for one in played if one.is_json):
        shapes = LINES[one.command]
        for value in [*one.values, *one.spoken.values]:
            whys = {text: SHAPES.why_not(value, shape) for text, shape in shapes}
            fitting = [text for text, why in whys.items() if not why]
            assert fitting, (one.spoken.line, value, whys)
        for value in one.values:
            seen |= {(one.command, t) for t, s in shapes if not SHAPES.why_not(value, s)}
    documented = {(command, text) for command, all in LINES.items() for text, _ in all}
    assert documented - seen == set()
    # Both forms of what comes between the lines of a job.
    between = [value for one in played if one.is_json for value in one.values]
    for form in ("OUTPUT", '{"progress": PROGRESS}'):
        assert any(not SHAPES.why_not(value, read(form)) for value in between), form


def test_each_example_of_json_shows_what_its_command_prints(played: list[Played]) -> None:
    for one in (one for one in played if one.is_json):
        assert bool(one.spoken.values) == bool(one.values), one.spoken.line


def test_every_command_has_its_shapes_and_an_example() -> None:
    there = set(commands())
    assert there - NOT_FOR_PROGRAMS.keys() == LINES.keys()
    examples = {parsed(one.words)[0] for one in spoken(DOCUMENT) if "--json" in one.words}
    assert examples == LINES.keys()


@pytest.mark.parametrize("command", NOT_FOR_PROGRAMS)
def test_what_is_not_for_programs_is_refused_with_json(ctl: Ctl, command: str) -> None:
    done = ctl(command, *(["bash"] if command == "completion" else []), "--json")
    assert (done.returncode, done.stdout) == (2, "")


def test_a_gap_is_of_the_shape_of_a_frame() -> None:
    document = (ROOT / "docs" / "protocol.md").read_text()
    events = re.findall(r"^```json event\n(.*?)^```$", document, re.MULTILINE | re.DOTALL)
    found = [value for value in map(json.loads, events) if value["name"] == "gap"]
    assert found
    for value in found:
        assert SHAPES.why_not(value, read("FRAME")) == ""


@pytest.mark.parametrize(
    ("value", "shape", "why"),
    [
        ({"a": 1}, '{"a": number}', ""),
        ({"a": True}, '{"a": number}', "it.a is not number: True"),
        ({}, '{"a"?: number}', ""),
        ({}, '{"a": number}', "it lacks ['a']"),
        ({"a": 1}, "{}", "it has 'a', of which nothing is said"),
        ({"a": "x", "b": 1}, '{"a": "x" or null, ...: number}', ""),
        ({"a": "y"}, '{"a": "x" or null}', "it.a: 'y'"),
        ([1, None], "[number]", "it[1] is not number: None"),
        ("2026-11-24T18:00:02.123Z", "time", ""),
        ("2026-11-24 18:00", "time", "it is not time: '2026-11-24 18:00'"),
    ],
)
def test_a_value_has_a_shape_or_it_is_said_where_not(value: Any, shape: str, why: str) -> None:
    assert Shapes({}).why_not(value, read(shape)) == why


# What other documents say.

# A program that a document has in front, or where it lies.
_CALL: Final = re.compile(r"(?:^|[ /])(sysadmctl .*)$", re.MULTILINE)
_BLOCK: Final = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# What stands for something that the reader has: NAME, wss://HOST:12150; or for one of several.
_PLACEHOLDER: Final = re.compile(r"(wss://)?[A-Z]+(:\d+)?|.*[|$].*")
# What is not run where one of these words is in it.
NOT_RUN: Final = {
    **dict.fromkeys(("login", "register"), "run as docs/sysadmctl.md has it"),
    "zpool": "the machine's own pools",
    "top": "needs a terminal",
}
DOCUMENTS: Final = tuple(
    str(path.relative_to(ROOT)) for path in (ROOT / "README.md", *ROOT.glob("docs/*.md"))
)


def calls(document: str) -> Iterator[list[str]]:
    """Each `sysadmctl ...` of its code spans and blocks, as words."""
    spans = re.findall(r"(?<!`)`(?:[^`\s]*/)?(sysadmctl\s[^`]+)`(?!`)", document)
    blocks = [*_BLOCK.findall(document), *re.findall(r"^ {4}.*$", document, re.MULTILINE)]
    for text in (*spans, *(line for block in blocks for line in _CALL.findall(block))):
        words = shlex.split(text.partition(" > ")[0], comments=True)[1:]
        if not any(word.startswith("/usr/local/bin") for word in words):
            # Not where it is linked to.
            yield words


@pytest.mark.parametrize("name", DOCUMENTS)
def test_what_a_document_tells_to_type_is_there(name: str) -> None:
    for words in calls((ROOT / name).read_text()):
        known = [word for word in words if word not in ("--help", "|")]
        with contextlib.suppress(click.BadOptionUsage):
            # An option may be told of without its value.
            parsed([word.partition("|")[0] for word in known])


@pytest.mark.parametrize("name", ["README.md", "docs/operations.md", "docs/monitoring.md"])
def test_what_needs_nothing_of_the_reader_runs(
    site: Site, played: list[Played], name: str
) -> None:
    assert played
    for words in calls((ROOT / name).read_text()):
        if NOT_RUN.keys() & words or any(map(_PLACEHOLDER.fullmatch, words)) or lacks(words):
            continue
        done = site.run([*words, *(["--no-follow"] if words[0] == "tail" else [])])
        expected = STATUSES.get(" ".join(words[:2]), 0)
        assert done.returncode == expected, (words, done)


def lacks(words: list[str]) -> bool:
    """Is a command told of without what it needs?"""
    if words[0].startswith("-"):
        return False
    command: click.Command = cli
    rest = list(words)
    while isinstance(command, click.Group) and rest:
        command = command.commands[rest.pop(0)]
    needs = any(each.required for each in command.params if isinstance(each, click.Argument))
    return isinstance(command, click.Group) or (needs and not rest)
