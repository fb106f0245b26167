"""The command line of `sysadmctl top`. The work is in `top/`."""

from __future__ import annotations

import os
import sys
from typing import Final

import click

from sysadmd.ctl.options import Context, common_options

_INSTEAD: Final = "use `sysadmctl jobs`, `sysadmctl state` or `sysadmctl tail`"


@click.command()
@common_options
@click.pass_obj
def top(context: Context) -> None:
    """Watch jobs, pools and events on a full screen; kill jobs, pause queues."""
    if context.as_json:
        raise click.UsageError(f"top is for people; with --json {_INSTEAD}")
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise click.UsageError(f"top needs a terminal for its input and output; {_INSTEAD}")
    if os.environ.get("TERM", "dumb") in ("dumb", ""):
        raise click.UsageError(
            f"this terminal (TERM={os.environ.get('TERM', '')}) has no full screen: set TERM to"
            f" what it is, or {_INSTEAD}"
        )
    from sysadmd.ctl.top.view import run_top

    raise click.exceptions.Exit(run_top(context.target()))


COMMANDS: Final = (top,)
