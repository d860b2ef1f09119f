"""The root command: a table of names, so that only what is asked for is imported.

`kbs --help` and shell completion know every command without importing one; start-up
stays fast, and a guest image needs only the libraries of the commands it runs.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import click

from kbs import __version__
from kbs.cli.context import CliContext, emit, initial_context, shared_options


@dataclass(frozen=True, slots=True)
class Place:
    """Where a command is defined, and the line about it in `kbs --help`."""

    module: str
    attribute: str
    summary: str


COMMANDS: Mapping[str, Place] = {
    "serve": Place("kbs.cli.serve", "serve", "Run the broker."),
    "init": Place("kbs.cli.serve", "init", "Make a broker and its administrator."),
    "health": Place("kbs.cli.health", "health", "Whether the broker can release keys."),
    "policy": Place("kbs.cli.policy", "policy", "Check, test, register and explain."),
    "key": Place("kbs.cli.key", "key", "Create, import, rotate and destroy keys."),
    "ref": Place("kbs.cli.ref", "ref", "Reference values, attestation keys, CAs."),
    "deny": Place("kbs.cli.deny", "deny", "The deny list and the emergency stop."),
    "admin": Place("kbs.cli.admins", "admin", "Administrators, their keys and roles."),
    "collateral": Place(
        "kbs.cli.collateral", "collateral", "Vendor certificates and revocation lists."
    ),
    "audit": Place("kbs.cli.audit", "audit", "Query, explain, prove and verify."),
    "evidence": Place("kbs.cli.evidence", "evidence", "Inspect and verify evidence."),
    "guest": Place("kbs.cli.guest", "guest", "Inside the TEE: attest, fetch keys."),
    "model": Place("kbs.cli.model", "model", "Seal model and data files, open them."),
    "completion": Place(
        "kbs.cli.completion", "completion", "Print the completion script of a shell."
    ),
    "version": Place("kbs.cli.completion", "version", "Print the version."),
}
"""Every command, in the order of `kbs --help`."""


class LazyGroup(click.Group):
    """A group whose commands are imported when they are invoked."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Return the names in the order of the table."""
        return list(COMMANDS)

    def get_command(
        self,
        ctx: click.Context,  # noqa: ARG002 - click's signature
        cmd_name: str,
    ) -> click.Command | None:
        """Import one command."""
        place = COMMANDS.get(cmd_name)
        if place is None:
            return None
        command = getattr(import_module(place.module), place.attribute)
        if not isinstance(command, click.Command):
            message = f"{place.module}.{place.attribute} is no command"
            raise TypeError(message)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or name the closest one."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            close = difflib.get_close_matches(args[0], COMMANDS, n=1)
            hint = f": did you mean {close[0]}?" if close else ""
            message = f"no command {args[0]!r:.60}{hint}"
            raise click.UsageError(message, ctx)
        return super().resolve_command(ctx, args)

    def format_commands(
        self,
        ctx: click.Context,  # noqa: ARG002 - click's signature
        formatter: click.HelpFormatter,
    ) -> None:
        """Write the list of commands from the table alone."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, at.summary) for name, at in COMMANDS.items()])


def _root(
    ctx: click.Context,
    *,
    server: str | None,
    profile: Path | None,
    json: bool,
    verbose: bool,
) -> None:
    """Release keys to workloads that prove what they are.

    \b
    Start a broker      kbs serve --dev
    Try a policy        kbs policy check FILE · kbs policy test DIR
    Put it in force     kbs policy register FILE
    See what happened   kbs audit query --tail

    Exit codes: 0 done, granted or verified · 1 refused · 2 usage or malformed input ·
    3 could not check. Every command takes --json.
    """  # noqa: D301 - \b is click's word for "do not wrap"
    ctx.obj = initial_context(
        server=server, profile=profile, json=json, verbose=verbose
    )
    if ctx.invoked_subcommand is None:
        context: CliContext = ctx.obj
        text = ctx.get_help()
        emit(context, {"commands": list(COMMANDS)}, lambda: click.echo(text))


def _build() -> LazyGroup:
    callback = click.pass_context(_root)
    # `kbs version` says the same, with --json too.
    told = click.version_option(__version__, message="%(prog)s %(version)s")
    for option in reversed((*shared_options(), told)):
        callback = option(callback)
    decorate = click.command(
        "kbs",
        cls=LazyGroup,
        invoke_without_command=True,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    return decorate(callback)


kbs = _build()
