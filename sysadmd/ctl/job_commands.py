"""The command line of `sysadmctl`'s jobs. The work is in `run`, `jobs`, `queues`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from sysadmd.ctl import completing
from sysadmd.ctl.help_text import HelpGroup
from sysadmd.ctl.moments import seconds
from sysadmd.ctl.options import Context, common_options, run_work

if TYPE_CHECKING:
    from sysadmd.ctl.run import Submission

F = TypeVar("F", bound=Callable[..., Any])
_ID_HELP: Final = "ID: a whole id, how it begins, or `last`."


class DurationOption(click.ParamType[float]):
    """`90`, `0.5`, `5m`: seconds."""

    name = "duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        try:
            return seconds(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


def submission_options(command: F) -> F:
    """Those of what submits a job of one's own commands."""
    for option in (
        click.option("--quiet", "-q", is_flag=True, help="No remarks on the job."),
        click.option(
            "--wait/--no-wait",
            default=True,
            help="Show its output and end as it does, as otherwise; or print its id.",
        ),
        click.option("--stdin", metavar="FILE", help="Refused: a job has no standard input."),
        click.option(
            "--once",
            metavar="KEY",
            help="The same key and commands again give the same job, even if it has finished.",
        ),
        click.option("--cwd", metavar="DIR", help="Its working directory; / otherwise."),
        click.option(
            "--env",
            metavar="NAME[=VALUE]",
            multiple=True,
            help="For its environment; NAME alone: with the value that it has here.",
        ),
        click.option("--timeout", type=DurationOption(), help="Ends it: 90, 5m, 1.5h."),
        click.option(
            "--queue",
            metavar="NAME",
            shell_complete=completing.queues,
            help="A configured queue; at once otherwise.",
        ),
        click.option("--id", metavar="ID", help="What it is called; made up otherwise."),
    ):
        command = option(command)
    return command


def _submission(commands: list[list[str]], options: dict[str, Any]) -> Submission:
    """What the options ask for. Raises: click.UsageError."""
    from sysadmd.ctl.run import Submission

    if options["stdin"] is not None:
        raise click.UsageError(
            "a job has no standard input. Give it the file's path as an argument, or let a"
            f" shell on the server open it: -- sh -c 'command < {options['stdin']}'"
        )
    return Submission(
        options["id"],
        options["queue"],
        options["timeout"],
        commands,
        env=dict(map(_variable, options["env"])),
        cwd=options["cwd"],
        once=options["once"],
    )


def _variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name:
        raise click.UsageError(f"--env {text}: there is no name before the =")
    if equals:
        return name, value
    if name not in os.environ:
        raise click.UsageError(
            f"--env {name}: there is no such variable here; give its value: {name}=VALUE"
        )
    return name, os.environ[name]


@click.command(context_settings={"allow_interspersed_args": False})
@submission_options
@click.argument(
    "command",
    metavar="-- CMD ARGS... [+ CMD ARGS...]...",
    nargs=-1,
    required=True,
    type=click.UNPROCESSED,
)
@common_options
@click.pass_obj
def run(
    context: Context, /, command: tuple[str, ...], wait: bool, quiet: bool, **options: Any
) -> None:
    """Run commands as a job, show their output, and exit with its status.

    A + that stands alone separates commands, which run until one fails.
    """
    from sysadmd.ctl.run import run_job

    order = _submission(split_commands(command), options)
    run_work(run_job(context.target(), context.printer, order, wait, quiet))


def split_commands(words: tuple[str, ...]) -> list[list[str]]:
    """Words into commands at each `+` that stands alone. Raises: click.UsageError."""
    commands: list[list[str]] = [[]]
    for word in words:
        if word == "+":
            commands.append([])
        else:
            commands[-1].append(word)
    if not all(commands):
        raise click.UsageError("there is no command beside a +")
    for command in commands:
        if not command[0].strip():
            raise click.UsageError(
                "a command is empty: its first word is the program; an unset variable?"
            )
    return commands


@click.command(epilog=_ID_HELP)
@click.argument("job", metavar="ID", shell_complete=completing.job_ids)
@submission_options
@common_options
@click.pass_obj
def rerun(context: Context, /, job: str, wait: bool, quiet: bool, **options: Any) -> None:
    """Run the commands of a job again, as a new job.

    Options are taken in place of those that it had.
    """
    from sysadmd.ctl.run import rerun_job

    changes = _submission([], options)
    run_work(rerun_job(context.target(), context.printer, job, changes, wait, quiet))


