"""One line of the broker's own log for each decision, joined to it by its id.

::

    decision <id> granted keys=acme/model/chat@1 door=v1 primary=vtpm governance=4
    decision <id> denied keys=acme/model/chat reasons=policy.none door=v1 …
    decision <id> refused keys=acme/model/chat check=vtpm.pcr door=v1 …
    decision <id> retried entry=17 ms=2

The audit log has what was got and expected; a line has the ids of checks and reasons,
and nothing out of the evidence. What buys no entry buys few lines: a refusal before the
evidence authenticated has one at DEBUG only, of all else that has no entry some are at
INFO. So floods fill neither log, and who sets DEBUG sees all of them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from kbs.broker.commit import Placed
from kbs.broker.pace import Pace
from kbs.broker.record import Ready
from kbs.core.errors import KbsError

log = logging.getLogger("kbs.release")

MAX_NAMES = 8
"""Names in one member of a line; of the others it has the number."""

MAX_TEXT = 600
"""Longest member of a line; eight ids of keys fit mostly."""

UNPAID_SECONDS = 0.1
"""Shortest time between two lines at INFO that have no entry."""


class DecisionLines:
    """Writes the lines of one process."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        """Take the duration of decisions from `monotonic`, in seconds."""
        self._monotonic = monotonic
        self._unpaid = Pace(monotonic, UNPAID_SECONDS)

    def begin(self, decision: str) -> DecisionLine:
        """Return the line of a decision that begins now."""
        return DecisionLine(decision, self._monotonic, self._unpaid)


class DecisionLine:
    """The line of one decision, written once it is known how it ended."""

    __slots__ = ("_monotonic", "_started", "_unpaid", "decision")

    def __init__(
        self, decision: str, monotonic: Callable[[], float], unpaid: Pace
    ) -> None:
        """Begin to count its milliseconds."""
        self.decision = decision
        self._monotonic = monotonic
        self._unpaid = unpaid
        self._started = monotonic()

    def recorded(self, ready: Ready, placed: Placed, failed: Iterable[str]) -> None:
        """A decision that has its entry; `failed` are the ids of failed checks."""
        attested = ready.attested
        self._write(
            logging.INFO,
            self.decision,
            _word(ready),
            **_keys(ready),
            check=listed(failed),
            door=attested.asked.door_name,
            primary=attested.primary_kind or "",
            governance=str(attested.snapshot.state.head_seq),
            entry=str(placed.entry.index),
        )

    def told(self, word: str, **members: str) -> None:
        """A decision of another door, in the same form."""
        self._write(logging.INFO, self.decision, word, **members)

    def retried(self, decision: str, entry: int) -> None:
        """The stored answer of an earlier decision went out again."""
        self._write(logging.INFO, decision, "retried", entry=str(entry))

    def refused(self, check: str) -> None:
        """A refusal before the evidence authenticated: counted, no entry."""
        self._write(logging.DEBUG, self.decision, "refused", check=check)

    def unchecked(self, open_checks: Iterable[str]) -> None:
        """Something could not be checked now; the challenge stays good."""
        self._write(
            self._level(logging.INFO),
            self.decision,
            "unchecked",
            check=listed(open_checks),
        )

    def failed(self, error: KbsError) -> None:
        """No decision could be made, or not be recorded."""
        level = self._level(logging.ERROR)
        self._write(level, self.decision, "failed", code=error.code)
        if level is logging.ERROR:
            log.error("decision %s: %s", self.decision, error)

    def _level(self, level: int) -> int:
        return level if self._unpaid.is_due() else logging.DEBUG

    def _write(self, level: int, decision: str, word: str, **members: str) -> None:
        if not log.isEnabledFor(level):
            return
        said = [f"{name}={value}" for name, value in members.items() if value]
        milliseconds = (self._monotonic() - self._started) * 1000
        text = f"decision {decision} {word} {' '.join(said)} ms={milliseconds:.0f}"
        log.log(level, text)


def listed(names: Iterable[str]) -> str:
    """Return names as one short member of a line."""
    distinct = list(dict.fromkeys(names))
    text = ",".join(distinct[:MAX_NAMES])
    if len(text) > MAX_TEXT:
        text = text[:MAX_TEXT] + "…"
    more = len(distinct) - MAX_NAMES
    return f"{text},+{more}" if more > 0 else text


def _word(ready: Ready) -> str:
    if ready.attested.refused:
        return "refused"
    return ready.answer.outcome.value


def _keys(ready: Ready) -> dict[str, str]:
    answer = ready.answer
    leaving = listed(str(ref) for ref in answer.keys)
    withheld = listed(str(one.ref) for one in answer.denied)
    names = {"keys": leaving or withheld, "withheld": withheld if leaving else ""}
    if not ready.attested.refused:
        # Of evidence that was refused the reasons are the checks that failed.
        reasons = (reason for one in answer.denied for reason in one.reasons)
        names["reasons"] = listed(reasons)
    return names
