"""The command line of `sysadmctl`'s jobs. The work is in `run`, `jobs`."""

from __future__ import annotations

import math
from typing import Final

import click

from sysadmd.ctl.options import Context, common_options, run_work


@click.command(context_settings={"allow_interspersed_args": False})
@click.option("--id", help="The job's id; one is made up otherwise.")
@click.option("--queue", help="A configured queue; at once otherwise.")
@click.option("--timeout", type=click.FloatRange(min=0, min_open=True), help="Seconds.")
@click.option("--wait/--no-wait", default=True, show_default=True)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@common_options
@click.pass_obj
def run(
    context: Context,
    id: str | None,
    queue: str | None,
    timeout: float | None,
    wait: bool,
    command: tuple[str, ...],
) -> None:
    """Submit a job: CMD ARGS... [+ CMD ARGS...]...; wait for it and exit with its status."""
    from sysadmd.ctl.run import Submission, run_job

    if timeout is not None and not math.isfinite(timeout):
        raise click.UsageError("--timeout must be a number of seconds")
    order = Submission(id, queue, timeout, split_commands(command))
    run_work(run_job(context.target(), context.printer, order, wait))


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
    return commands


@click.command()
@click.option("--all", "everything", is_flag=True, help="Finished ones, too.")
@click.option("--queue")
@common_options
@click.pass_obj
def jobs(context: Context, everything: bool, queue: str | None) -> None:
    """List jobs."""
    from sysadmd.ctl.jobs import list_jobs

    run_work(list_jobs(context.target(), context.printer, everything, queue))


@click.command()
@click.argument("id")
@common_options
@click.pass_obj
def show(context: Context, id: str) -> None:
    """Show all that is known of a job."""
    from sysadmd.ctl.jobs import show_job

    run_work(show_job(context.target(), context.printer, id))


@click.command()
@click.argument("id")
@click.option(
    "--command", type=click.IntRange(min=0), help="Its number, from 0; all otherwise."
)
@click.option("--follow", is_flag=True, help="Go on until the job has finished.")
@common_options
@click.pass_obj
def log(context: Context, id: str, command: int | None, follow: bool) -> None:
    """Print a job's output."""
    from sysadmd.ctl.jobs import print_log

    run_work(print_log(context.target(), context.printer, id, command, follow))


@click.command()
@click.argument("ids", nargs=-1, required=True)
@common_options
@click.pass_obj
def kill(context: Context, ids: tuple[str, ...]) -> None:
    """Kill jobs."""
    from sysadmd.ctl.jobs import kill_jobs

    run_work(kill_jobs(context.target(), context.printer, ids))


@click.command()
@click.argument("action", type=click.Choice(("pause", "resume")))
@click.argument("name")
@common_options
@click.pass_obj
def queue(context: Context, action: str, name: str) -> None:
    """Pause a queue, or let it go on."""
    from sysadmd.ctl.jobs import change_queue

    run_work(change_queue(context.target(), context.printer, action, name))


COMMANDS: Final = (run, jobs, show, log, kill, queue)
