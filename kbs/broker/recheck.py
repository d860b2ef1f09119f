"""What must still hold when a decision is recorded (decisions, section 4, step 7).

Called inside the transaction that is serialised on the head of the log, so what is
found here stays true until it commits.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from kbs.broker.collateral import CollateralTable
from kbs.broker.commit import Work, refuse_clock_behind
from kbs.broker.decide import KeyOutcome
from kbs.broker.initialise import PRODUCTION
from kbs.core.decision import Granted
from kbs.core.errors import UnavailableError
from kbs.keys.model import select_version


class MovedError(Exception):
    """Governance, a key or a denial changed between the decision and its record."""


def recheck(
    work: Work,
    *,
    collateral: CollateralTable,
    imports: int,
    head_seq: int,
    outcomes: Sequence[KeyOutcome],
    now: datetime,
    development: bool,
) -> None:
    """Return if a decision of `now` still stands.

    Raises:
        MovedError: governance is not at `head_seq` any more, collateral was imported
            since import number `imports`, or a key changed.
        UnavailableError: the clock is behind the log, or the database is served in
            production by now.
    """
    if work.tx.governance.head() != head_seq:
        raise MovedError
    if collateral.imports(work.tx) != imports:
        raise MovedError
    for one in outcomes:
        rows = work.tx.keys.versions(one.asked.key_id)
        current = select_version(rows, one.asked.version)
        if isinstance(one.decision, Granted) and current != one.stored:
            raise MovedError
    refuse_clock_behind(now, work.latest)
    if development:
        _require_no_production(work)


def _require_no_production(work: Work) -> None:
    # Somebody may have begun to serve this database in production meanwhile.
    found = work.tx.instance.read()
    if found is None or found.mode == PRODUCTION:
        raise UnavailableError(
            "development mode",
            got="a database that is served in production",
            expected="one of development",
            hint="stop the broker that was started with --dev",
            code="mode.production",
        )
