"""`completion`, a command of both programs: prints what makes a shell complete their words.

The completing is click's: the script calls the program back at each Tab.
"""

from __future__ import annotations

import click
from click.shell_completion import ShellComplete, get_completion_class


@click.command()
@click.argument("shell", type=click.Choice(("bash", "zsh", "fish")))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print what makes a shell complete the words of this command."""
    root = ctx.find_root()
    program = root.info_name or ""
    kind = get_completion_class(shell)
    assert kind is not None, shell
    # click looks for the second name in the environment, by its own rule.
    script = kind(root.command, {}, program, f"_{program}_COMPLETE".upper())
    # Not its own `source`, which for bash starts one to ask for its version.
    click.echo(ShellComplete.source(script), nl=False)
