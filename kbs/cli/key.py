"""`kbs key`: keys at the broker. Secrets go in, and come out to workloads only."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kbs.cli.context import CliContext, common_options, emit, one_line
from kbs.core.errors import MalformedError
from kbs.core.ids import parse_key_id

if TYPE_CHECKING:
    from collections.abc import Mapping

# `kbs.keys.material`: the largest secret; the guests' side may not import that package.
MAX_SECRET_BYTES = 64 * 1024

_KINDS = ("opaque", "aes256", "hpke", "jwk", "passphrase")
_KIND = click.option(
    "--kind", type=click.Choice(_KINDS), default="opaque", show_default=True
)
_ID = click.argument("key_id", metavar="ID")
_VERSION = click.option("--version", type=click.IntRange(1), required=True, metavar="N")


@click.group()
def key() -> None:
    """Create, import, rotate, retire and destroy keys."""


@key.command()
@_ID
@_KIND
@common_options
def create(context: CliContext, *, key_id: str, kind: str) -> None:
    """Have the broker make a key; it never leaves but to a workload."""
    from kbs.cli.admin_client import AdminClient

    wanted = str(parse_key_id(key_id))
    with AdminClient.from_context(context) as client:
        made = client.create_key(wanted, kind)
    _emit_version(context, made, "created")


@key.command("import")
@_ID
@click.argument("source", metavar="FILE|-")
@_KIND
@common_options
def import_(context: CliContext, *, key_id: str, source: str, kind: str) -> None:
    """Make a key of the exact bytes of FILE, or of standard input."""
    from kbs.cli.admin_client import AdminClient

    wanted = str(parse_key_id(key_id))
    value = read_secret(source)
    with AdminClient.from_context(context) as client:
        made = client.create_key(wanted, kind, value)
    _emit_version(context, made, "imported")


@key.command()
@_ID
@click.argument("source", metavar="[FILE|-]", required=False)
@common_options
def rotate(context: CliContext, *, key_id: str, source: str | None) -> None:
    """Give a key its next version: made by the broker, or the given bytes."""
    from kbs.cli.admin_client import AdminClient

    wanted = str(parse_key_id(key_id))
    value = None if source is None else read_secret(source)
    with AdminClient.from_context(context) as client:
        made = client.rotate_key(wanted, value)
    _emit_version(context, made, "rotated")


@key.command()
@_ID
@_VERSION
@common_options
def retire(context: CliContext, *, key_id: str, version: int) -> None:
    """Retire a version: it opens old data, and is not given out unnamed."""
    _change(context, key_id, "retire", version, "retired")


@key.command()
@_ID
@_VERSION
@click.option("--yes", is_flag=True, help="Do not ask.")
@common_options
def destroy(context: CliContext, *, key_id: str, version: int, yes: bool) -> None:
    """Erase a version for ever; what is sealed under it is lost."""
    if not yes:
        if not sys.stdin.isatty():
            raise MalformedError(
                "key destroy",
                got="no --yes, and nobody to ask",
                expected="--yes",
                code="usage",
            )
        question = f"Erase {one_line(key_id)} version {version} for ever?"
        click.confirm(question, abort=True, err=True)
    _change(context, key_id, "destroy", version, "destroyed")


@key.command("list")
@click.option("--tenant", metavar="TENANT")
@common_options
def list_keys(context: CliContext, *, tenant: str | None) -> None:
    """List keys, their kinds and the state of their newest version."""
    from kbs.cli.admin_client import AdminClient
    from kbs.cli.render import table

    with AdminClient.from_context(context) as client:
        answer = client.get("/admin/v1/keys")
    found = [
        one
        for one in _mappings(answer.get("keys"))
        if tenant in (None, str(one.get("id")).partition("/")[0])
    ]
    rows = []
    for one in found:
        newest = (_mappings(one.get("versions")) or [{}])[-1]
        rows.append(
            (
                one.get("id"),
                one.get("kind"),
                newest.get("version"),
                newest.get("state"),
                newest.get("origin"),
                newest.get("changed"),
            )
        )
    columns = ("key", "kind", "version", "state", "origin", "changed")
    emit(context, {"keys": found}, lambda: table(columns, rows))


@key.command()
@_ID
@common_options
def show(context: CliContext, *, key_id: str) -> None:
    """Show every version of a key; never the secret."""
    from kbs.cli.admin_client import AdminClient
    from kbs.cli.evidence import print_fields
    from kbs.cli.render import table

    wanted = parse_key_id(key_id)
    with AdminClient.from_context(context) as client:
        answer = client.get(f"/admin/v1/keys/{wanted}")
    columns = ("version", "state", "origin", "created", "changed")

    def human() -> None:
        click.echo(f"{wanted}, {one_line(str(answer.get('kind')))}")
        versions = _mappings(answer.get("versions"))
        table(columns, [[one.get(name) for name in columns] for one in versions])
        if "public" in answer:
            print_fields({"public": answer["public"]})

    emit(context, answer, human)


@key.command()
@_ID
@common_options
def explain(context: CliContext, *, key_id: str) -> None:
    """Say which policies govern a key, what they ask, and what stands against it."""
    from kbs.cli.admin_client import AdminClient

    wanted = parse_key_id(key_id)
    with AdminClient.from_context(context) as client:
        answer = client.get(f"/admin/v1/keys/{wanted}/explain")
    emit(context, answer, lambda: _print_explained(answer))


def read_secret(source: str) -> bytes:
    """Return the exact bytes of a file, or of standard input for `-`.

    Raises:
        MalformedError: there are none, or more than a key has.
    """
    from kbs.cli.inputs import read_input

    if source == "-":
        data = sys.stdin.buffer.read(MAX_SECRET_BYTES + 1)
    else:
        data = read_input(Path(source), "key file", limit=MAX_SECRET_BYTES)
    if not 0 < len(data) <= MAX_SECRET_BYTES:
        raise MalformedError(
            "key on standard input" if source == "-" else f"key file {source}",
            got="nothing" if not data else "more bytes",
            expected=f"1 to {MAX_SECRET_BYTES} bytes",
        )
    return data


def _change(
    context: CliContext, key_id: str, action: str, version: int, word: str
) -> None:
    from kbs.cli.admin_client import AdminClient

    wanted = parse_key_id(key_id)
    with AdminClient.from_context(context) as client:
        made = client.post(f"/admin/v1/keys/{wanted}/{action}", {"version": version})
    _emit_version(context, made, word)


def _emit_version(context: CliContext, made: Mapping[str, object], word: str) -> None:
    emit(
        context,
        made,
        lambda: click.echo(
            one_line(
                f"{made.get('id')} version {made.get('version')} {word}: "
                f"{made.get('kind')}, {made.get('origin')}, {made.get('state')}"
            )
        ),
    )


def _print_explained(answer: Mapping[str, object]) -> None:
    from kbs.cli.evidence import print_fields

    click.echo(one_line(f"{answer.get('key')}: {answer.get('summary')}"))
    if answer.get("exists") is False:
        click.echo("the key does not exist")
    for entry in _mappings(answer.get("denied_by")):
        click.echo(one_line(f"denied by {entry.get('name')}: {entry.get('reason')}"))
    for policy in _mappings(answer.get("policies")):
        click.echo(
            one_line(
                f"policy {policy.get('name')} version {policy.get('version')} "
                f"({str(policy.get('digest'))[:16]}…)"
            )
        )
        print_fields({"accepts": policy.get("accept")}, "  ")
        for rule in _mappings(policy.get("rules")):
            _print_rule(rule)


def _print_rule(rule: Mapping[str, object]) -> None:
    import yaml

    # ASCII with escapes: what a terminal would obey stays text.
    text = yaml.safe_dump(dict(rule), sort_keys=False, allow_unicode=False)
    for line in text.splitlines():
        click.echo(f"    {line}")


def _mappings(value: object) -> list[dict[str, object]]:
    if not isinstance(value, list):
        return []
    return [one for one in value if isinstance(one, dict)]
