"""The values of claims in the form in which they are compared; None is another type."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from kbs.core.claims import ClaimSpec, ClaimType
from kbs.core.clock import parse_time
from kbs.core.errors import MalformedError
from kbs.policy.operands import is_decimals

Normal = bool | int | str | tuple[int, ...] | frozenset[str] | datetime
Normalize = Callable[[object], Normal | None]


def equatable(spec: ClaimSpec) -> Normalize:
    """Return what makes two values of a claim equal."""
    if spec.type is ClaimType.BOOL:
        return _boolean
    if spec.type is ClaimType.INT:
        return _integer
    if spec.type is ClaimType.U64:
        return _hex_integer
    if spec.type is ClaimType.TIME:
        return _time
    return _string


def ordered(spec: ClaimSpec) -> Normalize:
    """Return what makes values of a claim comparable by size."""
    if spec.type in {ClaimType.TEXT, ClaimType.VERSION}:
        return _decimals
    return equatable(spec)


def _boolean(value: object) -> Normal | None:
    return value if isinstance(value, bool) else None


def _integer(value: object) -> Normal | None:
    return value if type(value) is int else None


def _string(value: object) -> Normal | None:
    return value if isinstance(value, str) else None


def _hex_integer(value: object) -> Normal | None:
    if not isinstance(value, str) or len(value) != 16:  # noqa: PLR2004 - 64 bits
        return None
    try:
        return int(value, 16)
    except ValueError:
        return None


def _time(value: object) -> Normal | None:
    try:
        return parse_time(value)
    except MalformedError:
        return None


def _decimals(value: object) -> Normal | None:
    """Components as integers; trailing zeros are dropped, so that 1.0 equals 1."""
    if not isinstance(value, str) or not is_decimals(value):
        return None
    components = [int(component) for component in value.split(".")]
    while components and components[-1] == 0:
        components.pop()
    return tuple(components)
