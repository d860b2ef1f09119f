"""Pending enrolments as rows that only this broker can have written.

What a guest proved by credential activation is kept until an administrator signs it.
The row says which AK was proven beside which EK, and a statement that says
`activation` repeats it, so each row carries a MAC under a key that the database does
not show: whoever can only write there can take rows away, and bring back rows that
were once there, but can put no other AK into one.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from kbs.broker.ports import EnrolmentStore, PendingEnrolment, Transaction
from kbs.core.clock import format_time
from kbs.core.encode import canonical_json
from kbs.core.errors import ConflictError, IntegrityError, UnavailableError
from kbs.core.ids import ScopedName
from kbs.governance.attestation_key import AttestationKey, Enrolment
from kbs.keys.secret import Secret

MAX_PENDING = 10_000
"""Pending enrolments kept at once."""

MAX_PENDING_OF_TENANT = 1_000
"""Those of one tenant, so that no tenant's guests take the room of the others."""

MAX_PENDING_OF_EK = 8
"""Those of one endorsement key, so that one TPM does not take its tenant's room."""

# Of the uses of the state key, no context is a prefix of another one.
_CONTEXT = b"kbs.enrolment.pending/1\x00"


class PendingSeal:
    """Makes and checks the MACs of pending enrolments."""

    def __init__(
        self, key: Secret, report: Callable[[IntegrityError], None] = lambda _: None
    ) -> None:
        """Use the broker's state key; tell `report` once of each row found changed."""
        self._key = key
        self._report = report
        self._reported: set[str] = set()

    def seal(self, pending: PendingEnrolment) -> PendingEnrolment:
        """Return the row with its MAC."""
        return replace(pending, mac=self._mac(pending))

    def is_whole(self, pending: PendingEnrolment) -> bool:
        """Whether this broker wrote the row as it stands."""
        return hmac.compare_digest(pending.mac, self._mac(pending))

    def verify(self, pending: PendingEnrolment) -> None:
        """Return if this broker wrote the row as it stands.

        Raises:
            IntegrityError: it was changed; reported as well.
        """
        fault = self.fault(pending)
        if fault is not None:
            raise fault

    def fault(self, pending: PendingEnrolment) -> IntegrityError | None:
        """Return what is wrong with a row, if anything; reported as well."""
        if self.is_whole(pending):
            return None
        fault = IntegrityError(
            f"pending enrolment {pending.id[:32]}",
            got="a row that was changed in the database",
            expected="the row that this broker wrote when the guest proved its key",
            hint="forget it (kbs ref forget ID) and have the guest enrol again",
            code="enrolment.tampered",
        )
        seen = hashlib.sha256(pending.mac + self._mac(pending)).hexdigest()
        # A row is asked for many times; the log is told once by each process.
        if seen not in self._reported and len(self._reported) < MAX_PENDING:
            self._reported.add(seen)
            self._report(fault)
        return fault

    def settle(
        self, tx: Transaction, subject: ScopedName, key: AttestationKey, now: datetime
    ) -> None:
        """Return if a guest proved this AK; what was pending is settled by it.

        Raises:
            ConflictError: it is said to be proven, and nothing is pending.
            IntegrityError: what is pending was changed in the database.
        """
        if key.how is Enrolment.MANUAL:
            return
        for pending in tx.enrolments.list((subject.tenant,)):
            proven = (pending.group, pending.ak_name, pending.ek.hex())
            if proven == (key.group, key.name, key.ek) and pending.expires > now:
                self.verify(pending)
                tx.enrolments.remove(pending.id)
                return
        raise ConflictError(
            f"ak {subject}",
            got="no pending enrolment of this key and EK in this group",
            expected="one that the guest proved by credential activation",
            hint="run `kbs guest enroll` again, or register the key by hand",
            code="enrolment.missing",
        )

    def _mac(self, pending: PendingEnrolment) -> bytes:
        message = _CONTEXT + canonical_json(
            {
                "id": pending.id,
                "tenant": pending.tenant,
                "group": pending.group,
                "ak_public": pending.ak_public.hex(),
                "ak_name": pending.ak_name.hex(),
                "ek": pending.ek.hex(),
                "ek_certificate": pending.ek_certificate.hex(),
                "ca": pending.ca,
                "created": format_time(pending.created),
                "expires": format_time(pending.expires),
            }
        )
        return hmac.digest(self._key.reveal(), message, "sha256")


def require_room(store: EnrolmentStore, pending: PendingEnrolment) -> None:
    """Return if another enrolment may be kept for this tenant and this EK.

    Raises:
        UnavailableError: too many are pending.
    """
    for of, count, limit in (
        ("", store.count(), MAX_PENDING),
        (
            f" in {pending.tenant}",
            store.count(tenant=pending.tenant),
            MAX_PENDING_OF_TENANT,
        ),
        (" of this TPM", store.count(ek=pending.ek), MAX_PENDING_OF_EK),
    ):
        if count >= limit:
            raise UnavailableError(
                "enrolments",
                got=f"{count} pending{of}",
                expected=f"fewer than {limit}",
                hint="an administrator has to accept or forget some",
                code="enrolment.full",
            )
