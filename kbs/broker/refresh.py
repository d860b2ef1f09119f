"""Fetches newer collateral before the kept one runs out; never for a request.

One worker of a machine does it, beside requests. Replicas on several machines may each
do it: what they fetch is the same, and is kept once. What is due is seen by every
worker, so that each can say in its health what could not be fetched in time.

Only what runs out by design is fetched anew, like revocation lists: kinds in
`RUNNING_OUT`. It is due in the last third of its validity, so that a service may be
away for a while. A source that fails is left alone for a minute, then two, up to an
hour, or for as long as the service asks; one that has nothing that lasts longer, for a
tenth of what is left, a day at most.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from threading import Event

from kbs.broker.collateral import CollateralTable
from kbs.broker.ports import StoredCollateral
from kbs.broker.vendors.fetching import Vendors, origin_of
from kbs.broker.vendors.source import Source
from kbs.core.clock import Clock, format_time
from kbs.core.errors import KbsError
from kbs.core.fetch import BusyError
from kbs.evidence.dcap.documents import DOCUMENT_KINDS
from kbs.evidence.model import GivenCollateral

log = logging.getLogger("kbs.collateral")

RUNNING_OUT = frozenset({"crl", "ocsp", "rim"}) | DOCUMENT_KINDS
"""Kinds of items that their vendors issue anew all the time."""

REFRESH_SECONDS = 30.0
"""How often it is looked whether something is due."""

_FIRST_PAUSE = timedelta(minutes=1)
_LONGEST_PAUSE = timedelta(hours=1)
_LONGEST_QUIET = timedelta(days=1)
_DUE_PART = 3


@dataclass(frozen=True, slots=True)
class Due:
    """The newest that is kept of one source, whose time is running out."""

    source: Source
    since: datetime
    ends: datetime

    def is_over(self, now: datetime) -> bool:
        """Whether it has run out."""
        return self.ends < now


@dataclass(frozen=True, slots=True)
class _Failure:
    count: int
    since: datetime
    until: datetime
    error: str

    def is_over(self, now: datetime) -> bool:
        """Whether it may be asked again; so too where the clock went back behind it."""
        return not self.since <= now < self.until


class Refresher:
    """Refreshes what the table has; `lock` gives whether this worker is the one."""

    def __init__(
        self,
        *,
        table: CollateralTable,
        known: Callable[[], GivenCollateral],
        vendors: Vendors,
        lock: Callable[[], AbstractContextManager[bool]],
        clock: Clock,
    ) -> None:
        """Start with nothing looked at; `known` is the table as verifiers see it."""
        self._table = table
        self._known = known
        self._vendors = vendors
        self._lock = lock
        self._clock = clock
        self._failures: dict[Source, _Failure] = {}
        self._due: tuple[Due, ...] = ()
        self._closed = Event()

    def close(self) -> None:
        """Fetch nothing more."""
        self._closed.set()

    def run(self) -> None:
        """Fetch what is due now; a fault of one source is said and harms no other."""
        try:
            self._run()
        except KbsError as exc:
            log.error("collateral: %s", exc)  # noqa: TRY400 - it is said, not a bug

    def overdue(self) -> tuple[str, ...]:
        """Say what should have been fetched anew by now and was not."""
        now = self._clock.now()
        return tuple(
            _told(one, self._failures.get(one.source), now)
            for one in self._due
            if one.source in self._failures or one.is_over(now)
        )

    def _run(self) -> None:
        if self._closed.is_set():
            return
        self._due = due(self._table.rows(), self._clock.now())
        if not self._due:
            return
        answered = set()
        with self._lock() as mine:
            for one in self._due if mine else ():
                if self._closed.is_set() or not self._may_ask(one.source):
                    continue
                if self._refresh(one):
                    answered.add(one.source)
        self._due = due(self._table.rows(), self._clock.now())
        for one in self._due:
            # An answer signed anew each time need not last any longer.
            if one.source in answered:
                self._note(one, None)
        kept = {one.source for one in self._due}
        self._failures = {
            source: failure
            for source, failure in self._failures.items()
            if source in kept
        }

    def _may_ask(self, source: Source) -> bool:
        failure = self._failures.get(source)
        return failure is None or failure.is_over(self._clock.now())

    def _refresh(self, one: Due) -> bool:
        try:
            items = self._vendors.fetch(one.source, self._known())
            added = self._table.keep(one.source, items)
        except KbsError as exc:
            self._note(one, exc)
            return False
        if added:
            log.info("fetched %s: %d new", one.source.log_name, added)
        return True

    def _note(self, one: Due, error: KbsError | None) -> None:
        source, now = one.source, self._clock.now()
        before = self._failures.get(source)
        count = 1 if before is None else before.count + 1
        pause = min(_FIRST_PAUSE * 2 ** min(count - 1, 16), _LONGEST_PAUSE)
        if isinstance(error, BusyError):
            pause = max(pause, timedelta(seconds=error.retry_seconds))
        if error is not None:
            text = str(error).replace(source.url, source.log_name)
        else:
            text = "the vendor has nothing newer yet"
            # It may come any day of months to come: nobody is asked each hour of them.
            pause = max(pause, min((one.ends - now) / 10, _LONGEST_QUIET))
        until = now + pause
        self._failures[source] = _Failure(count, now, until, text)
        level = logging.INFO if error is None else logging.WARNING
        log.log(level, "%s: %s; again after %s", source.log_name, text, _short(until))


def due(rows: Sequence[StoredCollateral], now: datetime) -> tuple[Due, ...]:
    """Return what is in the last third of its validity or beyond, most urgent first."""
    newest: dict[Source, StoredCollateral] = {}
    for row in rows:
        origin = origin_of(row.kind, row.der) if row.kind in RUNNING_OUT else None
        if origin is None or row.not_after is None:
            continue
        known = newest.get(origin)
        if known is None or row.not_before > known.not_before:
            newest[origin] = row
    found = [
        Due(source, begins, row.not_after)
        for source, row in newest.items()
        if row.not_after is not None
        and (begins := row.not_after - (row.not_after - row.not_before) / _DUE_PART)
        <= now
    ]
    return tuple(sorted(found, key=lambda one: (one.ends, one.source)))


def _told(one: Due, failure: _Failure | None, now: datetime) -> str:
    ends = "ran out" if one.is_over(now) else "runs out"
    text = f"{one.source.log_name} {ends} {_short(one.ends)}"
    return text if failure is None else f"{text}: {failure.error}"


def _short(time: datetime) -> str:
    return format_time(time.replace(microsecond=0))
