"""Collateral as one file, to carry it to a site without a network.

The form, `kbs.collateral/1`, is documented in docs/formats/collateral.md. Only `data`
counts when it is read: the rest tells people what it is, and the broker reads the
items anew. It carries no trust; each item proves itself where it is used.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path

from kbs.artifacts.files import SEALED_MODE, replacing
from kbs.core.clock import format_time
from kbs.core.encode import (
    b64,
    parse_b64,
    parse_json_object,
    require_list,
    require_members,
    require_object,
)
from kbs.core.errors import MalformedError

FORMAT = "kbs.collateral/1"
MAX_FILE = 64 * 1024 * 1024
MAX_ITEMS = 65536

_MAX_ITEM = 2 * 1024 * 1024
# What the broker takes in one request: items, and characters of base64 in all.
_BATCH_ITEMS = 256
_BATCH_TEXT = 1024 * 1024
_DESCRIPTION = frozenset(
    {
        "sha256",
        "kind",
        "subject",
        "issuer",
        "not_before",
        "not_after",
        "imported",
        "source",
    }
)


def is_collateral_file(data: bytes) -> bool:
    """Whether a file is of this form, and not a vendor's own."""
    head = data[:4096].lstrip()
    return head.startswith(b"{") and f'"{FORMAT}"'.encode() in head


def read_items(data: bytes, what: str) -> list[bytes]:
    """Return the items of a file.

    Raises:
        MalformedError: it is of another form.
    """
    document = parse_json_object(data, what, limit=MAX_FILE)
    members = require_members(document, what, required={"format", "made", "items"})
    if members["format"] != FORMAT:
        raise MalformedError(
            what, got=repr(members["format"])[:40], expected=f"format {FORMAT}"
        )
    items = require_list(members["items"], f"{what} items", limit=MAX_ITEMS)
    return [_item(one, f"{what} items[{place}]") for place, one in enumerate(items)]


def write_items(
    path: Path, items: Iterable[Mapping[str, object]], made: datetime
) -> None:
    """Write items, each with `data` in base64 and what describes it.

    Raises:
        MalformedError: the file cannot be written.
    """
    document = {"format": FORMAT, "made": format_time(made), "items": list(items)}
    with replacing(path, mode=SEALED_MODE) as file:
        file.write(json.dumps(document, indent=1).encode() + b"\n")


def described(data: bytes, source: str) -> dict[str, object]:
    """Return an item as it was fetched, for `write_items`."""
    return {"source": source, "data": b64(data)}


def batches(items: Iterable[bytes]) -> Iterator[list[str]]:
    """Yield items in base64, each once, as many together as one request takes."""
    batch: list[str] = []
    size = 0
    for text in dict.fromkeys(b64(one) for one in items):
        if batch and (len(batch) == _BATCH_ITEMS or size + len(text) > _BATCH_TEXT):
            yield batch
            batch, size = [], 0
        batch.append(text)
        size += len(text)
    if batch:
        yield batch


def _item(value: object, what: str) -> bytes:
    members = require_members(
        require_object(value, what), what, required={"data"}, optional=_DESCRIPTION
    )
    return parse_b64(members["data"], f"{what} data", limit=_MAX_ITEM)
