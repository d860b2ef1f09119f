"""Claims of tokens as claims of ours: one table row for each, name and reading.

A claim is called as its issuer calls it, in lower snake case, below the issuer's
profile: `x-ms-attestation-type` of Azure is `maa.x_ms_attestation_type`. What has
another type than the table says is left out, so that conditions on it are unknown.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kbs.core.claims import ClaimSpec, ClaimType, ClaimValue, Safety, SpecTable

_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_HEX = re.compile(r"(?:[0-9a-fA-F]{2})*", re.ASCII)
_MAX_TEXT = 4096
_MAX_LISTED = 256


@dataclass(frozen=True, slots=True)
class Field:
    """Where a claim stands in the token, and what it becomes."""

    path: tuple[str, ...]
    spec: ClaimSpec


@dataclass(frozen=True, slots=True)
class Table(SpecTable):
    """The rows of one issuer: makes fields, and specs of what follows from them."""

    def row(
        self,
        path: str | tuple[str, ...],
        kind: ClaimType,
        description: str,
        *,
        size: int | None = None,
        boot: bool = False,
        safety: Safety | None = None,
    ) -> Field:
        """Return the field for a claim; `path` leads to it through objects."""
        steps = (path,) if isinstance(path, str) else path
        spec = self.spec(
            ".".join(_snake(step, self.family) for step in steps),
            kind,
            description,
            size=size,
            boot=boot,
            safety=safety,
        )
        return Field(steps, spec)


def read_fields(
    fields: Sequence[Field], claims: Mapping[str, object]
) -> dict[str, ClaimValue]:
    """Return every claim of the table that the token has, by full name."""
    values: dict[str, ClaimValue] = {}
    for each in fields:
        found = _converted(value_at(claims, each.path), each.spec)
        if found is not None:
            values[each.spec.name] = found
    return values


def value_at(claims: Mapping[str, object], path: Sequence[str]) -> object:
    """Return what stands at a path, or None."""
    node: object = claims
    for step in path:
        if not isinstance(node, Mapping):
            return None
        node = node.get(step)
    return node


def text_at(claims: Mapping[str, object], *path: str) -> str | None:
    """Return a string at a path, or None."""
    value = value_at(claims, path)
    return value if isinstance(value, str) else None


def object_at(claims: Mapping[str, object], *path: str) -> Mapping[str, object]:
    """Return an object at a path, or an empty one."""
    value = value_at(claims, path)
    return value if isinstance(value, dict) else {}


def any_true(claims: Mapping[str, object], names: Sequence[str]) -> bool | None:
    """Whether one of these flags is true; None when the token has none of them.

    A flag of another type than boolean counts as true: what cannot be read is not safe.
    """
    found = [claims[name] for name in names if claims.get(name) is not None]
    if not found:
        return None
    return any(value is not False for value in found)


def _snake(step: str, family: str) -> str:
    words = _HUMP.sub("_", step.removeprefix(f"{family}."))
    return re.sub(r"[^a-z0-9]", "_", words.lower())


def _converted(value: object, spec: ClaimSpec) -> ClaimValue | None:
    # One branch for each type that the tables use.
    if spec.type is ClaimType.BOOL:
        return value if isinstance(value, bool) else None
    if spec.type is ClaimType.INT:
        return value if isinstance(value, int) and type(value) is not bool else None
    if spec.type is ClaimType.TEXTS:
        return _texts(value)
    if not isinstance(value, str) or len(value) > _MAX_TEXT:
        return None
    if spec.type is ClaimType.BYTES:
        return _hex(value, spec.size)
    return value


def _texts(value: object) -> tuple[str, ...] | None:
    if not isinstance(value, list) or len(value) > _MAX_LISTED:
        return None
    texts = tuple(
        one for one in value if isinstance(one, str) and len(one) <= _MAX_TEXT
    )
    return texts if len(texts) == len(value) else None


def _hex(value: str, size: int | None) -> str | None:
    # Services differ in the case of their hex digits; claims are lower case.
    if not _HEX.fullmatch(value) or size not in {None, len(value) // 2}:
        return None
    return value.lower()
