"""`kbs ref add`: an attestation key, a CA, a token issuer, reference values."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from kbs.cli.context import CliContext, common_options, emit, one_line
from kbs.core.errors import MalformedError
from kbs.core.ids import ScopedName, parse_hex32, parse_scoped_name

if TYPE_CHECKING:
    from kbs.cli.admin_client import AdminClient
    from kbs.cli.governed import Listed
    from kbs.cli.reference_values import Edit
    from kbs.governance.objects import ReferenceSet
    from kbs.governance.statement import Kind

_FILE = click.Path(path_type=Path)
_NAME = click.argument("name", metavar="TENANT/NAME")
_MAX_PUBLIC = 4096


@click.group()
def add() -> None:
    """Put a reference in force."""


@add.command("ak")
@click.argument("group", metavar="[TENANT/GROUP]", required=False)
@click.option("--pending", metavar="ID", help="An enrolment that a guest proved.")
@click.option("--public", type=_FILE, help="TPM2B_PUBLIC, by hand.")
@click.option("--name", "given", metavar="NAME", help="The object's name.")
@common_options
def add_ak(
    context: CliContext,
    *,
    group: str | None,
    pending: str | None,
    public: Path | None,
    given: str | None,
) -> None:
    """Trust an attestation key: an enrolment, or by hand a public key."""
    from kbs.cli import enrolment
    from kbs.cli.admin_client import AdminClient
    from kbs.cli.inputs import read_input
    from kbs.governance.statement import Kind

    by_hand = group is not None and public is not None
    if by_hand == (pending is not None) or (pending and (group or public)):
        raise MalformedError(
            "ref add ak",
            got="another combination",
            expected="--pending ID, or TENANT/GROUP --public FILE",
            code="usage",
        )
    with AdminClient.from_context(context) as client:
        if pending is not None:
            wanted = parse_hex32(pending, "--pending")
            tenant, found = enrolment.accepted(
                client.get(f"/admin/v1/enrolments/{wanted}")
            )
        else:
            scoped = parse_scoped_name(group, "group")
            data = read_input(public or Path(), "--public", limit=_MAX_PUBLIC)
            tenant, found = scoped.tenant, enrolment.by_hand(scoped.name, data)
        subject = ScopedName(tenant, given or enrolment.object_name(found))
        _put_in_force(context, client, Kind.AK, subject, found.canonical())


@add.command("ca")
@_NAME
@click.argument("file", type=_FILE)
@click.option("--purpose", type=click.Choice(["ek", "ak", "token"]), required=True)
@common_options
def add_ca(context: CliContext, *, name: str, file: Path, purpose: str) -> None:
    """Register a CA (one certificate, PEM or DER) for one purpose."""
    from kbs.cli.admin_client import AdminClient
    from kbs.cli.inputs import read_input
    from kbs.cli.x509_files import certificates_in
    from kbs.core.encode import b64
    from kbs.governance.objects import parse_ca
    from kbs.governance.statement import Kind
    from kbs.pki.certificates import der

    subject = parse_scoped_name(name)
    certificates = certificates_in(read_input(file, "CA"), f"CA {file}", most=1)
    found = parse_ca({"purpose": purpose, "certificate": b64(der(certificates[0]))})
    with AdminClient.from_context(context) as client:
        _put_in_force(context, client, Kind.CA, subject, found.canonical())


@add.command("issuer")
@_NAME
@click.option(
    "--service",
    type=click.Choice(["maa", "ita", "nras", "gcs", "ear", "cca"]),
    required=True,
    help="Whose tokens they are.",
)
@click.option("--issuer", metavar="ISS", help="What its tokens say in `iss`.")
@click.option("--audience", metavar="AUD", help="What they say in `aud`.")
@click.option("--keys", multiple=True, type=_FILE, help="Its keys: JWK set, or JWK.")
@click.option("--root", multiple=True, type=_FILE, help="Root of PKI tokens (gcs).")
@common_options
def add_issuer(
    context: CliContext,
    *,
    name: str,
    service: str,
    issuer: str | None,
    audience: str | None,
    keys: tuple[Path, ...],
    root: tuple[Path, ...],
) -> None:
    """Trust tokens of a service, or of Arm CCA platforms, by their keys."""
    from kbs.cli.admin_client import AdminClient
    from kbs.cli.issuer_files import issuer_document
    from kbs.governance.statement import Kind
    from kbs.governance.token_issuer import parse_token_issuer

    subject = parse_scoped_name(name)
    document = issuer_document(
        service, issuer=issuer, audience=audience, keys=keys, roots=root
    )
    found = parse_token_issuer(document)
    with AdminClient.from_context(context) as client:
        _put_in_force(context, client, Kind.TOKEN_ISSUER, subject, found.canonical())


@add.command("values")
@_NAME
@click.argument("values", nargs=-1, metavar="VALUE…")
@click.option("--file", type=_FILE, help="One value a line.")
@click.option("--expires", metavar="TIME", help="RFC 3339 in UTC.")
@click.option("--replace", is_flag=True, help="Drop the values in force.")
@click.option("--integers", is_flag=True, help="The values are integers.")
@common_options
def add_values(
    context: CliContext,
    *,
    name: str,
    values: tuple[str, ...],
    file: Path | None,
    expires: str | None,
    replace: bool,
    integers: bool,
) -> None:
    """Add reference values to a set, written as claims are."""
    from kbs.cli import reference_values

    given = reference_values.read(values, file, integers=integers)

    def edit(current: ReferenceSet | None) -> ReferenceSet:
        return reference_values.joined(None if replace else current, given, expires)

    change_values(context, parse_scoped_name(name), edit)


def change_values(context: CliContext, subject: ScopedName, edit: Edit) -> None:
    """Put in force what `edit` makes of the set in force, and say so."""
    from kbs.cli import reference_values
    from kbs.cli.admin_client import AdminClient
    from kbs.core.clock import SystemClock

    with AdminClient.from_context(context) as client:
        done = reference_values.change_values(client, subject, edit)
    notes = reference_values.notes(done.made, SystemClock().now())
    _emit_added(context, done.stored, [*done.warnings, *notes], done.statement)


def _put_in_force(
    context: CliContext,
    client: AdminClient,
    kind: Kind,
    subject: ScopedName,
    content: bytes,
) -> None:
    from kbs.cli.governed import put, register
    from kbs.governance.contents import digest_of
    from kbs.governance.statement import Action

    stored, warnings = register(
        client, kind, subject, source=content, digest=digest_of(content)
    )
    _emit_added(context, stored, warnings, put(client, Action.ADD, stored))


def _emit_added(
    context: CliContext,
    stored: Listed,
    warnings: list[str],
    statement: dict[str, object],
) -> None:
    document = {
        **stored.to_json(),
        "active": True,
        "warnings": warnings,
        "statement": statement,
    }
    emit(context, document, lambda: _print_added(stored, warnings))


def _print_added(stored: Listed, warnings: list[str]) -> None:
    for warning in warnings:
        click.echo(f"warning: {one_line(warning)}")
    click.echo(
        f"{stored.kind} {stored.subject} version {stored.version} is in force: "
        f"digest {stored.digest}"
    )
