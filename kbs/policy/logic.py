"""Kleene's strong three-valued logic: true, false, and None for unknown."""

from __future__ import annotations

from collections.abc import Iterable


def conjunction(results: Iterable[bool | None]) -> bool | None:
    """Kleene's and: false wins, then unknown."""
    unknown = False
    for result in results:
        if result is False:
            return False
        unknown = unknown or result is None
    return None if unknown else True


def disjunction(results: Iterable[bool | None]) -> bool | None:
    """Kleene's or: true wins, then unknown."""
    unknown = False
    for result in results:
        if result is True:
            return True
        unknown = unknown or result is None
    return None if unknown else False


def negation(result: bool | None) -> bool | None:  # noqa: FBT001 - a truth value
    """Kleene's not: unknown stays unknown."""
    return None if result is None else not result
