"""Verified claims written down and read back, for a decision that is made later.

The form is the broker's own, between its writing and its reading; what protects it on
the way, and whether it is whole, is not this module's business.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kbs.core.claims import SCALARS, Claims, ClaimValue, ItemClaims, plain


def write_claims(claims: Claims) -> dict[str, object]:
    """Return claims as plain JSON."""
    return {
        "items": [_write_item(item) for item in claims.items],
        "request": _write_values(claims.request),
    }


def read_claims(record: dict[str, Any]) -> Claims:
    """Return the claims that were written."""
    return Claims(
        items=tuple([_read_item(item) for item in record["items"]]),
        request=_read_values(record["request"]),
    )


def _write_item(item: ItemClaims) -> dict[str, object]:
    trusted = None if item.trusted_in is None else sorted(item.trusted_in)
    return {
        "family": item.family,
        "item": item.item,
        "values": _write_values(item.values),
        "scoped": {name: _write_values(one) for name, one in item.scoped.items()},
        "trusted_in": trusted,
    }


def _read_item(record: dict[str, Any]) -> ItemClaims:
    trusted = record["trusted_in"]
    return ItemClaims(
        family=record["family"],
        item=record["item"],
        values=_read_values(record["values"]),
        scoped={name: _read_values(one) for name, one in record["scoped"].items()},
        trusted_in=None if trusted is None else frozenset(trusted),
    )


def _write_values(values: Mapping[str, ClaimValue]) -> dict[str, object]:
    return {
        name: value if type(value) in SCALARS else plain(value)
        for name, value in values.items()
    }


def _read_values(record: dict[str, Any]) -> dict[str, ClaimValue]:
    # JSON has no tuples, and claims no lists.
    return {
        name: tuple(value) if type(value) is list else value
        for name, value in record.items()
    }
