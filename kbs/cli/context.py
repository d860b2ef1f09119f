"""What every command shares: where the broker is, how to print, how to fail.

Options stand before a command or behind it (`kbs --json guest check …` and `kbs guest
check … --json` are the same). With `--json` a command prints one JSON document on
stdout and nothing else; a wrong option or a file that cannot be read leaves it empty.
Exit codes: 0 done or granted, 1 refused, 2 usage or malformed input, 3 could not check.
"""

from __future__ import annotations

import functools
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Concatenate, ParamSpec

import click

from kbs.cli.render import escaped, print_json
from kbs.core.errors import (
    ConfigurationError,
    IntegrityError,
    KbsError,
    MalformedError,
    UnavailableError,
)

P = ParamSpec("P")

EXIT_DONE = 0
EXIT_REFUSED = 1
EXIT_USAGE = 2
EXIT_UNCHECKED = 3

# `contract.md`, section 2: "unreadable file or wrong option: one error line only".
_USAGE_CODES = frozenset(
    {"usage", "artifact.unreadable", "evidence.kind", "profile.missing"}
)


@dataclass(frozen=True, slots=True)
class CliContext:
    """The options that every command takes; `profile` is the administrator's folder."""

    server: str | None
    profile: Path
    json: bool
    verbose: bool

    def require_server(self) -> str:
        """Return the broker's URL.

        Raises:
            MalformedError: none was given.
        """
        if self.server is None:
            raise MalformedError(
                "server",
                got="none",
                expected="the broker's URL",
                hint="give --server URL or set KBS_SERVER",
            )
        return self.server


def initial_context(
    *,
    server: str | None = None,
    profile: Path | None = None,
    json: bool = False,
    verbose: bool = False,
    environment: Mapping[str, str] | None = None,
) -> CliContext:
    """Return a context with what the environment says where nothing was given."""
    env = os.environ if environment is None else environment
    named = env.get("KBS_PROFILE")
    base = env.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return CliContext(
        server=server or env.get("KBS_SERVER") or None,
        profile=profile or (Path(named) if named else Path(base) / "kbs"),
        json=json,
        verbose=verbose,
    )


def common_options(
    command: Callable[Concatenate[CliContext, P], None],
) -> Callable[..., None]:
    """Give a command the common options, its context, and our way to fail."""

    @functools.wraps(command)
    def run(*args: P.args, **options: P.kwargs) -> None:
        context = _merged(options)
        try:
            command(context, *args, **options)
        except KbsError as exc:
            report(context, exc)
            click.get_current_context().exit(exit_code(exc))

    for option in reversed(shared_options()):
        run = option(run)
    return run


def shared_options() -> list[Callable[[Any], Any]]:
    """Return the click options that the root group and every command take."""
    return [
        click.option("--server", metavar="URL", help="The broker (KBS_SERVER)."),
        click.option(
            "--profile",
            type=click.Path(path_type=Path, file_okay=False),
            metavar="DIR",
            help="Folder of the administrator's key (KBS_PROFILE).",
        ),
        click.option("--json", is_flag=True, help="Print one JSON document."),
        click.option("--verbose", is_flag=True, help="Say more when something fails."),
    ]


def require_one(
    what: str, given: Mapping[str, object], *, expected: str | None = None
) -> str:
    """Return the one option that was given of several (None, False and () are not).

    Raises:
        MalformedError: none was, or several.
    """
    named = [
        option
        for option, value in given.items()
        if value is not None and value is not False and value != ()
    ]
    if len(named) != 1:
        raise MalformedError(
            what,
            got=" and ".join(named) or f"neither {' nor '.join(given)}",
            expected=expected or f"exactly one of {', '.join(given)}",
            hint=f"see {click.get_current_context().command_path} --help",
            code="usage",
        )
    return named[0]


def emit(context: CliContext, document: object, human: Callable[[], object]) -> None:
    """Print the document with --json, else let `human` print."""
    if context.json:
        print_json(document)
    else:
        human()


def report(context: CliContext, error: KbsError) -> None:
    """Say an error in one line on stderr, and with --json as a document too.

    There is no document about what never began: a wrong option, an unreadable file.
    """
    click.echo(f"error: {one_line(str(error))}", err=True)
    if context.verbose:
        for line in details(error):
            click.echo(f"  {one_line(line)}", err=True)
    if context.json and not is_usage(error):
        print_json({"error": error_json(error)})


