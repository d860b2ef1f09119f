"""What runs beside requests: refusals into the log, expired rows out, the mark on."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable

from kbs.audit import events
from kbs.broker.commit import Work
from kbs.broker.journal import Journal
from kbs.broker.lines import listed
from kbs.broker.mark import MarkKeeper
from kbs.broker.ports import Database
from kbs.broker.refusals import Aggregate, RefusalCounter
from kbs.core.clock import Clock, format_time
from kbs.core.errors import IntegrityError, KbsError

log = logging.getLogger("kbs.upkeep")
told = logging.getLogger("kbs.release")

# Reasons by their door; refused administrators' tokens are counted beside them.
ADMIN_PREFIXES = ("token.", "admin.")

MARK = "high-water mark"
"""The source of faults that the mark shows."""

MAX_FAULTS = 64
"""Integrity faults that wait for the log; the broker is refusing by then anyway."""


class Upkeep:
    """Periodic work; each piece may fail without harming the others."""

    def __init__(
        self,
        *,
        database: Database,
        journal: Journal,
        refusals: RefusalCounter,
        mark: MarkKeeper,
        clock: Clock,
        declare: Callable[[str, IntegrityError | None], None],
    ) -> None:
        """Use what the composition root made; `declare` stops releases."""
        self._declare = declare
        self._database = database
        self._journal = journal
        self._refusals = refusals
        self._mark = mark
        self._clock = clock
        self._faults: deque[IntegrityError] = deque(maxlen=MAX_FAULTS)

    def flush(self) -> None:
        """Write what waits: refusals as one entry a reason, and integrity faults.

        Raises:
            UnavailableError: it cannot be written; it is kept for the next time.
        """
        self._flush_faults()
        self._flush_refusals()

    def _flush_refusals(self) -> None:
        aggregate = self._refusals.take(self._clock.now())
        if aggregate is None:
            return
        try:
            self._journal.change(lambda work: self._append(work, aggregate))
        except KbsError:
            self._refusals.put_back(aggregate)
            raise
        told.info(
            "%d refusals before authentication since %s: %s",
            aggregate.total,
            format_time(aggregate.since),
            listed(f"{reason}={n}" for reason, n in aggregate.most_frequent()),
        )

    def _append(self, work: Work, aggregate: Aggregate) -> None:
        for reason, (count, samples) in aggregate.reasons.items():
            event = events.Refusals(
                door="admin" if reason.startswith(ADMIN_PREFIXES) else "v1",
                reason=reason,
                count=count,
                since=aggregate.since,
                until=aggregate.until,
                samples=tuple(one.to_sample() for one in samples),
            )
            work.append(self._journal.entry(event))

    def purge(self) -> None:
        """Erase what expired: challenges, tokens, enrolments, evidence."""
        now = self._clock.now()

        def run(work: Work) -> int:
            tx = work.tx
            tx.spent.purge(now)
            tx.tokens.purge(now)
            tx.enrolments.purge(now)
            return tx.evidence.purge(now)

        self._journal.change(run)

    def every_second(self) -> None:
        """Keep the high-water mark up with the log."""
        _guarded("integrity report", self._flush_faults)
        _guarded("high-water mark", self._keep_mark)

    def _keep_mark(self) -> None:
        """Advance the mark; a database that went back stops every release."""
        try:
            self._mark.write_if_behind()
        except IntegrityError as exc:
            self._declare(MARK, exc)
        else:
            self._declare(MARK, None)

    def every_minute(self) -> None:
        """Flush and purge."""
        _guarded("refusals", self._flush_refusals)
        _guarded("purge", self.purge)

    def report_integrity(self, fault: IntegrityError) -> None:
        """Say at once, and log soon, that stored state does not match its proof.

        Whoever finds it may hold a transaction, so the entry is written later.
        """
        log.critical("integrity: %s", fault)
        self._faults.append(fault)

    def _flush_faults(self) -> None:
        while self._faults:
            fault = self._faults[0]
            self._journal.record(
                events.IntegrityReported(
                    subject=fault.code,
                    detail=str(fault)[:900],
                    got=fault.got,
                    expected=fault.expected,
                )
            )
            self._faults.popleft()


def _guarded(what: str, run: Callable[[], object]) -> None:
    try:
        run()
    except KbsError as exc:
        log.error("%s: %s", what, exc)  # noqa: TRY400 - it is said, not a bug
