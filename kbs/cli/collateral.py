"""`kbs collateral`: what vendors publish to check evidence by; it brings no trust."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kbs.cli.context import CliContext, common_options, emit
from kbs.cli.vendor_options import OFFLINE, SERVICES, services_of
from kbs.core.errors import MalformedError

if TYPE_CHECKING:
    from kbs.cli.admin_client import AdminClient

_MAX_FILE = 4 * 1024 * 1024
# More are no collateral of one site.
_MAX_ITEMS = 4096
_MINUTE, _HOUR, _DAY = 60, 3600, 86400


@click.group()
def collateral() -> None:
    """List, fetch, import and export what vendors publish to check evidence by."""


@collateral.command("list")
@common_options
def list_collateral(context: CliContext) -> None:
    """List what the broker has, how old it is and where its vendor publishes it."""
    from kbs.cli.admin_client import AdminClient
    from kbs.cli.render import table
    from kbs.core.clock import SystemClock

    with AdminClient.from_context(context) as client:
        answer = client.get("/admin/v1/collateral")
    now = SystemClock().now()
    rows = [{**one, "age": _age(one, now)} for one in _listed(answer)]
    columns = (
        "kind",
        "subject",
        "issuer",
        "not_before",
        "not_after",
        "age",
        "source",
        "sha256",
    )
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
    """Bring in certificates, CRLs, OCSP answers, Intel's JSON, and exported files."""
    from kbs.cli.admin_client import AdminClient

    items = list(dict.fromkeys(one for file in files for one in _items_in(file)))
    if len(items) > _MAX_ITEMS:
        raise MalformedError(
            "collateral", got=f"{len(items)} items", expected=f"at most {_MAX_ITEMS}"
        )
    _check(items)
    with AdminClient.from_context(context) as client:
        answer = _import(client, items)
    emit(context, answer, lambda: click.echo(_kept(answer)))


@collateral.command("export")
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE")
@common_options
def export_file(context: CliContext, *, file: Path) -> None:
    """Write everything that the broker has into one file, for another site."""
    from kbs.cli.admin_client import AdminClient
    from kbs.cli.collateral_file import write_items
    from kbs.core.clock import SystemClock

    with AdminClient.from_context(context) as client:
        digests = [
            str(one["sha256"]) for one in _listed(client.get("/admin/v1/collateral"))
        ]
        items = [client.get(f"/admin/v1/collateral/{digest}") for digest in digests]
    write_items(file, items, SystemClock().now())
    emit(
        context,
        {"file": str(file), "items": len(items)},
        lambda: click.echo(f"{len(items)} items in {file}"),
    )


@collateral.command("fetch")
@click.argument("what", nargs=-1, metavar="[WHAT…]")
@click.option(
    "--status-of",
    "chains",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A chain of NVIDIA's (PEM): the OCSP status of its authorities.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write a file for `import` elsewhere; no broker is asked.",
)
@SERVICES
@OFFLINE
@common_options
def fetch(
    context: CliContext,
    *,
    what: tuple[str, ...],
    chains: tuple[Path, ...],
    out: Path | None,
    services: tuple[str, ...],
    offline: bool,
) -> None:
    """Fetch from vendors, prove what comes, and give it to the broker.

    WHAT is a URL as checks and `list` name it; a product line of AMD's (Milan, Genoa,
    Turin): its issuers and its revocation list; `intel`: identities and lists; an
    FMSPC of Intel's: its TCB infos; or the id of a RIM of NVIDIA's. What fails is said,
    keeps nothing, and leaves the rest as it is.
    """
    from kbs.cli.collateral_fetch import fetch_all, wanted

    sources, known = wanted(what, chains)
    found = fetch_all(sources, services_of(services), offline=offline, known=known)
    document: dict[str, object] = {
        "fetched": [one.to_json() for one in found.fetched],
        "failed": [one.to_json() for one in found.failed],
    }
    if out is not None:
        _write(out, found.described())
    elif found.fetched:
        from kbs.cli.admin_client import AdminClient

        with AdminClient.from_context(context) as client:
            document |= _import(client, found.items())

    def human() -> None:
        for one in found.fetched:
            click.echo(f"{one.source.url}: {len(one.items)} items")
        if out is None and found.fetched:
            click.echo(_kept(document))

    emit(context, document, human)
    for failure in found.failed:
        click.echo(f"error: {failure.error}", err=True)
    if found.failed:
        from kbs.cli.context import exit_code

        click.get_current_context().exit(exit_code(found.failed[0].error))


def _write(out: Path, items: Iterable[dict[str, object]]) -> None:
    from kbs.cli.collateral_file import write_items
    from kbs.core.clock import SystemClock

    write_items(out, items, SystemClock().now())


def _items_in(file: Path) -> Iterable[bytes]:
    from kbs.cli.collateral_file import MAX_FILE, is_collateral_file, read_items
    from kbs.cli.inputs import read_input
    from kbs.cli.x509_files import load_collateral, ocsp_answer_in
    from kbs.pki.certificates import der

    what = f"collateral {file}"
    data = read_input(file, "collateral", limit=MAX_FILE)
    if is_collateral_file(data):
        return read_items(data, what)
    if len(data) > _MAX_FILE:
        raise MalformedError(
            what, got=f"{len(data)} bytes", expected=f"at most {_MAX_FILE}"
        )
    if ocsp_answer_in(data) is not None:
        return [data]
    given = load_collateral(data, what)
    return [
        *(der(one) for one in given.given_certificates),
        *(der(one) for one in given.given_revocation_lists),
        *(one.data for one in given.given_documents),
    ]


def _check(items: Sequence[bytes]) -> None:
    """Return if the broker will take every one: all are kept, or none.

    It takes a request whole or not at all, and many items need several requests.
    """
    from kbs.broker.collateral_items import rows_of
    from kbs.core.clock import SystemClock

    now = SystemClock().now()
    for place, one in enumerate(items, 1):
        try:
            rows_of(one, place, now)
        except MalformedError as exc:
            raise MalformedError(
                f"collateral item {place} of {len(items)}",
                got=str(exc),
                expected="what vendors publish",
                hint="nothing was imported",
            ) from exc


def _import(client: AdminClient, items: Iterable[bytes]) -> dict[str, object]:
    from kbs.cli.collateral_file import batches

    read = added = 0
    entry: object = None
    for batch in batches(items):
        answer = client.post("/admin/v1/collateral", {"items": batch})
        read += _number(answer, "read")
        added += _number(answer, "added")
        entry = answer.get("entry")
    return {"read": read, "added": added, "entry": entry}


def _number(answer: dict[str, object], name: str) -> int:
    value = answer.get(name)
    return value if isinstance(value, int) else 0


def _kept(answer: dict[str, object]) -> str:
    return f"{answer.get('read')} items read, {answer.get('added')} of them new"


def _listed(answer: dict[str, object]) -> list[dict[str, object]]:
    listed = answer.get("collateral")
    found = listed if isinstance(listed, list) else []
    return [one for one in found if isinstance(one, dict)]


def _age(row: dict[str, object], now: datetime) -> str | None:
    from kbs.core.clock import parse_time

    try:
        seconds = (now - parse_time(row.get("imported"))).total_seconds()
    except MalformedError:
        return None
    for size, unit in ((_DAY, "d"), (_HOUR, "h"), (_MINUTE, "min")):
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return "now"
