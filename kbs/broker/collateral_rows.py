"""Rows of the collateral table for devices: OCSP answers and manifests.

A manifest is kept in the form in which NVIDIA's service gives it, `{"id", "rim": b64}`:
the id is nowhere in the signed document, and one of several with equal versions may be
for another board.
"""

from __future__ import annotations

import hashlib
import re
from datetime import datetime

from cryptography.x509 import ocsp

from kbs.broker.ports import StoredCollateral
from kbs.core.encode import (
    b64,
    canonical_json,
    parse_b64,
    parse_json_object,
    require_members,
    require_text,
)
from kbs.core.errors import MalformedError, VerificationError
from kbs.evidence.model import StoredRim
from kbs.evidence.nvgpu.rim import verify_rim
from kbs.evidence.nvgpu.rim_xml import MAX_RIM_BYTES
from kbs.pki.certificates import describe
from kbs.pki.ocsp import load_ocsp_answer

OCSP = "ocsp"
RIM = "rim"

_MAX_ID = 128
# No more than a name: it is shown in lists, and one database takes no NUL in a text.
_ID = re.compile(r"[\x21-\x7e]{0,128}", re.ASCII)


def device_row(data: bytes, what: str, now: datetime) -> StoredCollateral | None:
    """Return the row for a manifest or an OCSP answer, None for anything else.

    Raises:
        MalformedError: it is a manifest, and not of the accepted profile or unsigned.
    """
    if data.lstrip(b" \t\r\n").startswith(b"{"):
        return _rim_row(data, what, now) if _has_rim(data) else None
    try:
        return _ocsp_row(load_ocsp_answer(data, what), data, now)
    except MalformedError:
        return None


def stored_rim_bytes(rim: StoredRim) -> bytes:
    """Return the one form in which a manifest is kept."""
    return canonical_json({"id": rim.rim_id or "", "rim": b64(rim.document)})


def load_stored_rim(data: bytes) -> StoredRim:
    """Read a manifest in the form in which it is kept.

    Raises:
        MalformedError: it has another form.
    """
    members = require_members(
        parse_json_object(data, "rim", limit=2 * MAX_RIM_BYTES),
        "rim",
        required={"id", "rim"},
    )
    document = parse_b64(members["rim"], "rim", limit=MAX_RIM_BYTES)
    return StoredRim(
        document, require_text(members["id"], "rim id", limit=_MAX_ID) or None
    )


def _has_rim(data: bytes) -> bool:
    # What is no JSON at all is told by whoever reads the other vendors' documents.
    try:
        return "rim" in parse_json_object(data, "rim", limit=2 * MAX_RIM_BYTES)
    except MalformedError:
        return False


def _rim_row(data: bytes, what: str, now: datetime) -> StoredCollateral:
    stored = load_stored_rim(data)
    if stored.rim_id is not None and _ID.fullmatch(stored.rim_id) is None:
        got = ascii(stored.rim_id)[:80]
        raise MalformedError(f"{what} id", got=got, expected="visible ASCII")
    try:
        rim = verify_rim(stored.document)
    except VerificationError as exc:
        # What nobody signed helps nobody; whose the signer is, a verifier asks.
        raise MalformedError(what, got=str(exc), expected="a signed manifest") from exc
    der = stored_rim_bytes(stored)
    return StoredCollateral(
        digest=hashlib.sha256(der).digest(),
        kind=RIM,
        subject=stored.rim_id or f"{rim.product} {rim.version}",
        issuer=describe(rim.signer.issuer),
        not_before=rim.signer.not_valid_before_utc,
        not_after=rim.signer.not_valid_after_utc,
        der=der,
        imported=now,
    )


def _ocsp_row(
    answer: ocsp.OCSPResponse, data: bytes, now: datetime
) -> StoredCollateral:
    single = next(iter(answer.responses))
    responder = answer.responder_name
    return StoredCollateral(
        digest=hashlib.sha256(data).digest(),
        kind=OCSP,
        subject=f"serial {single.serial_number:x}",
        issuer="" if responder is None else describe(responder),
        not_before=single.this_update_utc,
        not_after=single.next_update_utc,
        der=data,
        imported=now,
    )
