"""What a session proved, kept sealed until the session ends.

Decisions are made from this row alone, never from the token that the guest holds. It
is sealed under the key-encryption key and bound to its session, so that whoever writes
the database can end sessions, but neither make one nor change what it proved.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from kbs.broker.ports import StoredSession
from kbs.broker.snapshot import Snapshot
from kbs.broker.vault import Vault
from kbs.channel.challenge import CLOCK_SKEW_SECONDS
from kbs.channel.session import Session
from kbs.channel.tee_key import TeeKey, parse_tee_key
from kbs.core.checks import Check, Status
from kbs.core.claims import Claims
from kbs.core.claims_record import read_claims, write_claims
from kbs.core.clock import format_time, parse_time
from kbs.core.encode import canonical_json
from kbs.core.errors import MalformedError
from kbs.keys.secret import Secret
from kbs.pki.cache import Findings

_PURPOSE = "session"
_JSON = json.JSONEncoder(separators=(",", ":"))
_STATUSES = {one.value: one for one in Status}

# It follows from a state and the number of an import alone, and states may be long.
_ANCHORS: Findings[str] = Findings(16)


@dataclass(frozen=True, slots=True, kw_only=True)
class Proven:
    """What one attestation proved, and under what it was trusted.

    `claims` and `token` are None where the evidence was refused; `checks` have no got
    and expected. `anchors` is the digest of what made the evidence trusted.
    """

    decision: str
    appraised: datetime
    recipient: TeeKey
    claims: Claims | None
    identities: tuple[str, ...]
    primary: str | None
    tolerated: tuple[str, ...]
    checks: tuple[Check, ...]
    evidence: bytes
    anchors: str
    token: str | None
    expires: datetime

    @property
    def refused(self) -> tuple[str, ...]:
        """The ids of the checks that failed."""
        failed = (one.id for one in self.checks if one.status is Status.FAIL)
        return tuple(dict.fromkeys(failed))


def anchors_of(snapshot: Snapshot, collateral: int) -> str:
    """Return the digest of everything that evidence may be trusted by.

    Attestation keys, CAs and token issuers in force, and the number of the last import
    of collateral: once one of them changes, what was verified before is verified anew.
    """
    state = snapshot.state
    known = _ANCHORS.find((state,), collateral)
    if known is not None:
        return known
    document = {
        "aks": {str(name): one.digest for name, one in state.aks.items()},
        "cas": {str(name): one.digest for name, one in state.cas.items()},
        "issuers": {str(name): one.digest for name, one in state.token_issuers.items()},
        "collateral": collateral,
    }
    digest = hashlib.sha256(canonical_json(document)).hexdigest()
    return _ANCHORS.keep((state,), collateral, found=digest)


def seal_session(
    vault: Vault, session: Session, request_digest: bytes, proven: Proven
) -> StoredSession:
    """Return the row of a session that has attested."""
    claims = proven.claims
    document = {
        "appraised": format_time(proven.appraised),
        "recipient": proven.recipient.to_json(),
        "claims": None if claims is None else write_claims(claims),
        "identities": list(proven.identities),
        "primary": proven.primary,
        "tolerated": list(proven.tolerated),
        "checks": [[one.id, one.item, one.status] for one in proven.checks],
        "evidence": proven.evidence.hex(),
        "anchors": proven.anchors,
        "token": proven.token,
        "decision": proven.decision,
        "expires": format_time(proven.expires),
        "request": request_digest.hex(),
    }
    return StoredSession(
        session=session.digest,
        decision=proven.decision,
        sealed=vault.seal(
            Secret(_JSON.encode(document).encode("ascii")),
            purpose=_PURPOSE,
            blob_id=session.digest.hex(),
        ),
        expires=session.expires + timedelta(seconds=2 * CLOCK_SKEW_SECONDS),
    )


def open_session(vault: Vault, stored: StoredSession) -> tuple[Proven, bytes]:
    """Return what a row holds, and the digest of the message that spent the session.

    Raises:
        IntegrityError: it is another's, or was changed.
        MalformedError: this broker wrote something else; a mistake of ours.
    """
    secret = vault.open(stored.sealed, purpose=_PURPOSE, blob_id=stored.session.hex())
    try:
        # Sealed, so that nobody but this broker wrote it: read as it was written.
        return _read(json.loads(secret.reveal()))
    except (AttributeError, KeyError, TypeError, ValueError) as exc:
        raise MalformedError("session", got="another record than is written") from exc


def _read(members: dict[str, Any]) -> tuple[Proven, bytes]:
    claims = members["claims"]
    proven = Proven(
        decision=members["decision"],
        appraised=parse_time(members["appraised"]),
        recipient=parse_tee_key(members["recipient"]),
        claims=None if claims is None else read_claims(claims),
        identities=tuple(members["identities"]),
        primary=members["primary"],
        tolerated=tuple(members["tolerated"]),
        checks=tuple(
            [
                Check(id=check_id, item=item, status=_STATUSES[status])
                for check_id, item, status in members["checks"]
            ]
        ),
        evidence=bytes.fromhex(members["evidence"]),
        anchors=members["anchors"],
        token=members["token"],
        expires=parse_time(members["expires"]),
    )
    return proven, bytes.fromhex(members["request"])
