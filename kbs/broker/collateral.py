"""The local collateral table: certificates and revocation lists, without any trust.

Verifiers get a snapshot in memory; it is read again only when the table changed.
Fetching from vendors is not done here.
"""

from __future__ import annotations

import hashlib
from datetime import datetime

from cryptography import x509

from kbs.broker.actors import Actor
from kbs.broker.journal import Journal
from kbs.broker.ports import Database, StoredCollateral, Transaction
from kbs.core.clock import Clock, format_time
from kbs.core.encode import parse_b64, require_list, require_members
from kbs.core.errors import KbsError, MalformedError
from kbs.evidence.model import GivenCollateral
from kbs.governance.authority import Role
from kbs.pki import certificates as pki

MAX_ITEMS = 256
"""Most files in one import."""


class CollateralTable:
    """Imports, lists and hands out vendor collateral."""

    def __init__(self, database: Database, journal: Journal, clock: Clock) -> None:
        """Start without a snapshot."""
        self._database = database
        self._journal = journal
        self._clock = clock
        self._snapshot: tuple[tuple[int, str], GivenCollateral] | None = None

    def current(self, tx: Transaction) -> GivenCollateral:
        """Return everything in the table, from memory while it did not change."""
        fingerprint = tx.collateral.fingerprint()
        snapshot = self._snapshot
        if snapshot is not None and snapshot[0] == fingerprint:
            return snapshot[1]
        rows = tx.collateral.list()
        loaded = GivenCollateral(
            tuple(
                pki.load_der_certificate(row.der, f"collateral {row.subject}")
                for row in rows
                if row.kind == "certificate"
            ),
            tuple(
                pki.load_der_crl(row.der, f"collateral {row.issuer}")
                for row in rows
                if row.kind == "crl"
            ),
        )
        self._snapshot = (fingerprint, loaded)
        return loaded

    def list(self, actor: Actor) -> dict[str, object]:
        """Return what is in the table; any administrator may see it."""
        actor.require_any()
        with self._database.read() as tx:
            rows = tx.collateral.list()
        return {"collateral": [_to_json(row) for row in rows]}

    def import_items(self, actor: Actor, body: dict[str, object]) -> dict[str, object]:
        """Keep certificates and revocation lists from files in DER or PEM.

        Raises:
            MalformedError: a file is neither; nothing of the import is kept.
            ForbiddenError: the caller is no policy administrator.
        """
        actor.require_anywhere(Role.POLICY_ADMIN)
        members = require_members(body, "collateral", required={"items"})
        items = require_list(members["items"], "collateral items", limit=MAX_ITEMS)
        now = self._clock.now()
        rows = [
            row
            for place, item in enumerate(items, 1)
            for row in _read(item, place, now)
        ]
        done = self._journal.administer(
            actor,
            "collateral.import",
            lambda work: sum(work.tx.collateral.insert(row) for row in rows),
            detail=f"{len(rows)} certificates and revocation lists",
        )
        return {
            "read": len(rows),
            "added": done.value,
            "entry": done.placed[0].entry.id,
        }


def _read(item: object, place: int, now: datetime) -> list[StoredCollateral]:
    what = f"collateral item {place}"
    data = parse_b64(item, what, limit=pki.MAX_CRL_BYTES * 2)
    try:
        return [_certificate(one, now) for one in pki.load_certificates(data, what)]
    except KbsError:
        pass
    try:
        return [_crl(one, now) for one in pki.load_crls(data, what)]
    except KbsError as exc:
        raise MalformedError(
            what, expected="certificates or revocation lists, DER or PEM"
        ) from exc


def _certificate(certificate: x509.Certificate, now: datetime) -> StoredCollateral:
    der = pki.der(certificate)
    return StoredCollateral(
        digest=hashlib.sha256(der).digest(),
        kind="certificate",
        subject=certificate.subject.rfc4514_string(),
        issuer=certificate.issuer.rfc4514_string(),
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
        der=der,
        imported=now,
    )


def _crl(crl: x509.CertificateRevocationList, now: datetime) -> StoredCollateral:
    der = pki.der(crl)
    return StoredCollateral(
        digest=hashlib.sha256(der).digest(),
        kind="crl",
        subject="",
        issuer=crl.issuer.rfc4514_string(),
        not_before=crl.last_update_utc,
        not_after=crl.next_update_utc,
        der=der,
        imported=now,
    )


def _to_json(row: StoredCollateral) -> dict[str, object]:
    return {
        "sha256": row.digest.hex(),
        "kind": row.kind,
        "subject": row.subject,
        "issuer": row.issuer,
        "not_before": format_time(row.not_before),
        "not_after": None if row.not_after is None else format_time(row.not_after),
        "imported": format_time(row.imported),
    }
