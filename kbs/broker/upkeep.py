"""What runs beside requests: refusals into the log, expired rows out, the mark on."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta

from kbs.audit import events
from kbs.broker.commit import Work
from kbs.broker.evidence import ERASED_AT_ONCE, EvidenceLocker
from kbs.broker.journal import Journal
from kbs.broker.lines import listed
from kbs.broker.mark import MarkKeeper
from kbs.broker.ports import TRUST_AWAY, Database
from kbs.broker.refusals import Aggregate, RefusalCounter
from kbs.broker.reserve import DiskReserve
from kbs.broker.steady import SteadyClock
from kbs.core.clock import Clock, format_time
from kbs.core.errors import IntegrityError, KbsError, UnavailableError

log = logging.getLogger("kbs.upkeep")
told = logging.getLogger("kbs.release")

MARK = "high-water mark"
"""The source of faults that the mark shows."""

PURGE_MARGIN = timedelta(hours=1)
"""How long what was spent is remembered after it expired."""

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
        locker: EvidenceLocker,
        reserve: DiskReserve,
        clock: Clock,
        steady: SteadyClock,
        declare: Callable[[str, UnavailableError | None], None],
    ) -> None:
        """Use what the composition root made; `declare` stops releases."""
        self._declare = declare
        self._database = database
        self._journal = journal
        self._refusals = refusals
        self._mark = mark
        self._locker = locker
        self._reserve = reserve
        self._clock = clock
        self._steady = steady
        self._faults: deque[IntegrityError] = deque(maxlen=MAX_FAULTS)
        self._flushing = threading.Lock()

    def flush(self) -> None:
        """Write what waits: refusals as one entry a reason, and integrity faults.

        Refusals wait on while only the reserve of the disk is left.

        Raises:
            UnavailableError: it cannot be written; it is kept for the next time.
        """
        self._flush_faults()
        self._flush_refusals()

    def _flush_refusals(self) -> None:
        if self._reserve.is_low():
            # They go on being counted; what is left is for grants and revocations.
            return
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
        for (door, reason), (count, samples) in aggregate.reasons.items():
            event = events.Refusals(
                door=door,
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
        due = self._locker.expired_before(self._database, now)
        self._journal.change(lambda work: _forget(work, now, due.waiting))
        while self._journal.change(lambda work: self._erase(work, due.kept)).value:
            pass

    def _erase(self, work: Work, before: datetime) -> bool:
        """Erase one batch with its entry; whether there may be another."""
        event = self._locker.erase(work.tx, before)
        if event is None:
            return False
        work.append(self._journal.entry(event))
        return event.count >= ERASED_AT_ONCE

    def every_second(self) -> None:
        """Keep the high-water mark up with the log; notice that a fault is over."""
        _guarded("database", self._try_again)
        _guarded("integrity report", self._flush_faults)
        _guarded("high-water mark", self._keep_mark)

    def _try_again(self) -> None:
        """Write while nothing can be written, so that whoever asks hears of the end."""
        if self._journal.fault is not None:
            self._journal.probe()
            log.info("database: it takes writes again")

    def _keep_mark(self) -> None:
        """Advance the mark.

        A database that went back stops every release, and so does a mark that cannot
        follow the log: what is released then could be taken back unnoticed.
        """
        try:
            self._mark.write_if_behind()
        except UnavailableError as exc:
            if isinstance(exc, IntegrityError) or exc.code == TRUST_AWAY:
                self._declare(MARK, exc)
            if not isinstance(exc, IntegrityError):
                raise
        else:
            self._declare(MARK, None)

    def every_minute(self) -> None:
        """Flush and purge, and see that anything can be written where nobody asks."""
        _guarded("database", self._journal.probe)
        _guarded("refusals", self._flush_refusals)
        # Evidence and enrolments that a wrong clock takes for old would be lost.
        if self._steady.is_steady():
            _guarded("purge", self.purge)

    def report_integrity(self, fault: IntegrityError) -> None:
        """Say at once, and log soon, that stored state does not match its proof.

        Whoever finds it may hold a transaction, so the entry is written later.
        """
        log.critical("integrity: %s", fault)
        self._faults.append(fault)

    def _flush_faults(self) -> None:
        # One thread at a time: two that write the same fault would take the next one,
        # which nobody has written, out with it.
        with self._flushing:
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
                # Newer ones may have pushed it out meanwhile.
                with suppress(ValueError):
                    self._faults.remove(fault)


def _forget(work: Work, now: datetime, waiting: datetime) -> None:
    """Forget what nobody can use again.

    A challenge or token that was spent may be forgotten only when it can never count
    again, also if the clock jumps back: the log's time says what is past for good,
    since nothing is decided by a clock that is behind it. Evidence in a session counts
    for nothing: it goes when the session ends, or as far as the cap asks, and no entry
    tells of what none named.
    """
    tx = work.tx
    if work.latest is not None:
        past = min(now, work.latest) - PURGE_MARGIN
        tx.spent.purge(past)
        tx.sessions.purge(past)
        tx.tokens.purge(past)
    tx.sessions.drop_evidence(waiting)
    tx.enrolments.purge(now)


def _guarded(what: str, run: Callable[[], object]) -> None:
    try:
        run()
    except KbsError as exc:
        log.error("%s: %s", what, exc)  # noqa: TRY400 - it is said, not a bug
