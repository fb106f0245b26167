"""The command line of `sysadmctl tail`. The work is in `tail`."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import click

from sysadmd.ctl import completing
from sysadmd.ctl.moments import moment
from sysadmd.ctl.options import Context, common_options, run_work
from sysadmd.ctl.tail_wanted import JOBS, MOST, Wanted, priority_of_word, since_of
from sysadmd.events import SYSTEMS

_WORDS: Final = ("information", "warning", "critical", "urgent")


class SystemName(click.Choice[str]):
    """A system, with `-` or with `_`, as events write it."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> str:
        """As `click.Choice` has it."""
        return str(super().convert(str(value).replace("_", "-"), param, ctx))


@click.command()
@click.argument(
    "systems", nargs=-1, type=SystemName(SYSTEMS), shell_complete=completing.systems
)
@click.option(
    "--since",
    metavar="TIME",
    help="A time, such as '10 min ago' or 18:00, a cursor, or oldest.",
)
@click.option("--until", metavar="TIME", help="End with what was told until this time.")
@click.option(
    "-n",
    "--lines",
    metavar="N",
    type=click.IntRange(0, MOST),
    help="Begin with the last so many.",
)
@click.option(
    "-f", "--follow/--no-follow", default=True, help="Wait for more, as otherwise, or end."
)
@click.option(
    "--priority",
    metavar="PRIORITY",
    help=f"At least this: 0 to 10, or {', '.join(_WORDS)}.",
)
@click.option(
    "--job",
    metavar="ID",
    shell_complete=completing.job_ids,
    help="Events of one job: its id, or how that begins.",
)
@click.option("--grep", metavar="REGEX", help="Only lines in which this is found.")
@click.option(
    "--count", metavar="N", type=click.IntRange(min=1), help="End after so many are shown."
)
@click.option(
    "--cursor-file",
    type=click.Path(path_type=Path, dir_okay=False, readable=False),
    help="Go on where this file says, and keep there how far it got.",
)
@click.option("--output/--no-output", default=True, help="Show the output of jobs.")
@click.option("-v", "--verbose", is_flag=True, help="Devices, commands and cursors, too.")
@common_options
@click.pass_obj
def tail(context: Context, /, systems: tuple[str, ...], **options: Any) -> None:
    """Print events as they come: jobs with their output, pools, Life Preserver.

    All of them, or those of the systems that are named. Reconnects by itself, and nothing is
    missing or comes twice then.
    """
    wanted = _wanted(systems, options)
    target = context.target()
    from sysadmd.ctl.tail import run_tail
    from sysadmd.ctl.unread import while_read

    run_work(while_read(run_tail(target, context.printer, wanted)))


def _wanted(systems: tuple[str, ...], given: dict[str, Any]) -> Wanted:
    """What was asked for. Raises: click.UsageError."""
    now = datetime.now().astimezone()
    since, lines, job = given["since"], given["lines"], given["job"]
    if since is not None and lines is not None:
        raise click.UsageError("--since and -n say both where to begin; name one")
    if job is not None and systems and JOBS not in systems:
        raise click.UsageError(f"--job is about {JOBS}; name that, or no system")
    if since is None and lines is None:
        # As tail(1) has it; and what is to end in the past has begun there.
        since = "now"
        if given["until"] is not None:
            since = "oldest"
        elif not given["follow"]:
            since, lines = None, 10
    option = "--since"
    try:
        begin = since_of(since, now) if since is not None else "now"
        option = "--until"
        until = None if given["until"] is None else _end(given["until"], now)
        option = "--priority"
        priority = priority_of_word(given["priority"] or "0")
        option = "--grep"
        grep = None if given["grep"] is None else re.compile(given["grep"])
    except (ValueError, re.error, OverflowError, RecursionError) as error:
        raise click.UsageError(f"{option}: {error}") from error
    return Wanted(
        systems=(JOBS,) if job is not None else systems or SYSTEMS,
        since=begin,
        since_text=since or "",
        last=lines,
        until=until,
        follow=given["follow"],
        priority=priority,
        job=job,
        grep=grep,
        count=given["count"],
        cursor_file=given["cursor_file"],
        verbose=given["verbose"],
        # Of jobs whose events are left out nobody wants the output.
        output=given["output"] and priority == 0,
    )


def _end(text: str, now: datetime) -> datetime:
    found = moment(text, now)
    if isinstance(found, datetime):
        return found
    return datetime.fromtimestamp(now.timestamp() - found, now.tzinfo)
