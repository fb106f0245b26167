"""`sysadmd`: the daemon's command line. Parses, calls, exits; does nothing itself."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from server import own_log
from sysadmd import __version__, clean_start
from sysadmd.completion import completion
from sysadmd.errors import SettingsInvalid, SysadmdError
from sysadmd.machine import default_bridge_dir, default_config, default_state_dir, plainly
from sysadmd.path_faults import cannot_read
from sysadmd.settings import Address, Settings, examine_settings, read_settings

if TYPE_CHECKING:
    from server.service import Service
    from sysadmd.keys import Side

F = TypeVar("F", bound=Callable[..., Any])


def find_config(named: str | None) -> Path | None:
    """The configuration file: the option, SYSADMD_CONFIG, or the default if it is there."""
    named = named or os.environ.get("SYSADMD_CONFIG") or None
    if named is not None:
        return Path(named).absolute()
    default = default_config()
    try:
        # A link to nothing is there, too, and so is what is not ours to look at: to go on
        # without would be to serve with other settings than those that are meant.
        default.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError:
        pass
    return default


def load(path: Path | None) -> Settings:
    """The settings of a file, or the defaults. Raises: SettingsInvalid."""
    if path is None:
        return Settings()
    with _readable(path):
        return read_settings(path)


@contextmanager
def _readable(path: Path) -> Generator[None]:
    """Raises: SettingsInvalid for what keeps a configuration from being read."""
    try:
        yield
    except OSError as error:
        raise SettingsInvalid([cannot_read(path, error)]) from error


class _Listen(click.ParamType[Address]):
    name = "address:port"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> Address:
        try:
            return Address(str(value))
        except ValueError as error:
            self.fail(f"{value!r} is not {error}", param, ctx)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="sysadmd", message="%(prog)s %(version)s")
def cli() -> None:
    """Watch this machine, run its jobs, and tell every subscribed admin what happens."""


_config = click.option(
    "--config", metavar="FILE", help="Configuration file; SYSADMD_CONFIG otherwise."
)
_state_dir = click.option(
    "--state-dir", metavar="DIR", help="State directory; SYSADMD_STATE_DIR otherwise."
)
# That it can't be read is said by who reads it.
_PATH: Final = click.Path(readable=False, path_type=Path)
_directory = click.argument("directory", type=_PATH, metavar="DIR")


def _serving(command: F) -> F:
    """The options of what runs as a service."""
    for option in (
        _config,
        _state_dir,
        click.option(
            *("--listen",),
            multiple=True,
            type=_Listen(),
            metavar="ADDRESS:PORT",
            help="May be repeated.",
        ),
        click.option(
            *("--log-level",),
            type=click.Choice(own_log.LEVELS),
            help="The file's log_level otherwise.",
        ),
        click.option(
            *("--log-format",),
            type=click.Choice(("text", "json")),
            default="text",
            show_default=True,
        ),
    ):
        command = option(command)
    return command


@cli.command()
@_serving
def serve(
    config: str | None,
    state_dir: str | None,
    listen: tuple[Address, ...],
    log_level: str | None,
    log_format: str,
) -> None:
    """Run the daemon in the foreground."""
    from server.daemon import Daemon

    state_dir = state_dir or os.environ.get("SYSADMD_STATE_DIR") or None
    _run(Daemon, config, state_dir, listen, log_level, log_format)


@cli.command()
@_serving
def bridge(
    config: str | None,
    state_dir: str | None,
    listen: tuple[Address, ...],
    log_level: str | None,
    log_format: str,
) -> None:
    """Run a bridge in the foreground: where servers and clients meet."""
    from server.bridge.daemon import BridgeDaemon

    state_dir = state_dir or os.environ.get("SYSADMD_BRIDGE_STATE_DIR") or None
    _run(BridgeDaemon, config, state_dir, listen, log_level, log_format)


def _run(
    kind: type[Service],
    config: str | None,
    state_dir: str | None,
    listen: tuple[Address, ...],
    log_level: str | None,
    log_format: str,
) -> None:
    from server.service import Options, run

    options = Options(find_config(config), state_dir, listen, log_level)
    settings = load(options.config)
    own_log.set_up(log_level or settings.log_level, log_format)
    sys.exit(run(kind, options, settings))


@cli.group("bridge-key")
def bridge_key() -> None:
    """Manage the keys that a bridge lets in, whether it runs or not."""


def _bridge_dir_of(config: str | None, state_dir: str | None) -> Path:
    named = state_dir or os.environ.get("SYSADMD_BRIDGE_STATE_DIR")
    named = named or load(find_config(config)).bridge.state_dir
    return Path(named or default_bridge_dir()).absolute()


@bridge_key.command("add")
@click.argument("file", type=_PATH, metavar="FILE")
@click.option("--side", required=True, type=click.Choice(("server", "client")))
@click.option("--name", required=True, help="What it is called in the log.")
@_config
@_state_dir
def bridge_key_add(
    file: Path, side: Side, name: str, config: str | None, state_dir: str | None
) -> None:
    """Let in who holds a key. FILE: the public one, in PEM; `-`: stdin."""
    from server.bridge import key_cli

    click.echo(key_cli.add(_bridge_dir_of(config, state_dir), file, side, name))


@bridge_key.command("list")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@_config
@_state_dir
def bridge_key_list(as_json: bool, config: str | None, state_dir: str | None) -> None:
    """Show the keys that are registered."""
    from server.bridge import key_cli

    if text := key_cli.listed(_bridge_dir_of(config, state_dir), as_json=as_json):
        click.echo(text)


@bridge_key.command("revoke")
@click.argument("name")
@_config
@_state_dir
def bridge_key_revoke(name: str, config: str | None, state_dir: str | None) -> None:
    """Let a key in no more, by name or fingerprint; who is here by it goes within a second."""
    from server.bridge import key_cli

    click.echo(key_cli.revoke(_bridge_dir_of(config, state_dir), name))


@cli.command("check-config")
@click.option("--file-only", is_flag=True, help="Not the files, accounts, addresses it names.")
@_config
def check_config(file_only: bool, config: str | None) -> None:
    """Name every mistake in the configuration file, and what of it this machine lacks."""
    path = find_config(config)
    if path is None:
        click.echo(f"{default_config()}: not there; the defaults hold: ok")
        return
    with _readable(path):
        settings, problems = examine_settings(path)
    if not file_only:
        from server import config_check

        problems += [f"{path}: {problem}" for problem in config_check.problems(settings)]
    if problems:
        raise SettingsInvalid(problems)
    click.echo(f"{path}: ok")


@cli.command()
@click.option("--keep", is_flag=True, help="Leave the daemon running until Ctrl-C.")
def demo(keep: bool) -> None:
    """Show a job, the machine's state and a log event, live, on this machine."""
    from server.demo import run_demo

    sys.exit(run_demo(keep))