@click.command()
@click.option("--all", "everything", is_flag=True, help="Finished ones, too.")
@click.option("--failed", is_flag=True, help="Finished ones that did not succeed.")
@click.option(
    "--queue", metavar="NAME", shell_complete=completing.queues, help="Those of one queue."
)
@click.option("-n", "--limit", metavar="N", type=click.IntRange(min=1), help="At most so many.")
@click.option("--watch", is_flag=True, help="Draw it anew when something happens.")
@common_options
@click.pass_obj
def jobs(
    context: Context,
    everything: bool,
    failed: bool,
    queue: str | None,
    limit: int | None,
    watch: bool,
) -> None:
    """List jobs that run or wait."""
    from sysadmd.ctl.jobs import JobFilter, list_jobs, watch_jobs

    wanted = JobFilter(everything, failed, queue, limit)
    if not watch:
        run_work(list_jobs(context.target(), context.printer, wanted))
    if context.as_json or not sys.stdout.isatty():
        raise click.UsageError(
            "--watch draws on a terminal; for a program: sysadmctl tail dispatcher --json"
        )
    run_work(watch_jobs(context.target(), context.printer, wanted))


@click.command(epilog=_ID_HELP)
@click.argument("id", shell_complete=completing.job_ids)
@common_options
@click.pass_obj
def show(context: Context, id: str) -> None:
    """Show all that is known of a job."""
    from sysadmd.ctl.jobs import show_job

    run_work(show_job(context.target(), context.printer, id))


@click.command(epilog=_ID_HELP)
@click.argument("id", shell_complete=completing.job_ids)
@click.option(
    "--command",
    metavar="N",
    type=click.IntRange(min=0),
    help="Of this command, the first is 0; of all otherwise.",
)
@click.option("--follow", "-f", is_flag=True, help="Go on until the job has finished.")
@click.option(
    "--lines",
    "-n",
    metavar="N",
    type=click.IntRange(min=1),
    help="The last so many, of the command that began last.",
)
@click.option("--timestamps", is_flag=True, help="When lines came, while it is followed.")
@common_options
@click.pass_obj
def log(
    context: Context,
    id: str,
    command: int | None,
    follow: bool,
    lines: int | None,
    timestamps: bool,
) -> None:
    """Print a job's output."""
    from sysadmd.ctl.jobs import LogPart, print_log
    from sysadmd.ctl.unread import while_read

    work = print_log(
        context.target(), context.printer, id, LogPart(command, follow, lines, timestamps)
    )
    run_work(while_read(work) if follow else work)


@click.command(epilog=_ID_HELP)
@click.argument(
    "ids", metavar="ID...", nargs=-1, required=True, shell_complete=completing.active_job_ids
)
@click.option(
    "--wait/--no-wait", default=True, help="Wait until they have ended, as otherwise, or not."
)
@common_options
@click.pass_obj
def kill(context: Context, ids: tuple[str, ...], wait: bool) -> None:
    """Kill jobs: TERM, a while later KILL; say how they ended."""
    from sysadmd.ctl.jobs import kill_jobs

    run_work(kill_jobs(context.target(), context.printer, ids, wait))


@click.group(cls=HelpGroup)
@common_options
def queue() -> None:
    """List queues, pause one, or let it go on."""


@queue.command("list")
@common_options
@click.pass_obj
def list_(context: Context) -> None:
    """List queues: how many jobs at once, who runs, who waits."""
    from sysadmd.ctl.queues import list_queues

    run_work(list_queues(context.target(), context.printer))


@queue.command()
@click.argument("name", shell_complete=completing.pausable_queues)
@common_options
@click.pass_obj
def pause(context: Context, name: str) -> None:
    """Let no more jobs of a queue start; those that run are left alone."""
    from sysadmd.ctl.queues import change_queue

    run_work(change_queue(context.target(), context.printer, "pause", name))


@queue.command()
@click.argument("name", shell_complete=completing.pausable_queues)
@common_options
@click.pass_obj
def resume(context: Context, name: str) -> None:
    """Let a queue go on."""
    from sysadmd.ctl.queues import change_queue

    run_work(change_queue(context.target(), context.printer, "resume", name))


COMMANDS: Final = (run, rerun, jobs, show, log, kill, queue)
