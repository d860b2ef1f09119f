"""Evidence kept apart from the log, encrypted, for its own retention.

The log names evidence by digest only; here lie the bytes as they came, so that a
decision can be recomputed. Kept is what authenticated; strangers cannot fill the
store. And only what an entry names: evidence of an RCAR session waits in the session,
and ends with it where no resource was asked for. Who did authenticate cannot fill the
store either: a large bundle is not kept, and when all of them together pass the cap,
the oldest go before their time, which the log tells (an `evidence.expired` whose
`before` lies ahead). The newest are worth most, and what is kept no more can still be
recognised by its digest in the log.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from kbs.audit.events import EvidenceExpired
from kbs.broker.attest import Attested, Presented
from kbs.broker.ports import Database, StoredEvidence, Transaction
from kbs.broker.vault import Vault
from kbs.core.errors import NotFoundError
from kbs.keys.secret import Secret

PURPOSE = "evidence"

MAX_KEPT_BYTES = 256 * 1024
"""Largest bundle that is kept; a composite of all families is a tenth of it."""

ERASED_AT_ONCE = 1000
"""Most bundles erased in one transaction; all their digests are in its entry."""

RECOUNT_INTERVAL = timedelta(hours=1)
"""How often all that is kept is measured, if this process adds little."""

_RECOUNT_PART = 16
"""It is measured too when this process added that part of the cap."""


class EvidenceLocker:
    """Seals evidence on its way in, opens it for auditors, and erases it in time."""

    def __init__(self, vault: Vault, retention_days: int, max_bytes: int) -> None:
        """Keep evidence for this many days, and up to so many bytes; 0 keeps none."""
        self._vault = vault
        self._retention = timedelta(days=retention_days)
        self._max_bytes = max_bytes
        self._added = 0
        self._counted: datetime | None = None

    def keep(
        self, tx: Transaction, attested: Attested[Presented], decision: str
    ) -> None:
        """Keep the bundle of one request, if evidence like it is kept at all."""
        sealed = self.seal(attested.asked)
        if sealed is not None:
            self._insert(
                tx,
                sealed,
                digest=attested.asked.evidence_digest,
                decision=decision,
                created=attested.now,
            )

    def seal(self, asked: Presented) -> bytes | None:
        """Return a bundle sealed, None if evidence like it is not kept."""
        if not (self._retention and self._max_bytes):
            return None
        if len(asked.body) > MAX_KEPT_BYTES:
            return None
        sealed = self._vault.seal(
            Secret(asked.body), purpose=PURPOSE, blob_id=asked.evidence_digest.hex()
        )
        # Too much if it is not stored after all: then it is only measured sooner.
        self._added += len(sealed)
        return sealed

    def keep_of_session(
        self,
        tx: Transaction,
        session: bytes,
        *,
        digest: bytes,
        decision: str,
        created: datetime,
    ) -> None:
        """Keep what waits in a session: the entry of a decision names it now."""
        sealed = tx.sessions.take_evidence(session)
        if sealed is not None and self._retention:
            self._insert(tx, sealed, digest=digest, decision=decision, created=created)

    def _insert(
        self,
        tx: Transaction,
        sealed: bytes,
        *,
        digest: bytes,
        decision: str,
        created: datetime,
    ) -> None:
        tx.evidence.insert(
            StoredEvidence(
                digest=digest,
                sealed=sealed,
                decision=decision,
                created=created,
                expires=created + self._retention,
            )
        )

    def expired_before(self, database: Database, now: datetime) -> datetime:
        """Return the time up to which evidence may expire and has to go now.

        That is now, or later where all of it together is over the cap.
        """
        if not self._is_time_to_count(now):
            return now
        added = self._added
        with database.read() as tx:
            overflow = tx.evidence.overflow(self._max_bytes)
        self._added -= added
        self._counted = now
        return now if overflow is None else max(now, overflow)

    def erase(self, tx: Transaction, before: datetime) -> EvidenceExpired | None:
        """Erase one batch of what expires before a time, and return its event."""
        digests = tx.evidence.purge(before, limit=ERASED_AT_ONCE)
        if not digests:
            return None
        return EvidenceExpired(
            count=len(digests),
            before=before,
            digests=tuple(digest.hex() for digest in digests),
        )

    def _is_time_to_count(self, now: datetime) -> bool:
        if self._counted is None or self._added >= self._max_bytes // _RECOUNT_PART:
            return True
        return abs(now - self._counted) >= RECOUNT_INTERVAL

    def open(self, tx: Transaction, digest: bytes) -> bytes:
        """Return a bundle, byte for byte as it came.

        Raises:
            NotFoundError: it was never kept, or its retention ended.
        """
        found = tx.evidence.find(digest)
        if found is None:
            raise NotFoundError(
                f"evidence {digest.hex()}",
                got="none",
                hint="it was large, or its retention ended; the log keeps the digest",
            )
        secret = self._vault.open(found.sealed, purpose=PURPOSE, blob_id=digest.hex())
        return secret.reveal()
