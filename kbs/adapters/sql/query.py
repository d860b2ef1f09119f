"""Composes the query for entries of the log that match a filter."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, exists, select

from kbs.adapters.sql.schema import (
    ROLE_KEY,
    ROLE_POLICY,
    ROLE_TENANT,
    log_entries,
    log_subjects,
)
from kbs.audit.log import QueryFilter

_ENTRY = log_entries.c
_SUBJECT = log_subjects.c


def select_entries(wanted: QueryFilter) -> Select[Any]:
    """Compose the query so that the rarest subject leads.

    The subjects of one name lie in the order of the entries, so that a query by key
    stops at its limit instead of walking the log.
    """
    subjects = _wanted_subjects(wanted)
    if subjects:
        role, name = subjects.pop(0)
        place: ColumnElement[int] = _SUBJECT.leaf_index
        statement = (
            select(log_entries)
            .join(log_subjects, _SUBJECT.leaf_index == _ENTRY.leaf_index)
            .where(_SUBJECT.role == role, _SUBJECT.name == name)
        )
    else:
        place = _ENTRY.leaf_index
        statement = select(log_entries)
    tests = [*_bounds(wanted, place), *_columns(wanted)]
    tests += [_concerns(role, (name,)) for role, name in subjects]
    if wanted.tenants is not None and len(wanted.tenants) > 1:
        tests.append(_concerns(ROLE_TENANT, wanted.tenants))
    order = place.desc() if wanted.newest else place
    return statement.where(*tests).order_by(order).limit(wanted.limit)


def _wanted_subjects(wanted: QueryFilter) -> list[tuple[int, str]]:
    subjects = []
    if wanted.key is not None:
        subjects.append((ROLE_KEY, wanted.key))
    if wanted.policy is not None:
        subjects.append((ROLE_POLICY, wanted.policy))
    if wanted.tenants is not None and len(wanted.tenants) == 1:
        subjects.append((ROLE_TENANT, wanted.tenants[0]))
    return subjects


def _concerns(role: int, names: Sequence[str]) -> ColumnElement[bool]:
    subject = log_subjects.alias()
    return exists().where(
        and_(
            subject.c.leaf_index == _ENTRY.leaf_index,
            subject.c.role == role,
            subject.c.name.in_(names),
        )
    )


def _bounds(
    wanted: QueryFilter, place: ColumnElement[int]
) -> Iterator[ColumnElement[bool]]:
    if wanted.after_index is not None:
        yield place > wanted.after_index
    if wanted.before_index is not None:
        yield place < wanted.before_index
    if wanted.since is not None:
        yield _ENTRY.time >= wanted.since
    if wanted.until is not None:
        yield _ENTRY.time < wanted.until


def _columns(wanted: QueryFilter) -> Iterator[ColumnElement[bool]]:
    if wanted.decision is not None:
        yield _ENTRY.decision == wanted.decision
    if wanted.kinds is not None:
        yield _ENTRY.kind.in_(wanted.kinds)