@cli.command()
@click.option("--jobs", is_flag=True, help="Kill all jobs first, and wait for their end.")
@_config
@_state_dir
def stop(jobs: bool, config: str | None, state_dir: str | None) -> None:
    """End the running daemon, and wait until it is gone. Jobs go on, but with --jobs."""
    from server import stop_cli

    grace = load(find_config(config)).dispatcher.kill_grace
    path = _state_dir_of(config, state_dir)
    stop_cli.stop(path, click.echo, with_jobs=jobs, kill_grace=grace)


@cli.group()
def token() -> None:
    """Manage named tokens, in the running daemon or in its state directory."""


def _state_dir_of(config: str | None, state_dir: str | None) -> Path:
    named = state_dir or os.environ.get("SYSADMD_STATE_DIR")
    return Path(named or load(find_config(config)).state_dir or default_state_dir()).absolute()


@token.command("add")
@click.argument("name")
@click.option("--role", required=True, type=click.Choice(("full", "limited", "read")))
@click.option("--expires", metavar="TIME", help='Such as "90d"; never otherwise.')
@_config
@_state_dir
def token_add(
    name: str, role: str, expires: str | None, config: str | None, state_dir: str | None
) -> None:
    """Make a token and print it, this once."""
    from server import token_cli

    click.echo(token_cli.add(_state_dir_of(config, state_dir), name, role, expires))


@token.command("list")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@_config
@_state_dir
def token_list(as_json: bool, config: str | None, state_dir: str | None) -> None:
    """Show the named tokens that are valid."""
    from server import token_cli

    values = token_cli.listed(_state_dir_of(config, state_dir))
    if values:
        click.echo(token_cli.lines(values) if as_json else token_cli.table(values))


@token.command("revoke")
@click.argument("name")
@_config
@_state_dir
def token_revoke(name: str, config: str | None, state_dir: str | None) -> None:
    """End a token and every connection that is logged in by it."""
    from server import token_cli

    token_cli.revoke(_state_dir_of(config, state_dir), name)
    click.echo(f"revoked {name}")


@cli.command()
@_directory
@click.option("--with-keys", is_flag=True, help="Certificate, key and admin token, too.")
@_config
@_state_dir
def backup(directory: Path, with_keys: bool, config: str | None, state_dir: str | None) -> None:
    """Save the state into a new directory. The daemon may run meanwhile."""
    from server.backup import making

    made = making.make(
        _state_dir_of(config, state_dir), directory.absolute(), with_keys=with_keys
    )
    click.echo("\n".join(made))


@cli.command()
@_directory
@_config
@_state_dir
def restore(directory: Path, config: str | None, state_dir: str | None) -> None:
    """Put a backup back. Says what was lost; the daemon must not run."""
    from server.backup import restoring
    from server.token_cli import own_name

    path = _state_dir_of(config, state_dir)
    click.echo("\n".join(restoring.restore(path, directory.absolute(), own_name())))


@cli.command()
@click.argument("directory", required=False, type=_PATH, metavar="[DIR]")
@_config
@_state_dir
def verify(directory: Path | None, config: str | None, state_dir: str | None) -> None:
    """Check the history, or a backup. Looks at each event, and at each file of the backup."""
    from server.backup import checking

    if directory is not None:
        click.echo(checking.check_backup(directory.absolute()))
    else:
        click.echo(checking.check_state(_state_dir_of(config, state_dir)))


cli.add_command(completion)


def main() -> int:
    """Run the command line; returns the exit status."""
    try:
        with clean_start.interruptible():
            return _main()
    except KeyboardInterrupt:
        # While another error was told.
        return 130


def _main() -> int:
    try:
        cli.main(prog_name="sysadmd", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return 2
    except click.Abort:
        return 130
    except OSError as error:
        # Nobody reads our output, or there is no room for it.
        click.echo(f"sysadmd: {plainly(error)}", err=True)
        return 1
    except SettingsInvalid as error:
        for problem in error.problems:
            click.echo(problem, err=True)
        return 2
    except SysadmdError as error:
        click.echo(f"sysadmd: {error}", err=True)
        return 1
    return 0
