"""`kbs ref`: what policies and evidence rest on: values, AKs, CAs, token issuers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from kbs.cli.context import CliContext, common_options, emit, one_line
from kbs.cli.ref_add import add, change_values
from kbs.core.errors import MalformedError
from kbs.core.ids import parse_hex32, parse_scoped_name

if TYPE_CHECKING:
    from kbs.governance.objects import ReferenceSet
    from kbs.governance.statement import Kind

_FILE = click.Path(path_type=Path)
_NAME = click.argument("name", metavar="TENANT/NAME")
_WORDS = ("ak", "ca", "values", "issuer")
_KIND = click.argument("kind", type=click.Choice(_WORDS))


@click.group()
def ref() -> None:
    """Add, list, expire and remove what policies refer to."""


ref.add_command(add)


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

    change_values(context, subject, edit)


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
