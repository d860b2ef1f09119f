"""What a guest got: as a document, in words, and as files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from kbs.cli.guest_options import warn

if TYPE_CHECKING:
    from kbs.client.guest import Fetched


def fetched_json(fetched: Fetched) -> dict[str, object]:
    """Return what --json shows; no key is in it."""
    answer = fetched.answer
    return {
        "outcome": answer.outcome.value,
        "decision": answer.decision,
        "keys": [
            {"id": str(ref.key_id), "version": ref.version} for ref in answer.keys
        ],
        "denied": [one.to_json() for one in answer.denied],
        "receipt": fetched.receipt.to_json(),
    }


def say_fetched(fetched: Fetched, done: str) -> None:
    """Print what happened to each key (`done` to those that were granted)."""
    from kbs.client.words import explain

    for ref in fetched.answer.keys:
        click.echo(f"{ref} {done}")
    for one in fetched.answer.denied:
        click.echo(f"{one.ref} denied: {explain(one.reasons)}")
    log = fetched.receipt.to_json()
    click.echo(
        f"decision {fetched.answer.decision}, entry {log['index']} of {log['size']}"
    )


def write_fetched(out: Path, fetched: Fetched) -> dict[str, str]:
    """Write the keys and return their files by id; warn where they may reach a disk.

    Raises:
        UnavailableError: there is no room, or a folder cannot be written.
        ConfigurationError: something in the way is a link or belongs to somebody else.
    """
    from kbs.client.deliver import is_in_memory, write_keys

    paths = write_keys(out, fetched.keys)
    if not is_in_memory(out):
        warn(f"{out} is not on tmpfs: the keys may stay on a disk")
    refs = [str(key.ref.key_id) for key in fetched.keys]
    return dict(zip(refs, map(str, paths), strict=True))
