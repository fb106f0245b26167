"""The command line of `sysadmctl pkg`, `update` and `vm`. The work is in `classes`."""

from __future__ import annotations

from typing import Final

import click

from sysadmd.ctl.help_text import HelpGroup
from sysadmd.ctl.options import Context, common_options, run_work

_wait = click.option(
    "--wait/--no-wait",
    default=True,
    help="Show its output and end as it does, as otherwise; or print its id.",
)
_repo = click.option("--repo", help="A repository; the server chooses otherwise.")
_asked_repo = click.option("--repo", help="A repository; what is installed otherwise.")
_names = click.argument("names", nargs=-1, required=True)


@click.group(cls=HelpGroup)
@common_options
def pkg() -> None:
    """Packages of the machine: install, upgrade, look for holes."""


@click.group(cls=HelpGroup)
@common_options
def update() -> None:
    """Updates of the whole system."""


@click.group(cls=HelpGroup)
@common_options
def vm() -> None:
    """Virtual machines."""


GROUPS: Final = (pkg, update, vm)


def _pkg_job(context: Context, action: str, wait: bool, **args: object) -> None:
    from sysadmd.ctl.classes import Wish, run_class_job

    order = Wish("pkg", {"action": action, **args})
    run_work(run_class_job(context.target(), context.printer, order, wait))


def _named(names: tuple[str, ...], repo: str | None = None) -> dict[str, object]:
    args: dict[str, object] = {"pkg_origins": list(names)} if names else {}
    return args if repo is None else {**args, "repo": repo}


@pkg.command()
@_names
@_repo
@_wait
@common_options
@click.pass_obj
def install(context: Context, names: tuple[str, ...], repo: str | None, wait: bool) -> None:
    """Install packages."""
    _pkg_job(context, "pkg_install", wait, **_named(names, repo))


@pkg.command()
@_names
@click.option(
    "--recursive/--no-recursive",
    default=True,
    show_default=True,
    help="With what depends on them.",
)
@_wait
@common_options
@click.pass_obj
def remove(context: Context, names: tuple[str, ...], recursive: bool, wait: bool) -> None:
    """Remove packages."""
    text = "true" if recursive else "false"
    _pkg_job(context, "pkg_remove", wait, **_named(names), recursive=text)


@pkg.command()
@_names
@_wait
@common_options
@click.pass_obj
def lock(context: Context, names: tuple[str, ...], wait: bool) -> None:
    """Protect packages from any change."""
    _pkg_job(context, "pkg_lock", wait, **_named(names))


@pkg.command()
@_names
@_wait
@common_options
@click.pass_obj
def unlock(context: Context, names: tuple[str, ...], wait: bool) -> None:
    """Let packages be changed again."""
    _pkg_job(context, "pkg_unlock", wait, **_named(names))


@pkg.command("update")
@click.option("--force", is_flag=True, help="Though the lists are new.")
@_wait
@common_options
@click.pass_obj
def update_lists(context: Context, force: bool, wait: bool) -> None:
    """Fetch the repositories' lists of packages."""
    _pkg_job(context, "pkg_update", wait, **({"force": "true"} if force else {}))


@pkg.command("check")
@_wait
@common_options
@click.pass_obj
def check_upgrade(context: Context, wait: bool) -> None:
    """Look whether there are newer packages; change nothing."""
    _pkg_job(context, "pkg_check_upgrade", wait)


@pkg.command()
@_wait
@common_options
@click.pass_obj
def upgrade(context: Context, wait: bool) -> None:
    """Upgrade all packages."""
    _pkg_job(context, "pkg_upgrade", wait)


@pkg.command()
@_wait
@common_options
@click.pass_obj
def audit(context: Context, wait: bool) -> None:
    """Look for packages with known holes."""
    _pkg_job(context, "pkg_audit", wait)


@pkg.command()
@_wait
@common_options
@click.pass_obj
def autoremove(context: Context, wait: bool) -> None:
    """Remove packages that nothing needs any more."""
    _pkg_job(context, "pkg_autoremove", wait)


@pkg.command()
@click.argument("names", nargs=-1)
@_asked_repo
@common_options
@click.pass_obj
def info(context: Context, names: tuple[str, ...], repo: str | None) -> None:
    """List packages: these, or all."""
    from sysadmd.ctl.classes import list_packages

    args = {"action": "pkg_info", **_named(names, repo)}
    run_work(list_packages(context.target(), context.printer, args))


@pkg.command()
@click.argument("term")
@_asked_repo
@common_options
@click.pass_obj
def search(context: Context, term: str, repo: str | None) -> None:
    """Look for packages by a word."""
    from sysadmd.ctl.classes import list_packages

    args = {"action": "pkg_search", "search_term": term, **_named((), repo)}
    run_work(list_packages(context.target(), context.printer, args))


@pkg.command()
@_asked_repo
@common_options
@click.pass_obj
def categories(context: Context, repo: str | None) -> None:
    """List categories of packages."""
    from sysadmd.ctl.classes import list_names

    args = {"action": "list_categories", **_named((), repo)}
    run_work(list_names(context.target(), context.printer, "pkg", args))


