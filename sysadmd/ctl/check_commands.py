"""The command line of `sysadmctl check`, and its own exit statuses. The work is in `check`."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from sysadmd.clean_start import drop_what_nobody_takes
from sysadmd.ctl import completing
from sysadmd.ctl.options import Context, common_options
from sysadmd.errors import GARBLED, SysadmdError, no_sysadmd

if TYPE_CHECKING:
    from sysadmd.ctl.check import Verdict
    from sysadmd.target import Target

F = TypeVar("F", bound=Callable[..., Any])

_UNKNOWN: Final = 3


class PluginGroup(click.Group):
    """Usage errors are 3: a monitor would take 2 for a machine that is in a bad way."""

    def make_context(self, *given: Any, **more: Any) -> click.Context:
        try:
            return super().make_context(*given, **more)
        except click.ClickException as error:
            raise _unknown(error) from error

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except click.ClickException as error:
            raise _unknown(error) from error


def _unknown(error: click.ClickException) -> click.exceptions.Exit:
    # The monitor shows the first line of standard output.
    click.echo(f"CHECK UNKNOWN - {_one_line(error.format_message())}")
    return click.exceptions.Exit(_UNKNOWN)


def _one_line(text: str) -> str:
    from sysadmd.text import printable

    return printable(" ".join(text.split())).replace("|", "/")


def _timeout_option(command: F) -> F:
    option = click.option(
        "--timeout",
        type=click.FloatRange(min=0, min_open=True, max=3600),
        default=10.0,
        show_default=True,
        help="How long it may take; s.",
    )
    return option(common_options(command))


@click.group(cls=PluginGroup)
@common_options
def check() -> None:
    """Be a monitoring plugin: 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN."""


_PERCENT: Final = click.IntRange(0, 100)


@check.command("pool")
@click.argument("names", nargs=-1, shell_complete=completing.pools)
@click.option("--warning", type=_PERCENT, help="Fuller than this: %; the server's otherwise.")
@click.option("--critical", type=_PERCENT, help="Fuller than this: %.")
@_timeout_option
@click.pass_obj
def check_pool(
    context: Context,
    names: tuple[str, ...],
    warning: int | None,
    critical: int | None,
    timeout: float,
) -> None:
    """Are these pools, or all, healthy, without errors, and not too full?"""

    async def look(target: Target) -> list[Verdict]:
        from sysadmd.client import connect
        from sysadmd.ctl.check import Limits, check_pools
        from sysadmd.ctl.state import snapshot

        async with connect(target) as client:
            seen, _ = await snapshot(client)
        return check_pools(seen["system_state"], names, Limits(warning, critical))

    _run("pool", context, look, timeout)


@check.command("collector")
@click.argument("names", nargs=-1)
@_timeout_option
@click.pass_obj
def check_collector(context: Context, names: tuple[str, ...], timeout: float) -> None:
    """Do these collectors, or all, see what they watch?"""
    from sysadmd.ctl.check import COLLECTORS

    if wrong := [name for name in names if name not in COLLECTORS]:
        raise click.BadParameter(
            f"there is no collector {wrong[0]!r}; there are {', '.join(COLLECTORS)}"
        )

    async def look(target: Target) -> list[Verdict]:
        from sysadmd.client import connect
        from sysadmd.ctl.check import check_collectors
        from sysadmd.ctl.state import snapshot

        async with connect(target) as client:
            seen, _ = await snapshot(client)
        return check_collectors(seen["system_state"], await _metrics(target), names)

    _run("collector", context, look, timeout)


@check.command("daemon")
@_timeout_option
@click.pass_obj
def check_daemon(context: Context, timeout: float) -> None:
    """Does the daemon answer, let us in, and keep its promise?"""

    async def look(target: Target) -> list[Verdict]:
        from sysadmd.client import connect
        from sysadmd.ctl import check as decide
        from sysadmd.ctl.plain_http import get

        began = time.monotonic()
        async with connect(target) as client:
            identity = await client.request("rpc", "identify")
        took = time.monotonic() - began
        health = None if target.server else await get(target.resolved(), "/healthz")
        return decide.check_daemon(identity, health, await _metrics(target), took)

    _run("daemon", context, look, timeout)


async def _metrics(target: Target) -> str:
    """What /metrics says; empty where it can't be asked, or not by us."""
    from sysadmd.ctl.plain_http import get

    if target.server:
        return ""
    status, text = await get(target.resolved(), "/metrics")
    return text if status == 200 else ""


def _run(
    what: str,
    context: Context,
    look: Callable[[Target], Coroutine[Any, Any, list[Verdict]]],
    timeout: float,
) -> None:
    """Print what is found within that time, whatever happens, and end with its status."""
    import asyncio

    from sysadmd.ctl.check import UNKNOWN, Verdict, plugin_text, plugin_value, worst

    async def bounded(target: Target) -> list[Verdict]:
        async with asyncio.timeout(timeout):
            return await look(target)

    try:
        found = asyncio.run(bounded(context.target()))
    except TimeoutError:
        found = [Verdict(UNKNOWN, f"no answer within {timeout:g} s")]
    except SysadmdError as error:
        found = [Verdict(_status(what, error), str(error))]
    except GARBLED as error:
        found = [Verdict(UNKNOWN, no_sysadmd(error))]
    except (OSError, RuntimeError) as error:
        found = [Verdict(UNKNOWN, str(error))]
    try:
        if context.as_json:
            context.printer.value(plugin_value(what, found))
        else:
            click.echo(plugin_text(what, found))
    except OSError as error:
        # 1, as elsewhere, would be a warning.
        drop_what_nobody_takes()
        raise click.exceptions.Exit(_UNKNOWN) from error
    raise click.exceptions.Exit(worst(found))


def _status(what: str, error: SysadmdError) -> int:
    """A daemon that is not there is in a bad way; of all else nothing is known."""
    from sysadmd.ctl.check import CRITICAL, UNKNOWN

    # That we may not look, or that its name is not known, says nothing of it.
    ours = isinstance(error.__cause__, PermissionError | socket.gaierror | ValueError)
    away = what == "daemon" and error.code == "unreachable" and error.__cause__ is not None
    return CRITICAL if away and not ours else UNKNOWN
