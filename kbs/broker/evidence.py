"""Evidence kept apart from the log, encrypted, for its own retention.

The log names evidence by digest only; here lie the bytes, so that a decision can be
recomputed. Kept is what authenticated; strangers cannot fill the store.
"""

from __future__ import annotations

from datetime import timedelta

from kbs.broker.attest import Attested
from kbs.broker.ports import StoredEvidence, Transaction
from kbs.broker.vault import Vault
from kbs.core.encode import canonical_json
from kbs.core.errors import NotFoundError
from kbs.keys.secret import Secret

PURPOSE = "evidence"


class EvidenceLocker:
    """Seals evidence on its way in and opens it for auditors."""

    def __init__(self, vault: Vault, retention_days: int) -> None:
        """Keep evidence for this many days; 0 keeps none."""
        self._vault = vault
        self._retention = timedelta(days=retention_days)

    def keep(self, tx: Transaction, attested: Attested, decision: str) -> None:
        """Keep the bundle of one request, if evidence is kept at all."""
        if not self._retention:
            return
        digest = attested.asked.evidence_digest
        bundle = canonical_json(attested.asked.bundle.to_json())
        tx.evidence.insert(
            StoredEvidence(
                digest=digest,
                sealed=self._vault.seal(
                    Secret(bundle), purpose=PURPOSE, blob_id=digest.hex()
                ),
                decision=decision,
                created=attested.now,
                expires=attested.now + self._retention,
            )
        )

    def open(self, tx: Transaction, digest: bytes) -> bytes:
        """Return a bundle as canonical JSON.

        Raises:
            NotFoundError: it was never kept, or its retention ended.
        """
        found = tx.evidence.find(digest)
        if found is None:
            raise NotFoundError(
                f"evidence {digest.hex()}",
                got="none",
                hint="its retention may have ended; the log keeps the digest for ever",
            )
        secret = self._vault.open(found.sealed, purpose=PURPOSE, blob_id=digest.hex())
        return secret.reveal()
