"""What is kept until it expires: challenges, sessions, tokens, evidence, enrolments."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, final

from sqlalchemy import (
    Executable,
    Table,
    bindparam,
    case,
    delete,
    func,
    insert,
    null,
    select,
    union_all,
    update,
)

from kbs.adapters.sql.cursor import Cursor, pieces, upserts, values_of
from kbs.adapters.sql.prepared import Prepared, Row
from kbs.adapters.sql.schema import (
    enrolments,
    evidence,
    sessions,
    spent_challenges,
    used_tokens,
)
from kbs.broker.ports import (
    PendingEnrolment,
    SpentChallenge,
    StoredEvidence,
    StoredSession,
)

if TYPE_CHECKING:
    from kbs.adapters.sql.cursor import Upsert

_SPEND = Prepared(insert(spent_challenges))
_SPENT = Prepared(
    select(spent_challenges).where(
        spent_challenges.c.challenge == bindparam("challenge")
    )
)
_KEEP_SESSION = Prepared(insert(sessions))
_STORED = select(
    *(sessions.c[name] for name in ("session", "decision", "sealed", "expires")),
    sessions.c.evidence.is_not(None).label("has_evidence"),
)
_THIS_SESSION = sessions.c.session == bindparam("of_session")
_SESSION = Prepared(_STORED.where(_THIS_SESSION))
_SESSION_OF = Prepared(_STORED.where(sessions.c.decision == bindparam("decision")))
_WAITING = Prepared(select(sessions.c.evidence).where(_THIS_SESSION))
_EMPTY_SESSION = Prepared(update(sessions).where(_THIS_SESSION).values(evidence=null()))
_DROP_WAITING = (
    update(sessions)
    .where(sessions.c.expires < bindparam("before"), sessions.c.evidence.is_not(None))
    .values(evidence=None)
)
_EVIDENCE = select(evidence).where(evidence.c.digest == bindparam("digest"))
_ENROLMENT = select(enrolments).where(enrolments.c.id == bindparam("enrolment_id"))
_ENROLMENTS = select(enrolments).order_by(enrolments.c.created, enrolments.c.id)
_OF_TENANTS = _ENROLMENTS.where(
    enrolments.c.tenant.in_(bindparam("tenants", expanding=True))
)
_SAME_AK = delete(enrolments).where(
    enrolments.c.tenant == bindparam("of_tenant"),
    enrolments.c.ak_group == bindparam("of_group"),
    enrolments.c.ak_name == bindparam("of_ak"),
)
_FORGET = delete(enrolments).where(enrolments.c.id == bindparam("enrolment_id"))
_OF_KEY = select(enrolments).where(
    enrolments.c.tenant == bindparam("of_tenant"),
    enrolments.c.ak_group == bindparam("of_group"),
    enrolments.c.ak_name == bindparam("of_ak"),
)
_COUNT = select(func.count().label("count")).select_from(enrolments)
_COUNT_OF_TENANT = _COUNT.where(enrolments.c.tenant == bindparam("of_tenant"))
_COUNT_OF_EK = _COUNT.where(enrolments.c.ek == bindparam("of_ek"))
_EXPIRING = (
    select(evidence.c.digest)
    .where(evidence.c.expires < bindparam("before"))
    .order_by(evidence.c.expires, evidence.c.digest)
    .limit(bindparam("most"))
)
_ERASE = delete(evidence).where(
    evidence.c.digest.in_(bindparam("digests", expanding=True))
)
_KEPT = union_all(
    select(evidence.c.expires, func.length(evidence.c.sealed).label("size")),
    select(sessions.c.expires, func.length(sessions.c.evidence)).where(
        sessions.c.evidence.is_not(None)
    ),
).subquery()
# What each bundle and all that expire after it take together.
_SIZES = select(
    _KEPT.c.expires,
    func.sum(_KEPT.c.size)
    .over(order_by=_KEPT.c.expires.desc(), range_=(None, 0))
    .label("size"),
).subquery()
_OVERFLOW = select(func.max(_SIZES.c.expires).label("latest")).where(
    _SIZES.c.size > bindparam("most")
)
# Times are stored as whole microseconds.
_RESOLUTION = timedelta(microseconds=1)


def _later_expiry(statement: Upsert) -> Executable:
    new, old = statement.excluded.expires, evidence.c.expires
    return statement.on_conflict_do_update(
        index_elements=["digest"],
        set_={"expires": case((new > old, new), else_=old)},
    )


_KEEP_EVIDENCE = upserts(evidence, _later_expiry)


def _purge(cursor: Cursor, table: Table, before: datetime) -> int:
    return cursor.run(delete(table).where(table.c.expires < before))


@final
class SqlSpentStore:
    """Challenges that were spent, until they expire."""

    def __init__(self, cursor: Cursor) -> None:
        """Work in the transaction of `cursor`."""
        self._cursor = cursor

    def find(self, challenge: bytes) -> SpentChallenge | None:
        """Return the spent challenge with this digest."""
        row = self._cursor.first(_SPENT, {"challenge": challenge})
        return None if row is None else SpentChallenge(**row)

    def insert(self, spent: SpentChallenge) -> None:
        """Spend a challenge.

        Raises:
            ConflictError: it is spent already.
        """
        self._cursor.run(_SPEND, values_of(spent), what="challenge")

    def purge(self, before: datetime) -> int:
        """Remove those that expired before, and return how many."""
        return _purge(self._cursor, spent_challenges, before)


@final
class SqlSessionStore:
    """Attested sessions, until they end."""

    def __init__(self, cursor: Cursor) -> None:
        """Work in the transaction of `cursor`."""
        self._cursor = cursor

    def find(self, session: bytes) -> StoredSession | None:
        """Return the session with this digest."""
        row = self._cursor.first(_SESSION, {"of_session": session})
        return None if row is None else StoredSession(**row)

    def find_decision(self, decision: str) -> StoredSession | None:
        """Return the session whose attestation had this decision id."""
        row = self._cursor.first(_SESSION_OF, {"decision": decision})
        return None if row is None else StoredSession(**row)

    def insert(self, session: StoredSession, evidence: bytes | None = None) -> None:
        """Keep one, with evidence that waits in it if given.

        Raises:
            ConflictError: it has attested already.
        """
        values = {**values_of(session), "evidence": evidence}
        del values["has_evidence"]
        self._cursor.run(_KEEP_SESSION, values, what="session")

    def take_evidence(self, session: bytes) -> bytes | None:
        """Remove the evidence that waits in a session, and return it."""
        row = self._cursor.first(_WAITING, {"of_session": session})
        waiting: bytes | None = None if row is None else row["evidence"]
        if waiting is not None:
            self._cursor.run(_EMPTY_SESSION, {"of_session": session})
        return waiting

    def drop_evidence(self, before: datetime) -> int:
        """Erase what waits in sessions that ended before, and return how many."""
        dropped = self._cursor.run(_DROP_WAITING, {"before": before})
        self._cursor.erased |= bool(dropped)
        return dropped

    def purge(self, before: datetime) -> int:
        """Remove those that ended before, and return how many."""
        return _purge(self._cursor, sessions, before)


@final
class SqlTokenStore:
    """Identifiers of administrators' tokens that were used for a write."""

    def __init__(self, cursor: Cursor) -> None:
        """Work in the transaction of `cursor`."""
        self._cursor = cursor

    def use(self, jti: str, expires: datetime) -> None:
        """Spend one.

        Raises:
            ConflictError: it was used before.
        """
        self._cursor.run(
            insert(used_tokens), {"jti": jti, "expires": expires}, what="token id"
        )

    def purge(self, before: datetime) -> int:
        """Remove those that expired before, and return how many."""
        return _purge(self._cursor, used_tokens, before)


