"""The manual pages: well formed, and true to the command lines, settings and protocol."""

import re
import subprocess
import tomllib
from collections.abc import Iterator

import click
import pytest

from server.cli import cli as daemon
from sysadmd.ctl.app import cli as client
from sysadmd.settings import Settings, build_settings
from tests.kit import ROOT, needs
from tests.kit.settings_keys import leaves

PAGES = ROOT / "packaging" / "man"
# In the page of a program each command is an item, `.It Cm token add` and then macros.
_MACRO = re.compile(r"[A-Z][a-z]")
_OPTION = re.compile(r"\bFl (?:h , Fl )?(-[a-z][a-z-]*)")
PROGRAMS = {"sysadmd.8": daemon, "sysadmctl.1": client}


def lines(page: str) -> list[str]:
    return (PAGES / page).read_text().splitlines()


def commands(group: click.Group, before: str = "") -> Iterator[tuple[str, click.Command]]:
    """Every command by its words: `token add`."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, f"{before}{name} ")
        elif not command.hidden:
            yield before + name, command


def options(command: click.Command) -> set[str]:
    found = {"--help"}
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            found |= {*parameter.opts, *parameter.secondary_opts}
    return {option for option in found if option.startswith("--")}


def choices(command: click.Command) -> set[str]:
    """The words that its options and arguments take."""
    return {
        str(word)
        for parameter in command.params
        if isinstance(parameter.type, click.Choice)
        for word in parameter.type.choices
    }


def described(page: str) -> dict[str, str]:
    """The text of each command of a page, by the command's words; all before them is at ""."""
    found = {"": ""}
    name, inside = "", False
    for line in lines(page):
        if line.startswith((".Sh ", ".Ss ")):
            inside, name = line == ".Sh COMMANDS" or (inside and line[:3] == ".Ss"), ""
        if inside and line.startswith(".It Cm "):
            words: list[str] = []
            for word in line.split()[2:]:
                if _MACRO.fullmatch(word):
                    break
                words.append(word)
            name = " ".join(words)
            assert name not in found, f"{page} has {name} twice"
            found[name] = ""
        if name or not inside:
            found[name] += line + "\n"
    return found


@pytest.mark.parametrize("page", sorted(path.name for path in PAGES.iterdir()))
def test_a_page_is_well_formed(page: str) -> None:
    needs("mandoc")
    command = ["mandoc", "-T", "lint", "-W", "warning", str(PAGES / page)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("page", PROGRAMS)
def test_a_page_has_the_commands_that_there_are_and_no_other(page: str) -> None:
    there = {name for name, _ in commands(PROGRAMS[page])}
    named = {name for name in described(page) if name}
    assert named == there, f"not in {page}: {there - named}; only there: {named - there}"


@pytest.mark.parametrize("page", PROGRAMS)
def test_a_command_has_the_options_that_there_are_and_no_other(page: str) -> None:
    texts, group = described(page), PROGRAMS[page]
    common = options(group)
    said = {f"-{option}" for option in _OPTION.findall(texts[""])}
    assert common <= said, f"{page} lacks for all commands: {common - said}"
    for name, command in commands(group):
        own = options(command) - common
        said = {f"-{option}" for option in _OPTION.findall(texts[name])} - common
        assert said == own, f"{page}, {name}: has {said}, there are {own}"
        unsaid = {word for word in choices(command) if word not in texts[name]}
        assert not unsaid, f"{page}, {name}: lacks {unsaid}"


def test_the_page_of_the_settings_has_each_key_with_its_default() -> None:
    table: list[str] = []
    for line in lines("sysadmd.toml.5"):
        if line.startswith(".Ss [") or line.startswith(".It Va "):
            table.append(
                line.removeprefix(".Ss ").removeprefix(".It Va ").replace(r"\(dq", '"')
            )
    settings = tomllib.loads("\n".join(table))
    assert set(leaves(settings)) == set(leaves(Settings()))
    assert build_settings(settings) == Settings()


def test_the_page_of_the_protocol_has_each_request_and_each_code() -> None:
    """As docs/protocol.md has them, which is the longer of the two."""
    document = (ROOT / "docs" / "protocol.md").read_text()
    page = "\n".join(lines("sysadmd-protocol.7"))
    requests = set(re.findall(r"`((?:rpc|events|sysadm)/[a-z_]+)`", document))
    codes = set(re.findall(r"(?<=[| ])[1-9]\d{3}(?=[ ,|].*\|$)", document, re.MULTILINE))
    assert {"rpc/dispatcher", "events/subscribe"} <= requests
    assert {"1001", "4410"} <= codes
    errors = set(re.findall(r"(?<=\| )[2-5]\d\d(?= \|)", document)) | {"204"}
    for word in requests | errors | codes:
        assert re.search(rf"\b{re.escape(word)}\b", page), word
