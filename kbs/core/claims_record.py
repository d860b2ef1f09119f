"""Verified claims written down and read back, for a decision that is made later.

The form is the broker's own, between its writing and its reading; what protects it on
the way is not this module's business.
"""

from __future__ import annotations

from collections.abc import Mapping

from kbs.core.claims import Claims, ClaimValue, ItemClaims
from kbs.core.encode import require_integer, require_list, require_object, require_text
from kbs.core.errors import MalformedError

_MOST = 65536


def write_claims(claims: Claims) -> dict[str, object]:
    """Return claims as plain JSON."""
    return {
        "items": [_write_item(item) for item in claims.items],
        "request": _write_values(claims.request),
    }


def read_claims(value: object) -> Claims:
    """Return the claims that were written.

    Raises:
        MalformedError: anything else.
    """
    members = require_object(value, "claims")
    items = require_list(members.get("items"), "claims items", limit=_MOST)
    return Claims(
        items=tuple(_read_item(item) for item in items),
        request=_read_values(members.get("request")),
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


def _read_item(value: object) -> ItemClaims:
    members = require_object(value, "claims item")
    trusted = members.get("trusted_in")
    scoped = require_object(members.get("scoped"), "claims scoped")
    return ItemClaims(
        family=require_text(members.get("family"), "claims family"),
        item=require_integer(members.get("item"), "claims item", least=0, most=_MOST),
        values=_read_values(members.get("values")),
        scoped={name: _read_values(one) for name, one in scoped.items()},
        trusted_in=None if trusted is None else frozenset(_texts(trusted)),
    )


def _write_values(values: Mapping[str, ClaimValue]) -> dict[str, object]:
    # JSON has no tuples: they are written as lists are.
    return {
        name: dict(value) if isinstance(value, Mapping) else value
        for name, value in values.items()
    }


def _read_values(value: object) -> dict[str, ClaimValue]:
    # Nearly all are these; a call for each of a hundred claims would cost the most.
    return {
        name: one if isinstance(one, (str, int)) else _read_value(one)
        for name, one in require_object(value, "claims values").items()
    }


def _read_value(value: object) -> ClaimValue:
    if isinstance(value, list):
        return _texts(value)
    components = require_object(value, "claim")
    return {
        name: require_integer(svn, "claim component", least=0, most=2**32)
        for name, svn in components.items()
    }


def _texts(value: object) -> tuple[str, ...]:
    listed = require_list(value, "claim list", limit=_MOST)
    if not all(isinstance(one, str) for one in listed):
        raise MalformedError("claim list", got="another type", expected="strings")
    return tuple(str(one) for one in listed)
