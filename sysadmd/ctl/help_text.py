"""How `sysadmctl --help` looks: commands by what they are about, as wide as the terminal."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from typing import Any, Final

import click

# A terminal that says it is narrower is not believed; wider lines are hard to read.
_NARROWEST: Final = 20
_WIDEST: Final = 80
# No sentence on a command is longer.
_SENTENCE: Final = 1000


def help_width() -> int:
    """Columns of a page of help."""
    return max(_NARROWEST, min(_WIDEST, shutil.get_terminal_size((_WIDEST, 24)).columns)) - 2


class HelpGroup(click.Group):
    """A group that says of its commands whole sentences, and takes `help` for `--help`."""

    def __init__(
        self, *args: Any, sections: Mapping[str, Sequence[str]] | None = None, **kwargs: Any
    ) -> None:
        """sections: commands that stand together, in this order; all others come first."""
        super().__init__(*args, **kwargs)
        self._sections = sections or {}

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """As `click.Group` has it."""
        named = {name for names in self._sections.values() for name in names}
        others = [name for name in self.list_commands(ctx) if name not in named]
        for title, names in {"Commands": others, **self._sections}.items():
            rows: list[tuple[str, str]] = []
            for name in names:
                command = self.get_command(ctx, name)
                if command is not None and not command.hidden:
                    rows.append((name, command.get_short_help_str(_SENTENCE)))
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As `click.Group` has it; `help WORDS` is `WORDS --help`."""
        if args[0] == "help":
            if len(args) == 1:
                click.echo(ctx.get_help())
                ctx.exit()
            args = [*args[1:], "--help"]
        return super().resolve_command(ctx, args)


class ServerOption(click.Option):
    """One of those that say which server is meant: with each command the first one alone."""

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """As `click.Option` has it."""
        if ctx.parent is None:
            return super().get_help_record(ctx)
        if self.name != "profile":
            return None
        return ("--profile, --url, ...", "Which server: see `sysadmctl --help`.")
