"""All commands of `sysadmctl` together, and its exit statuses. The work is elsewhere."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from typing import Final

import click

from sysadmd import __version__, clean_start
from sysadmd.completion import completion
from sysadmd.ctl import (
    check_commands,
    class_commands,
    job_commands,
    key_commands,
    login_commands,
    top_commands,
    watch_commands,
)
from sysadmd.ctl.help_text import HelpGroup, help_width
from sysadmd.ctl.options import Context, common_options
from sysadmd.ctl.output import Printer
from sysadmd.errors import GARBLED, SysadmdError, no_sysadmd

# Source: sysexits(3), EX_UNAVAILABLE and EX_NOPERM.
NO_SERVER: Final = 69
NOT_PERMITTED: Final = 77
INTERRUPTED: Final = 130
# Commands as they stand in the help.
_SECTIONS: Final = {
    "What happens": ("tail", "top", "state", "check", "audit", "unblock"),
    "Jobs": ("run", "rerun", "jobs", "show", "log", "kill", "queue"),
    "Packages, updates, virtual machines": ("pkg", "update", "vm"),
    "Servers": ("login", "logout", "profiles", "key", "servers", "identify"),
    "This program": ("completion",),
}
# By the errors' codes: most that is run needs no more of the client library than --help does.
_STATUSES: Final = {"not-permitted": NOT_PERMITTED, "unreachable": NO_SERVER, "bad-request": 2}


@click.group(
    cls=HelpGroup,
    sections=_SECTIONS,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="`sysadmctl help COMMAND` says more of one.",
)
@click.version_option(__version__, prog_name="sysadmctl", message="%(prog)s %(version)s")
@common_options
def cli() -> None:
    """Talk to sysadmd: tail events, run jobs, see the machine's state."""


for _command in (
    *watch_commands.COMMANDS,
    *top_commands.COMMANDS,
    *job_commands.COMMANDS,
    *login_commands.COMMANDS,
    *class_commands.GROUPS,
    key_commands.key,
    check_commands.check,
    completion,
):
    cli.add_command(_command)


def run(arguments: Sequence[str]) -> int:
    """Run `sysadmctl` with these; its exit status."""
    try:
        with clean_start.interruptible():
            return _run(arguments)
    except KeyboardInterrupt:
        # While another error was told.
        return INTERRUPTED


def _run(arguments: Sequence[str]) -> int:
    context = Context()
    try:
        clean_start.as_tool()
        for stream in (sys.stdout, sys.stderr):
            # Whatever a server says can be written, in any locale.
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
        result = cli.main(
            list(arguments),
            "sysadmctl",
            standalone_mode=False,
            obj=context,
            terminal_width=help_width(),
        )
        sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        return 2
    except (click.Abort, KeyboardInterrupt) as error:
        if isinstance(error.__context__, EOFError):
            return _fail(1, "the input ended before the answer; ask again on a terminal")
        return INTERRUPTED
    except SysadmdError as error:
        return _fail(_STATUSES.get(error.code, 1), context.explained(error))
    except OSError as error:
        # Nobody reads our output, or there is no room for it.
        return 1 if isinstance(error, BrokenPipeError) else _fail(1, error)
    except GARBLED as error:
        # Replies are used as the protocol has them; those of a stranger may lack anything.
        return _fail(NO_SERVER, no_sysadmd(error))
    except RuntimeError as error:
        # Path.home() for an account without one.
        return _fail(1, error)
    return result if isinstance(result, int) else 0


def _fail(status: int, error: Exception | str) -> int:
    Printer(False).note(str(error))
    return status
