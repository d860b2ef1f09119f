"""`kbs audit`: query the log, explain a decision, prove an entry, verify everything."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kbs.cli.context import (
    EXIT_DONE,
    EXIT_REFUSED,
    CliContext,
    common_options,
    emit,
    one_line,
)
from kbs.core.errors import MalformedError
from kbs.core.ids import parse_hex32

if TYPE_CHECKING:
    from kbs.cli.admin_client import AdminClient
    from kbs.cli.audit_export import Verified
    from kbs.cli.audit_receipt import Proven

_FILE = click.Path(path_type=Path)
_ID = click.argument("entry_id", metavar="ID")
_ENTRIES = "/admin/v1/audit/entries"
_POLL_SECONDS = 1.0
_PAGE = 100


@click.group()
def audit() -> None:
    """Query, explain, prove, export and verify the audit log."""


@audit.command()
@click.option("--key", metavar="ID", help="Entries that name this key.")
@click.option("--decision", metavar="ID|granted|denied")
@click.option("--kind", metavar="KIND", help="For example release.denied, statement.")
@click.option("--policy", metavar="NAME")
@click.option("--since", metavar="TIME", help="RFC 3339 in UTC, inclusive.")
@click.option("--until", metavar="TIME", help="RFC 3339 in UTC, exclusive.")
@click.option(
    "--limit", type=click.IntRange(1, 1000), default=50, show_default=True, metavar="N"
)
@click.option("--tail", is_flag=True, help="Go on with new entries until Ctrl-C.")
@common_options
def query(
    context: CliContext, /, *, limit: int, tail: bool, **wanted: str | None
) -> None:
    """List the newest entries that match, oldest first."""
    from kbs.cli.admin_client import AdminClient
    from kbs.cli.seen_log import follow_log

    _require_decision(wanted.get("decision"))
    with AdminClient.from_context(context) as client:
        params = {**wanted, "newest": "true", "limit": limit}
        answer = client.get(_ENTRIES, params)
        follow_log(client)
        entries = _entries(answer)
        if tail:
            _tail(context, client, wanted, entries)
            return
    emit(context, {**answer, "entries": entries}, lambda: _print_entries(entries))


@audit.command()
@_ID
@common_options
def show(context: CliContext, *, entry_id: str) -> None:
    """Show one entry, by its id, its decision's, or that of a counted refusal."""
    from kbs.cli.evidence import print_fields

    answer = _read_entry(context, entry_id)
    emit(context, answer, lambda: print_fields(answer))


@audit.command()
@_ID
@common_options
def explain(context: CliContext, *, entry_id: str) -> None:
    """Say what was asked, what was decided, and why."""
    from kbs.cli.audit_words import explained, lines_of

    document = explained(_read_entry(context, entry_id))

    def human() -> None:
        for line in lines_of(document):
            click.echo(line)

    emit(context, document, human)


@audit.command()
@_ID
@click.option("--out", type=_FILE, metavar="FILE", help="Write the receipt there.")
@common_options
def prove(context: CliContext, *, entry_id: str, out: Path | None) -> None:
    """Get the receipt of one entry and verify it; it holds without the broker."""
    from kbs.artifacts.files import replacing
    from kbs.audit.receipt import read_receipt
    from kbs.cli.admin_client import AdminClient
    from kbs.cli.audit_receipt import prove_receipt
    from kbs.cli.profile import SECRET_MODE
    from kbs.cli.seen_log import follow_log

    wanted = parse_hex32(entry_id, "entry id")
    with AdminClient.from_context(context) as client:
        answer = client.get(f"{_ENTRIES}/{wanted}/proof")
        follow_log(client)
        key = client.profile.log_key
    receipt = read_receipt(answer)
    proven = prove_receipt(receipt, (key,))
    if out is not None:
        with replacing(out, mode=SECRET_MODE) as file:
            file.write(receipt.serialize() + b"\n")

    where = "" if out is None else f", written to {one_line(str(out))}"
    emit(context, answer, lambda: _print_proven(proven, where))


@audit.command()
@click.argument("file", type=_FILE, metavar="FILE|-")
@common_options
def export(context: CliContext, *, file: Path) -> None:
    """Write the whole log as JSON lines, to FILE or to standard output."""
    from kbs.cli.admin_client import AdminClient
    from kbs.cli.audit_export import write_export_file, write_export_stream
    from kbs.cli.seen_log import follow_log

    if str(file) == "-":
        _require_own_output(context)
        with AdminClient.from_context(context) as client:
            write_export_stream(client, sys.stdout.buffer)
            follow_log(client)
        return
    with AdminClient.from_context(context) as client:
        size, lines = write_export_file(client, file)
        follow_log(client)
    emit(
        context,
        {"file": str(file), "bytes": size, "entries": max(0, lines - 2)},
        lambda: click.echo(
            f"{one_line(str(file))}: {max(0, lines - 2)} entries; check it: "
            f"kbs audit verify {one_line(str(file))}"
        ),
    )


