"""`kbs model`: the owner's side, sealing files and looking at sealed ones."""

from __future__ import annotations

import functools
import secrets
from pathlib import Path

import click

from kbs.artifacts.segments import KEY_SIZE
from kbs.cli.context import CliContext, common_options, emit
from kbs.cli.inputs import read_input, read_key
from kbs.core.errors import MalformedError
from kbs.core.ids import KeyRef, parse_key_ref

_FILE = click.Path(path_type=Path, dir_okay=False)

# The kind of key that the sealed format takes.
_KIND = "aes256"
# An age identity file, or a passphrase.
_MAX_SECRET = 64 * 1024


@click.group()
def model() -> None:
    """Seal model and data files, open and inspect them."""


@model.command()
@click.argument("source", type=_FILE, metavar="IN")
@click.argument("target", type=_FILE, metavar="OUT")
@click.option(
    "--key",
    "key_id",
    required=True,
    metavar="ID",
    help="repository/type/tag[@version] that the header names.",
)
@click.option("--key-file", type=_FILE, help="32 raw bytes: seal without a server.")
@click.option(
    "--new",
    is_flag=True,
    help="Make a key, and import it into the broker (a new version if it exists).",
)
@common_options
def seal(
    context: CliContext,
    *,
    source: Path,
    target: Path,
    key_id: str,
    key_file: Path | None,
    new: bool,
) -> None:
    """Seal IN into OUT under a key of the broker."""
    from kbs.artifacts.files import seal_file_under
    from kbs.cli.render import progress

    if new == (key_file is not None):
        raise MalformedError(
            "model seal",
            got="both" if new else "neither",
            expected="exactly one of --key-file and --new",
            code="usage",
        )
    ref = parse_key_ref(key_id)
    if key_file is None:
        _require_no_version(ref)
        make = functools.partial(_new_key, context, ref)
    else:
        make = functools.partial(_given_key, key_file, ref)
    with progress(f"seal {source.name}", _size_of(source)) as advance:
        header = seal_file_under(
            source, target, make, name=source.name, progress=advance
        )
    emit(
        context,
        {"out": str(target), **header.to_json()},
        lambda: click.echo(f"{target}: {header.size} bytes sealed under {header.key}"),
    )


@model.command("open")
@click.argument("source", type=_FILE, metavar="IN")
@click.argument("target", type=_FILE, metavar="OUT")
@click.option(
    "--key-file",
    type=_FILE,
    required=True,
    help="32 raw bytes, or an age identity or passphrase.",
)
@common_options
def open_sealed(
    context: CliContext, *, source: Path, target: Path, key_file: Path
) -> None:
    """Open a sealed file (kbs or age) into OUT, mode 0600."""
    from kbs.artifacts.files import open_file
    from kbs.cli.render import progress

    secret = read_input(key_file, "key file", limit=_MAX_SECRET)
    with progress(f"open {source.name}", _size_of(source)) as advance:
        size = open_file(source, target, secret, progress=advance)
    emit(
        context,
        {"out": str(target), "size": size},
        lambda: click.echo(f"{target}: {size} bytes"),
    )


@model.command()
@click.argument("file", type=_FILE)
@common_options
def inspect(context: CliContext, *, file: Path) -> None:
    """Show what a sealed file says of itself; nothing of it is verified."""
    from kbs.artifacts.files import inspect_file
    from kbs.cli.evidence import print_fields

    found = inspect_file(file)
    emit(context, found, lambda: print_fields(dict(found)))


def _size_of(path: Path) -> int:
    from kbs.artifacts.files import reading

    with reading(path) as file:
        return file.seek(0, 2)


def _require_no_version(ref: KeyRef) -> None:
    if ref.version is not None:
        raise MalformedError(
            f"key {ref}",
            got="a version",
            expected="repository/type/tag",
            hint="a new key gets its version from the broker",
        )


def _given_key(path: Path, ref: KeyRef) -> tuple[bytes, KeyRef]:
    return read_key(path, size=KEY_SIZE), ref


def _new_key(context: CliContext, ref: KeyRef) -> tuple[bytes, KeyRef]:
    """Return a fresh key that the broker has now, and the version that it is."""
    from kbs.cli.admin_client import AdminClient

    value = secrets.token_bytes(KEY_SIZE)
    with AdminClient.from_context(context) as client:
        made = client.import_key(str(ref.key_id), _KIND, value)
    return value, parse_key_ref(f"{made['id']}@{made['version']}")