@final
class SqlEvidenceStore:
    """Encrypted evidence by digest, with a retention of its own."""

    def __init__(self, cursor: Cursor) -> None:
        """Work in the transaction of `cursor`."""
        self._cursor = cursor

    def insert(self, stored: StoredEvidence) -> None:
        """Keep evidence; the same digest again keeps the later expiry."""
        self._cursor.run(_KEEP_EVIDENCE, values_of(stored))

    def find(self, digest: bytes) -> StoredEvidence | None:
        """Return the evidence with this digest, if it is still kept."""
        row = self._cursor.first(_EVIDENCE, {"digest": digest})
        return None if row is None else StoredEvidence(**row)

    def overflow(self, most: int) -> datetime | None:
        """Return the time before which enough expires that the others fit."""
        row = self._cursor.first(_OVERFLOW, {"most": most})
        latest: datetime | None = None if row is None else row["latest"]
        return None if latest is None else latest + _RESOLUTION

    def purge(self, before: datetime, *, limit: int) -> Sequence[bytes]:
        """Erase what expires before, the oldest first, and return the digests."""
        rows = self._cursor.all(_EXPIRING, {"before": before, "most": limit})
        digests = [row["digest"] for row in rows]
        for piece in pieces(digests):
            self._cursor.run(_ERASE, {"digests": list(piece)})
        self._cursor.erased |= bool(digests)
        return digests