@pkg.command()
@common_options
@click.pass_obj
def repos(context: Context) -> None:
    """List repositories."""
    from sysadmd.ctl.classes import list_names

    run_work(list_names(context.target(), context.printer, "pkg", {"action": "list_repos"}))


@update.command()
@click.option("--force", is_flag=True, help="Though it was looked not long ago.")
@common_options
@click.pass_obj
def check(context: Context, force: bool) -> None:
    """Look whether there are updates; wait for the answer."""
    from sysadmd.ctl.classes import check_updates

    run_work(check_updates(context.target(), context.printer, force))


@update.command("start")
@_wait
@common_options
@click.pass_obj
def start_update(context: Context, wait: bool) -> None:
    """Update the system; `apply` makes it count."""
    from sysadmd.ctl.classes import Wish, run_class_job

    order = Wish("update", {"action": "startupdate"})
    run_work(run_class_job(context.target(), context.printer, order, wait))


@update.command("stop")
@common_options
@click.pass_obj
def stop_update(context: Context) -> None:
    """Stop an update that runs."""
    from sysadmd.ctl.classes import do

    run_work(do(context.target(), context.printer, "update", {"action": "stopupdate"}))


@update.command()
@common_options
@click.pass_obj
def settings(context: Context) -> None:
    """Show how updates are made."""
    from sysadmd.ctl.classes import show_settings

    run_work(show_settings(context.target(), context.printer))


@update.command("set")
@click.argument("changes", nargs=-1, required=True, metavar="KEY=VALUE...")
@common_options
@click.pass_obj
def change_settings(context: Context, changes: tuple[str, ...]) -> None:
    """Change how updates are made."""
    from sysadmd.ctl.classes import do

    args = {"action": "changesettings", **split_changes(changes)}
    run_work(do(context.target(), context.printer, "update", args))


def split_changes(changes: tuple[str, ...]) -> dict[str, str]:
    """`KEY=VALUE` into keys and values. Raises: click.UsageError."""
    split: dict[str, str] = {}
    for change in changes:
        key, sign, value = change.partition("=")
        # `action` is the request's own.
        if not sign or key in ("", "action") or key in split:
            raise click.UsageError(f"{change!r} is no KEY=VALUE, or its key is there twice")
        split[key] = value
    return split


@update.command()
@common_options
@click.pass_obj
def logs(context: Context) -> None:
    """List logs of updates."""
    from sysadmd.ctl.classes import list_update_logs

    run_work(list_update_logs(context.target(), context.printer))


@update.command()
@click.argument("name")
@common_options
@click.pass_obj
def log(context: Context, name: str) -> None:
    """Print a log of an update."""
    from sysadmd.ctl.classes import print_update_log

    run_work(print_update_log(context.target(), context.printer, name))


@update.command()
@click.option("--confirm", type=click.Choice(["reboot"]), help="That you mean it.")
@common_options
@click.pass_obj
def apply(context: Context, confirm: str | None) -> None:
    """Restart the machine to complete updates."""
    from sysadmd.ctl.classes import do

    if confirm is None:
        raise click.UsageError(
            "this restarts the machine at once, to complete updates; if you mean it:"
            " --confirm reboot"
        )
    args = {"action": "applyupdate", "confirm": confirm}
    run_work(do(context.target(), context.printer, "update", args))


@vm.command()
@click.argument("image", metavar="URL")
@_wait
@common_options
@click.pass_obj
def fetch(context: Context, image: str, wait: bool) -> None:
    """Fetch an ISO image."""
    from sysadmd.ctl.classes import Wish, run_class_job

    order = Wish("iohyve", {"action": "fetchiso", "url": image})
    run_work(run_class_job(context.target(), context.printer, order, wait))


@vm.command("list")
@common_options
@click.pass_obj
def list_vms(context: Context) -> None:
    """List virtual machines."""
    from sysadmd.ctl.classes import list_machines

    run_work(list_machines(context.target(), context.printer))


@vm.command()
@common_options
@click.pass_obj
def isos(context: Context) -> None:
    """List ISO images."""
    from sysadmd.ctl.classes import list_names

    run_work(list_names(context.target(), context.printer, "iohyve", {"action": "listisos"}))


@vm.command("start")
@click.argument("name")
@common_options
@click.pass_obj
def start_vm(context: Context, name: str) -> None:
    """Start a virtual machine."""
    from sysadmd.ctl.classes import do

    args = {"action": "start", "name": name}
    run_work(do(context.target(), context.printer, "iohyve", args))


@vm.command("stop")
@click.argument("name")
@common_options
@click.pass_obj
def stop_vm(context: Context, name: str) -> None:
    """Stop a virtual machine."""
    from sysadmd.ctl.classes import do

    args = {"action": "stop", "name": name}
    run_work(do(context.target(), context.printer, "iohyve", args))
