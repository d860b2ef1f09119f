"""Deciding under what is in force, and recording it before that moves on.

A decision is made on a snapshot, which keeps nobody from writing, and checked again in
the transaction that records it (`kbs.broker.recheck`). Where something moved on in
between, nothing is recorded, no challenge is spent, and the decision is made anew. A
few times: a reader among quick rotations would never come to an end. Then the lock that
all writers queue for is taken first and the decision is made while it is held, on a
snapshot that nobody can move. It is checked again all the same.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, TypeVar

from kbs.broker.commit import Placed, Work
from kbs.broker.governance import StaleReadError
from kbs.broker.journal import Journal
from kbs.broker.recheck import MovedError
from kbs.core.errors import UnavailableError

T = TypeVar("T")

ATTEMPTS = 3
"""How often a decision is made without the lock (decisions, section 4, step 7)."""


@dataclass(frozen=True, slots=True)
class Draft(Generic[T]):
    """What was decided, and how it is recorded; None where it leaves no trace."""

    decided: T
    record: Callable[[Work], object] | None = None


@dataclass(frozen=True, slots=True)
class Settled(Generic[T]):
    """What was decided, durable now, with the entries that tell of it."""

    decided: T
    placed: tuple[Placed, ...] = ()


def settle(journal: Journal, decide: Callable[[], Draft[T]]) -> Settled[T]:
    """Decide and record; again where what it rests on moved on in between.

    `decide` reads in a transaction that it begins and ends, writes nothing, and may be
    called several times; the last time with the lock of all writers held.

    Raises:
        KbsError: what `decide` or its record raised; nothing of it was kept.
        UnavailableError: it cannot be recorded, or may not have been.
    """
    for _ in range(ATTEMPTS):
        with suppress(MovedError, StaleReadError):
            draft = decide()
            if draft.record is None:
                return Settled(draft.decided)
            return Settled(draft.decided, journal.change(draft.record).placed)

    def decide_and_record(work: Work) -> T:
        draft = decide()
        if draft.record is not None:
            draft.record(work)
        return draft.decided

    try:
        done = journal.change_alone(decide_and_record)
    except (MovedError, StaleReadError) as exc:
        raise UnavailableError(
            "decision",
            got="governance, collateral or a key that moved on under the lock",
            expected="nobody who writes the database without taking its lock",
            hint="try again; if it stays so, look for who else writes the database",
            code="governance.moved",
        ) from exc
    return Settled(done.value, done.placed)
