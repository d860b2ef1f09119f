"""Writing entries: every change goes through one serialised, durable commit."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from kbs.audit.entry import prepare
from kbs.audit.events import AdminAction, AdminRefused, Event
from kbs.audit.log import PreparedEntry
from kbs.broker.actors import Actor
from kbs.broker.commit import Committed, Committer, Work
from kbs.core.clock import Clock
from kbs.core.errors import ForbiddenError, UnavailableError

T = TypeVar("T")


class Journal:
    """Records events together with the changes that they tell of."""

    def __init__(self, committer: Committer, clock: Clock) -> None:
        """Take the time of entries from `clock`."""
        self._committer = committer
        self._clock = clock

    def entry(self, event: Event, entry_id: str | None = None) -> PreparedEntry:
        """Return an event as an entry of now."""
        return prepare(event, time=self._clock.now(), entry_id=entry_id)

    @property
    def fault(self) -> UnavailableError | None:
        """Why nothing could be written when last asked; None: it could."""
        return self._committer.fault

    def probe(self) -> None:
        """Find out whether anything can be written.

        Raises:
            UnavailableError: it cannot.
        """
        self._committer.probe()

    def record(self, event: Event) -> Committed[int]:
        """Append one event and return when it is durable."""
        entry = self.entry(event)
        return self._committer.submit(lambda work: work.append(entry))

    def change(self, run: Callable[[Work], T]) -> Committed[T]:
        """Run a change that appends its own entries."""
        return self._committer.submit(run)

    def change_alone(self, run: Callable[[Work], T]) -> Committed[T]:
        """Run a change before which nothing is written in its transaction."""
        return self._committer.submit_alone(run)

    def administer(
        self,
        actor: Actor,
        action: str,
        run: Callable[[Work], T],
        *,
        target: str | None = None,
        tenant: str | None = None,
        detail: str | None = None,
    ) -> Committed[T]:
        """Run an administrator's change; its entry is durable with it."""

        def both(work: Work) -> T:
            value = run(work)
            work.append(
                self.entry(
                    AdminAction(
                        actor=actor.administrator.keyid,
                        action=action,
                        target=target,
                        tenant=tenant,
                        detail=detail,
                    )
                )
            )
            return value

        return self._committer.submit(both)

    def refused(self, actor: Actor, action: str, error: ForbiddenError) -> None:
        """Record that a known administrator was refused something."""
        self.record(
            AdminRefused(
                actor=actor.administrator.keyid,
                action=action,
                reason=error.code,
                detail=str(error)[:500],
            )
        )
