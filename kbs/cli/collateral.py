"""`kbs collateral`: what vendors publish about their certificates; brings no trust."""

from __future__ import annotations

from pathlib import Path

import click

from kbs.cli.context import CliContext, common_options, emit
from kbs.core.errors import MalformedError

_MAX_FILE = 4 * 1024 * 1024
# What the broker takes in one request.
_MAX_ITEMS = 256


@click.group()
def collateral() -> None:
    """List and import vendor certificates, revocation lists and OCSP answers."""


@collateral.command("list")
@common_options
def list_collateral(context: CliContext) -> None:
    """List what the broker has."""
    from kbs.cli.admin_client import AdminClient
    from kbs.cli.render import table

    with AdminClient.from_context(context) as client:
        answer = client.get("/admin/v1/collateral")
    listed = answer.get("collateral")
    found = listed if isinstance(listed, list) else []
    rows = [one for one in found if isinstance(one, dict)]
    columns = ("kind", "subject", "issuer", "not_before", "not_after", "sha256")
    emit(
        context,
        answer,
        lambda: table(columns, [[row.get(name) for name in columns] for row in rows]),
    )


@collateral.command("import")
@click.argument(
    "files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE…"
)
@common_options
def import_files(context: CliContext, *, files: tuple[Path, ...]) -> None:
    """Bring in certificates and revocation lists, PEM or DER; OCSP answers, DER."""
    from kbs.cli.admin_client import AdminClient
    from kbs.cli.inputs import read_input
    from kbs.cli.x509_files import load_collateral, ocsp_answer_in
    from kbs.core.encode import b64
    from kbs.pki.certificates import der

    items: dict[str, None] = {}
    for file in files:
        data = read_input(file, "collateral", limit=_MAX_FILE)
        if ocsp_answer_in(data) is not None:
            items[b64(data)] = None
            continue
        given = load_collateral(data, f"collateral {file}")
        items.update((b64(der(one)), None) for one in given.given_certificates)
        items.update((b64(der(one)), None) for one in given.given_revocation_lists)
    if len(items) > _MAX_ITEMS:
        raise MalformedError(
            "collateral", got=f"{len(items)} items", expected=f"at most {_MAX_ITEMS}"
        )
    with AdminClient.from_context(context) as client:
        answer = client.post("/admin/v1/collateral", {"items": list(items)})
    emit(
        context,
        answer,
        lambda: click.echo(
            f"{answer.get('read')} certificates, lists and answers read, "
            f"{answer.get('added')} of them new"
        ),
    )