@audit.command()
@click.argument("file", type=_FILE, required=False, metavar="[EXPORT|RECEIPT]")
@click.option("--log-key", metavar="VKEY", help="Trust this key, not the profile's.")
@common_options
def verify(context: CliContext, *, file: Path | None, log_key: str | None) -> None:
    """Verify every byte of an export, or of what the broker exports now.

    A receipt that was kept is verified as well, alone.
    """
    from kbs.cli.admin_client import AdminClient
    from kbs.cli.audit_export import trusted_keys, verify_file, verify_stream
    from kbs.cli.audit_receipt import find_receipt, prove_receipt
    from kbs.cli.seen_log import follow_log

    receipt = None if file is None else find_receipt(file)
    if receipt is not None:
        proven = prove_receipt(receipt, trusted_keys(context.profile, log_key)[0])
        emit(context, proven.to_json(), lambda: _print_proven(proven))
        return
    if file is not None:
        result = verify_file(file, context.profile, log_key)
    elif log_key is not None:
        raise MalformedError("--log-key", got="no EXPORT", expected="one", code="usage")
    else:
        with AdminClient.from_context(context) as client:
            result = verify_stream(client)
            if result.report.holds:
                follow_log(client)
    emit(context, result.to_json(), lambda: _print_verified(result))
    holds = result.report.holds
    click.get_current_context().exit(EXIT_DONE if holds else EXIT_REFUSED)


def _require_own_output(context: CliContext) -> None:
    if context.json:
        raise MalformedError(
            "--json",
            got="the export on standard output too",
            expected="one of the two there",
            hint="name a file, or leave out --json",
            code="usage",
        )


def _require_decision(text: str | None) -> None:
    if text in {None, "granted", "denied"}:
        return
    try:
        parse_hex32(text, "--decision")
    except MalformedError as exc:
        raise MalformedError(
            "--decision",
            got=repr(text)[:40],
            expected="granted, denied, or the ID of a decision (32 hex digits)",
        ) from exc


def _read_entry(context: CliContext, entry_id: str) -> dict[str, object]:
    from kbs.cli.admin_client import AdminClient
    from kbs.cli.seen_log import follow_log

    wanted = parse_hex32(entry_id, "entry id")
    with AdminClient.from_context(context) as client:
        answer = client.get(f"{_ENTRIES}/{wanted}")
        follow_log(client)
    return answer


def _tail(
    context: CliContext,
    client: AdminClient,
    wanted: Mapping[str, str | None],
    entries: list[dict[str, object]],
) -> None:
    from kbs.cli.audit_words import row_of
    from kbs.cli.render import print_json
    from kbs.cli.seen_log import follow_log

    after = -1
    try:
        while True:
            for entry in entries:
                if context.json:
                    # A stream has no end to close a list with: one document a line.
                    print_json(entry)
                else:
                    click.echo("  ".join(one_line(str(cell)) for cell in row_of(entry)))
            after = max([after, *(_index(entry) for entry in entries)])
            time.sleep(_POLL_SECONDS)
            # Without any entry so far, nothing is before the first one to come.
            params = {**wanted, "after": None if after < 0 else after, "limit": _PAGE}
            entries = _entries(client.get(_ENTRIES, params))
            if entries:
                follow_log(client)
    except KeyboardInterrupt:
        return


def _entries(answer: Mapping[str, object]) -> list[dict[str, object]]:
    listed = answer.get("entries")
    found = listed if isinstance(listed, list) else []
    return [one for one in found if isinstance(one, dict)]


def _index(entry: Mapping[str, object]) -> int:
    index = entry.get("index")
    return index if isinstance(index, int) else -1


def _print_entries(entries: list[dict[str, object]]) -> None:
    from kbs.cli.audit_words import COLUMNS, row_of
    from kbs.cli.render import table

    table(COLUMNS, [row_of(entry) for entry in entries])


def _print_proven(proven: Proven, where: str = "") -> None:
    click.echo(one_line(proven.line()))
    click.echo(f"the receipt holds under {proven.receipt.key.vkey}{where}")


def _print_verified(result: Verified) -> None:
    report = result.report
    for problem in report.problems:
        click.echo(f"error: {one_line(str(problem))}", err=True)
    for note in result.notes:
        click.echo(f"note: {one_line(note)}")
    root = "-" if report.root is None else report.root.hex()
    word = "consistent" if report.holds else "NOT consistent"
    click.echo(
        f"{one_line(report.origin)}: {report.entries} entries, {word}, root {root}"
    )