@final
class SqlEnrolmentStore:
    """Pending enrolments, until an administrator's statement or their expiry."""

    def __init__(self, cursor: Cursor) -> None:
        """Work in the transaction of `cursor`."""
        self._cursor = cursor

    def insert(self, pending: PendingEnrolment) -> None:
        """Keep one; the same AK in the same group replaces the one before.

        Raises:
            ConflictError: the id is taken.
        """
        values = values_of(pending)
        values["ak_group"] = values.pop("group")
        same = {
            "of_tenant": pending.tenant,
            "of_group": pending.group,
            "of_ak": pending.ak_name,
        }
        self._cursor.run(_SAME_AK, same)
        self._cursor.run(insert(enrolments), values, what="enrolment")

    def find(self, enrolment_id: str) -> PendingEnrolment | None:
        """Return one."""
        row = self._cursor.first(_ENROLMENT, {"enrolment_id": enrolment_id})
        return None if row is None else _pending(row)

    def find_key(
        self, tenant: str, group: str, ak_name: bytes
    ) -> PendingEnrolment | None:
        """Return the one of an AK in a group of a tenant."""
        row = self._cursor.first(
            _OF_KEY, {"of_tenant": tenant, "of_group": group, "of_ak": ak_name}
        )
        return None if row is None else _pending(row)

    def list(self, tenants: tuple[str, ...] | None) -> Sequence[PendingEnrolment]:
        """Return those of these tenants (None: all), oldest first."""
        if tenants is None:
            rows = self._cursor.all(_ENROLMENTS)
        else:
            rows = self._cursor.all(_OF_TENANTS, {"tenants": tenants})
        return [_pending(row) for row in rows]

    def count(self, *, tenant: str | None = None, ek: bytes | None = None) -> int:
        """Return how many there are, of one tenant or of one EK if given."""
        if tenant is not None:
            row = self._cursor.first(_COUNT_OF_TENANT, {"of_tenant": tenant})
        elif ek is not None:
            row = self._cursor.first(_COUNT_OF_EK, {"of_ek": ek})
        else:
            row = self._cursor.first(_COUNT)
        return 0 if row is None else row["count"]

    def remove(self, enrolment_id: str) -> None:
        """Forget one."""
        self._cursor.run(_FORGET, {"enrolment_id": enrolment_id})

    def purge(self, before: datetime) -> int:
        """Remove those that expired before, and return how many."""
        return _purge(self._cursor, enrolments, before)


def _pending(row: Row) -> PendingEnrolment:
    values = dict(row)
    return PendingEnrolment(group=values.pop("ak_group"), **values)
