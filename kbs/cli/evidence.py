"""`kbs evidence`: what is in it, and whether it holds. Neither uses the network."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kbs.cli.context import (
    EXIT_DONE,
    EXIT_USAGE,
    CliContext,
    common_options,
    emit,
)
from kbs.core.clock import SystemClock, parse_time
from kbs.core.errors import MalformedError

if TYPE_CHECKING:
    from kbs.cli.appraisal import Result
    from kbs.cli.given_files import GivenFiles

_FILE = click.Path(path_type=Path)
_KINDS = (
    "bundle",
    "rcar",
    "snp",
    "tdx",
    "sgx",
    "cca",
    "token",
    "vtpm",
    "nitro",
    "nitrotpm",
    "azure",
    "gce",
    "nvgpu",
    "sample",
    "eventlog",
    "rim",
)
_INSPECTED = (*_KINDS, "certificate", "collateral", "keys")


@click.group()
def evidence() -> None:
    """Inspect and verify evidence, offline."""


def file_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that name files beside raw evidence."""
    for option in reversed(
        [
            click.option("--cert", multiple=True, type=_FILE, help="Certificates."),
            click.option(
                "--crl", multiple=True, type=_FILE, help="CRLs, OCSP answers."
            ),
            click.option(
                "--collateral",
                multiple=True,
                type=_FILE,
                help="Certificates, CRLs, Intel's TCB info and QE identity.",
            ),
            click.option("--rim", multiple=True, type=_FILE, help="RIMs (GPUs)."),
            click.option(
                "--event-log", type=_FILE, help="Event log of a TPM or TD quote."
            ),
            click.option("--signature", type=_FILE, help="Signature of a TPM quote."),
            click.option("--pcrs", type=_FILE, help="PCR values: JSON, or tpm2-tools."),
            click.option("--ak", type=_FILE, help="Trust this key, this time only."),
        ]
    ):
        command = option(command)
    return command


@evidence.command()
@click.argument("file", type=_FILE)
@click.option("--at", "--as-of", metavar="TIME", help="RFC 3339 in UTC; default now.")
@click.option("--nonce", metavar="B64U", help="What the evidence must be fresh for.")
@click.option("--offline", is_flag=True, help="Do not fetch anything (nothing does).")
@click.option("--kind", type=click.Choice(_KINDS), help="What FILE is.")
@file_options
@common_options
def verify(
    context: CliContext,
    /,
    *,
    file: Path,
    at: str | None,
    nonce: str | None,
    offline: bool,  # noqa: ARG001 - every verification is offline
    kind: str | None,
    **files: Any,
) -> None:
    """Run every check on a bundle, or on raw evidence."""
    from kbs.cli.appraisal import Verification

    verification = Verification(at=time_of(at), files=_given(files), nonce=nonce)
    result = verification.run_file(file, kind)
    emit(context, result.to_json(), lambda: print_result(result))
    click.get_current_context().exit(result.exit_code)


@evidence.command()
@click.argument("file", type=_FILE)
@click.option("--kind", type=click.Choice(_INSPECTED), help="What FILE is.")
@file_options
@common_options
def inspect(
    context: CliContext, /, *, file: Path, kind: str | None, **files: Any
) -> None:
    """Show every field of a bundle or a raw file; nothing is verified."""
    from kbs.cli.inspection import inspect_file

    document = inspect_file(file, kind, _given(files))
    emit(context, document, lambda: print_fields(document))
    items = document["items"]
    faulty = isinstance(items, list) and any("error" in item for item in items)
    click.get_current_context().exit(EXIT_USAGE if faulty else EXIT_DONE)


def time_of(text: str | None, what: str = "--at") -> datetime:
    """Return the time that an option names, or the current one.

    Raises:
        MalformedError: it is no time.
    """
    return SystemClock().now() if text is None else parse_time(text, what)


def print_result(result: Result) -> None:
    """Print verdict, checks and claims for people."""
    from kbs.cli.render import table

    click.echo(f"verdict: {result.verdict.value}")
    table(
        ("item", "check", "status", "detail"),
        [(one.item, one.id, one.status, one.detail) for one in result.checks],
    )
    for check in result.checks:
        compared = {"got": check.got, "expected": check.expected}
        known = {name: text for name, text in compared.items() if text is not None}
        if known:
            print_fields({check.id: known})
    if result.shown:
        print_fields(dict(result.shown))
    claims = result.to_json()["claims"]
    if claims:
        click.echo("claims:")
        print_fields(claims, "  ")


def print_fields(value: object, indent: str = "") -> None:
    """Print nested fields, one a line."""
    for line in field_lines(value, indent):
        click.echo(line)


def field_lines(value: object, indent: str = "") -> Iterator[str]:
    """Yield nested fields, one a line, safe for a terminal.

    Raises:
        MalformedError: it is no object.
    """
    from kbs.cli.render import escaped

    if not isinstance(value, dict):
        raise MalformedError("fields", got=type(value).__name__, expected="an object")
    for name, member in value.items():
        label = f"{indent}{escaped(str(name))}"
        if isinstance(member, dict) and member:
            yield f"{label}:"
            yield from field_lines(member, indent + "  ")
        elif isinstance(member, list) and any(isinstance(one, dict) for one in member):
            for index, one in enumerate(member):
                yield f"{label}[{index}]:"
                inner = one if isinstance(one, dict) else {"": one}
                yield from field_lines(inner, indent + "  ")
        else:
            yield f"{label}: {plain(member)}"


def plain(value: object) -> str:
    """Return a value in words, safe for a terminal."""
    from kbs.cli.render import escaped

    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(plain(one) for one in value) or "none"
    return escaped(str(value)) if value != {} else "none"


def _given(files: dict[str, Any]) -> GivenFiles:
    from kbs.cli.given_files import GivenFiles

    return GivenFiles(
        certificates=files["cert"],
        revocation_lists=files["crl"],
        collateral=files["collateral"],
        rims=files["rim"],
        event_log=files["event_log"],
        signature=files["signature"],
        pcrs=files["pcrs"],
        ak=files["ak"],
    )