def is_usage(error: KbsError) -> bool:
    """Whether a command never began: a wrong option, a file that cannot be read."""
    # An error about an option, or about the file that it names, names the option first.
    return isinstance(error, MalformedError) and (
        error.code in _USAGE_CODES or error.what.startswith("--")
    )


def error_json(error: KbsError) -> dict[str, object]:
    """Return an error for programs."""
    members = {
        "code": error.code,
        "message": str(error),
        "what": error.what,
        "got": error.got,
        "expected": error.expected,
        "hint": error.hint,
    }
    document: dict[str, object] = {
        name: value for name, value in members.items() if value is not None
    }
    # Errors that know more than their message say it themselves.
    more = getattr(error, "to_json", None)
    if callable(more):
        document.update(more())
    return document


def details(error: KbsError) -> list[str]:
    """Return what --verbose adds: the code, and the errors that led to this one."""
    lines = [f"code: {error.code}"]
    cause = error.__cause__
    while cause is not None:
        lines.append(f"because: {type(cause).__name__}: {cause}")
        cause = cause.__cause__
    return lines


def exit_code(error: KbsError) -> int:
    """Return the exit code that an error stands for."""
    if isinstance(error, (MalformedError, ConfigurationError)):
        return EXIT_USAGE
    if isinstance(error, IntegrityError):
        # Checked, and not consistent: that is a refusal.
        return EXIT_REFUSED
    if isinstance(error, UnavailableError):
        return EXIT_UNCHECKED
    return EXIT_REFUSED


def one_line(text: str) -> str:
    """Return text on one line, without what a terminal would obey."""
    return escaped(" ".join(text.split()))


def main_with(group: click.Group, arguments: Sequence[str] | None = None) -> int:
    """Run the root group and return the exit code; never lets a traceback out.

    Usage errors are one line on stderr and exit 2 (a group without a command: its
    help); what nobody expected is one line
    and exit 3, with its traceback only under --verbose.
    """
    given = sys.argv[1:] if arguments is None else list(arguments)
    context = initial_context(json="--json" in given, verbose="--verbose" in given)
    try:
        result = group.main(given, prog_name="kbs", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as exc:
        # A group alone: its help is the answer, and is no line of an error.
        click.echo(exc.format_message(), err=True)
        return EXIT_USAGE
    except click.ClickException as exc:
        report(context, _usage_error(exc))
        return EXIT_USAGE
    except KbsError as exc:
        report(context, exc)
        return exit_code(exc)
    except (click.Abort, KeyboardInterrupt):
        click.echo("error: interrupted", err=True)
        return EXIT_UNCHECKED
    except BrokenPipeError:
        # Whoever read our output has seen enough; nobody is left to tell.
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_UNCHECKED
    except Exception as exc:  # noqa: BLE001 - the last line of defence
        return _internal(context, exc)
    return result if isinstance(result, int) else EXIT_DONE


def _internal(context: CliContext, exc: Exception) -> int:
    error = UnavailableError(
        "internal", got=f"{type(exc).__name__}: {str(exc)[:200]}", code="internal"
    )
    report(context, error)
    if context.verbose:
        click.echo("".join(traceback.format_exception(exc)), err=True)
    return EXIT_UNCHECKED


def _usage_error(exc: click.ClickException) -> MalformedError:
    command = ""
    if isinstance(exc, click.UsageError) and exc.ctx is not None:
        command = exc.ctx.command_path + " "
    return MalformedError(
        exc.format_message().rstrip("."), hint=f"see {command}--help", code="usage"
    )


def _merged(options: dict[str, Any]) -> CliContext:
    # What stands behind the command wins over what stands before it.
    root = click.get_current_context().find_root().obj
    base = root if isinstance(root, CliContext) else initial_context()
    server, profile = options.pop("server"), options.pop("profile")
    return replace(
        base,
        server=server or base.server,
        profile=profile or base.profile,
        json=options.pop("json") or base.json,
        verbose=options.pop("verbose") or base.verbose,
    )
