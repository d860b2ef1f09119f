"""`kbs completion` and `kbs version`."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

import kbs as package
from kbs.cli.context import CliContext, common_options, emit


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@common_options
def completion(context: CliContext, *, shell: str) -> None:
    """Print the completion script of a shell.

    \b
    bash  eval "$(kbs completion bash)"
    zsh   eval "$(kbs completion zsh)"
    fish  kbs completion fish | source
    """  # noqa: D301 - \b is click's word for "do not wrap"
    found = get_completion_class(shell)
    if found is None:
        raise click.UsageError(f"no completion for {shell}")
    root = click.get_current_context().find_root().command
    script = found(root, {}, "kbs", "_KBS_COMPLETE").source()
    emit(context, {"shell": shell, "script": script}, lambda: click.echo(script))


@click.command()
@common_options
def version(context: CliContext) -> None:
    """Print the version."""
    text = package.__version__
    emit(context, {"version": text}, lambda: click.echo(f"kbs {text}"))
