"""`kbs ref`: what policies and evidence rest on: values, AKs, CAs, token issuers."""

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
_WORDS = ("ak", "ca", "values", "issuer")
_KIND = click.argument("kind", type=click.Choice(_WORDS))
_MAX_PUBLIC = 4096


@click.group()
def ref() -> None:
    """Add, list, expire and remove what policies refer to."""


@ref.group()
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
        _add(context, client, Kind.AK, subject, found.canonical())


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
        _add(context, client, Kind.CA, subject, found.canonical())


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
        _add(context, client, Kind.TOKEN_ISSUER, subject, found.canonical())


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

    _change(context, parse_scoped_name(name), edit)


@ref.command("import-rim")
@click.argument("files", nargs=-1, required=True, type=_FILE, metavar="FILE…")
@click.option("--id", "rim_id", metavar="ID", help="Of one FILE; else its name.")
@common_options
def import_rim(
    context: CliContext, *, files: tuple[Path, ...], rim_id: str | None
) -> None:
    """Keep NVIDIA's reference integrity manifests; signed by NVIDIA, or refused."""
    from kbs.cli.admin_client import AdminClient
    from kbs.cli.collateral_file import batches
    from kbs.cli.rim_files import checked_rims

    found = checked_rims(files, rim_id)
    with AdminClient.from_context(context) as client:
        answers = [
            client.post("/admin/v1/collateral", {"items": batch})
            for batch in batches(one.item for one in found)
        ]
    added = sum(int(str(answer.get("added"))) for answer in answers)
    document = {
        "read": len(found),
        "added": added,
        "entries": [answer.get("entry") for answer in answers],
        "rims": [one.to_json() for one in found],
    }

    def human() -> None:
        for one in found:
            click.echo(one_line(one.line()))
        click.echo(f"{added} of them new")

    emit(context, document, human)


@ref.command()
@_NAME
@click.option("--at", metavar="TIME", required=True, help="RFC 3339 in UTC.")
@common_options
def expire(context: CliContext, *, name: str, at: str) -> None:
    """Have a set of reference values end at a time."""
    from kbs.cli import reference_values
    from kbs.core.errors import NotFoundError

    subject = parse_scoped_name(name)

    def edit(current: ReferenceSet | None) -> ReferenceSet:
        if current is None:
            raise NotFoundError(f"reference set {subject}", got="none in force")
        return reference_values.joined(current, (), at)

    _change(context, subject, edit)


@ref.command()
@_KIND
@_NAME
@common_options
def remove(context: CliContext, *, kind: str, name: str) -> None:
    """Take a reference out of force."""
    from kbs.cli.admin_client import AdminClient
    from kbs.cli.governed import take_out
    from kbs.governance.statement import Action

    subject = parse_scoped_name(name)
    with AdminClient.from_context(context) as client:
        one, document = take_out(client, Action.REMOVE, kind_of(kind), subject)
    emit(
        context,
        document,
        lambda: click.echo(f"{kind} {subject} version {one.version} is removed"),
    )


@ref.command()
@click.argument("enrolment_id", metavar="ID")
@common_options
def forget(context: CliContext, *, enrolment_id: str) -> None:
    """Forget a pending enrolment without trusting its key."""
    from kbs.cli.admin_client import AdminClient

    wanted = parse_hex32(enrolment_id, "ID")
    with AdminClient.from_context(context) as client:
        done = client.post(f"/admin/v1/enrolments/{wanted}/forget", {})
    emit(context, done, lambda: click.echo(f"enrolment {wanted} is forgotten"))


@ref.command("list")
@click.option("--pending", is_flag=True, help="Enrolments that wait for a signature.")
@click.option("--kind", type=click.Choice(_WORDS))
@common_options
def list_refs(context: CliContext, *, pending: bool, kind: str | None) -> None:
    """List references, or pending enrolments."""
    from kbs.cli.admin_client import AdminClient
    from kbs.cli.enrolment import print_pending
    from kbs.cli.governed import LISTED, list_objects
    from kbs.cli.render import table

    if pending and kind not in (None, "ak"):
        raise MalformedError(
            "--pending", got=f"--kind {kind}", expected="ak", code="usage"
        )
    with AdminClient.from_context(context) as client:
        if pending:
            answer = client.get("/admin/v1/enrolments")
            emit(context, answer, lambda: print_pending(answer))
            return
        wanted = [kind] if kind is not None else _WORDS
        found = [one for word in wanted for one in list_objects(client, kind_of(word))]
    emit(
        context,
        {"references": [one.to_json() for one in found]},
        lambda: table(LISTED, [one.row for one in found]),
    )


@ref.command()
@_KIND
@_NAME
@click.option("--version", type=click.IntRange(1), metavar="N")
@common_options
def show(context: CliContext, *, kind: str, name: str, version: int | None) -> None:
    """Show a reference: the version in force, else the newest."""
    from kbs.cli.admin_client import AdminClient
    from kbs.cli.evidence import print_fields
    from kbs.cli.governed import choose, list_objects, read_object
    from kbs.core.encode import parse_json_object
    from kbs.governance.objects import MAX_OBJECT_BYTES

    subject = parse_scoped_name(name)
    with AdminClient.from_context(context) as client:
        found = list_objects(client, kind_of(kind), subject)
        active = [one for one in found if one.active]
        one = choose(found if version or not active else active, subject, version)
        _, content = read_object(client, one)
    document = {
        **one.to_json(),
        "content": parse_json_object(content, kind, limit=MAX_OBJECT_BYTES),
    }
    emit(context, document, lambda: print_fields(document))


def kind_of(word: str) -> Kind:
    """Return the kind of governed object that a word of the command line names."""
    from kbs.governance.statement import Kind

    return {
        "ak": Kind.AK,
        "ca": Kind.CA,
        "values": Kind.REFERENCE_SET,
        "issuer": Kind.TOKEN_ISSUER,
    }[word]


def _add(
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


def _change(context: CliContext, subject: ScopedName, edit: Edit) -> None:
    from kbs.cli.admin_client import AdminClient
    from kbs.cli.reference_values import change_values, notes
    from kbs.core.clock import SystemClock

    with AdminClient.from_context(context) as client:
        done = change_values(client, subject, edit)
    warnings = [*done.warnings, *notes(done.made, SystemClock().now())]
    _emit_added(context, done.stored, warnings, done.statement)


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
