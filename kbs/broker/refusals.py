"""Refusals before the evidence authenticated: counted, and one entry a minute.

Anyone can send rubbish, so rubbish may not buy entries in the log. Each reason is
counted in memory; the samples kept (the first of each minute) hold what an
administrator needs to help a legitimate caller: failed check, got, expected.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from kbs.audit.events import RefusalSample
from kbs.core.checks import Check
from kbs.core.errors import KbsError

V1 = "v1"

MAX_REASONS = 64
"""Distinct reasons a minute, of all doors; further ones are counted under `other`."""

MAX_SAMPLES = 8
"""Samples kept for each reason and minute."""

MAX_TEXT = 300
"""Longest text in a sample; what a stranger sends is not copied at length."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """One refused request that had not authenticated.

    `door` and `reason` are what it is counted under; `check` is the check that failed,
    if that is something else.
    """

    decision: str
    reason: str
    door: str = V1
    check: str | None = None
    detail: str
    got: str | None = None
    expected: str | None = None
    time: datetime

    @classmethod
    def of_fault(
        cls, decision: str, fault: KbsError, time: datetime, *, door: str = V1
    ) -> Refusal:
        """Return the refusal of a challenge, or of an administrator's token."""
        return cls(
            decision=decision,
            reason=fault.code,
            door=door,
            detail=str(fault),
            got=fault.got,
            expected=fault.expected,
            time=time,
        )

    @classmethod
    def of_check(
        cls,
        decision: str,
        reason: str,
        check: Check,
        time: datetime,
        *,
        door: str = V1,
    ) -> Refusal:
        """Return the refusal of evidence, with the check that it failed first."""
        return cls(
            decision=decision,
            reason=reason,
            door=door,
            check=check.id,
            detail=check.detail,
            got=check.got,
            expected=check.expected,
            time=time,
        )

    def to_sample(self) -> RefusalSample:
        """Return it as an aggregate entry holds it, its texts shortened."""
        return RefusalSample(
            decision=self.decision,
            time=self.time,
            check=_short(self.check or self.reason),
            detail=_short(self.detail),
            got=None if self.got is None else _short(self.got),
            expected=None if self.expected is None else _short(self.expected),
        )


Counted = tuple[str, str]
"""Door and reason."""


@dataclass(slots=True)
class _Counter:
    count: int = 0
    samples: list[Refusal] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Aggregate:
    """What was counted since `since`, per door and reason."""

    since: datetime
    until: datetime
    reasons: Mapping[Counted, tuple[int, tuple[Refusal, ...]]]

    @property
    def total(self) -> int:
        """How many refusals there were."""
        return sum(count for count, _ in self.reasons.values())

    def most_frequent(self) -> list[tuple[str, int]]:
        """Return each reason with its count, the most frequent first."""
        counts = Counter[str]()
        for (_, reason), (count, _) in self.reasons.items():
            counts[reason] += count
        return counts.most_common()


class RefusalCounter:
    """Counts refusals until somebody takes the aggregate; safe for threads."""

    def __init__(self, now: datetime) -> None:
        """Start counting at `now`."""
        self._lock = threading.Lock()
        self._since = now
        self._counters: dict[Counted, _Counter] = {}

    def count(self, refusal: Refusal) -> None:
        """Count one refusal."""
        with self._lock:
            known = (refusal.door, refusal.reason) in self._counters
            full = len(self._counters) >= MAX_REASONS
            reason = refusal.reason if known or not full else "other"
            counter = self._counters.setdefault((refusal.door, reason), _Counter())
            counter.count += 1
            if len(counter.samples) < MAX_SAMPLES:
                counter.samples.append(refusal)

    def take(self, now: datetime) -> Aggregate | None:
        """Return what was counted and start anew, or None if there was nothing."""
        with self._lock:
            counters, self._counters = self._counters, {}
            since, self._since = self._since, now
        if not counters:
            return None
        return Aggregate(
            since,
            now,
            {
                reason: (counter.count, tuple(counter.samples))
                for reason, counter in sorted(counters.items())
            },
        )

    def put_back(self, aggregate: Aggregate) -> None:
        """Count again what could not be logged, so that nothing is lost."""
        with self._lock:
            self._since = min(self._since, aggregate.since)
            for reason, (count, samples) in aggregate.reasons.items():
                counter = self._counters.setdefault(reason, _Counter())
                counter.count += count
                counter.samples = [*samples, *counter.samples][:MAX_SAMPLES]


def _short(text: str) -> str:
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 1] + "…"
