"""What a guest carries between the two steps of its enrolment.

The broker keeps nothing of the first step: all that it found is in a token under its
own MAC, which commits to the secret that only the TPM can give back.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from datetime import datetime

from kbs.core.clock import format_time, parse_time
from kbs.core.encode import (
    b64,
    b64u,
    canonical_json,
    parse_b64,
    parse_b64u,
    parse_hex,
    parse_json_object,
)
from kbs.core.errors import AuthenticationError
from kbs.core.ids import ScopedName, parse_scoped_name
from kbs.keys.secret import Secret
from kbs.pki import certificates as pki

MAX_PUBLIC_BYTES = 1024
MAX_TOKEN_BYTES = 64 * 1024

_CONTEXT = b"kbs.enrolment/1\x00"


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """An AK and EK that passed every check that needs no TPM."""

    group: ScopedName
    ak_public: bytes
    ak_name: bytes
    ek_certificate: bytes
    ca: str
    expires: datetime

    def to_json(self) -> dict[str, object]:
        """Return the JSON form."""
        return {
            "group": str(self.group),
            "ak": b64(self.ak_public),
            "ak_name": self.ak_name.hex(),
            "ek_certificate": b64(self.ek_certificate),
            "ca": self.ca,
            "expires": format_time(self.expires),
        }


class EnrolmentTokens:
    """Makes and opens tokens under one key."""

    def __init__(self, key: Secret) -> None:
        """Use the state key of the instance."""
        self._key = key

    def make(self, candidate: Candidate, secret: bytes) -> str:
        """Return the token of a candidate; it commits to the secret, and hides it."""
        payload = canonical_json(candidate.to_json())
        return b64u(payload + self._mac(payload, secret))

    def open(self, token: object, secret: bytes, now: datetime) -> Candidate:
        """Return the candidate of a token whose TPM opened the credential.

        Raises:
            MalformedError: it lacks the shape of a token.
            AuthenticationError: it is not ours, too old, or the secret is wrong.
        """
        data = parse_b64u(token, "enrolment token", limit=MAX_TOKEN_BYTES)
        payload, mac = data[:-32], data[-32:]
        if not hmac.compare_digest(self._mac(payload, secret), mac):
            raise AuthenticationError(
                "enrolment",
                got="a secret that is not the credential's",
                expected="the secret that ActivateCredential returns",
                hint="AK and EK must live in one TPM; begin again",
                code="enrolment.secret",
            )
        members = parse_json_object(payload, "enrolment token", limit=MAX_TOKEN_BYTES)
        candidate = Candidate(
            group=parse_scoped_name(members["group"]),
            ak_public=parse_b64(members["ak"], "ak", limit=MAX_PUBLIC_BYTES),
            ak_name=parse_hex(members["ak_name"], "ak name"),
            ek_certificate=parse_b64(
                members["ek_certificate"], "ek", limit=pki.MAX_CERTIFICATE_BYTES
            ),
            ca=str(members["ca"]),
            expires=parse_time(members["expires"]),
        )
        if candidate.expires <= now:
            raise AuthenticationError(
                "enrolment",
                got=f"one that ended at {format_time(candidate.expires)}",
                expected="an answer within five minutes",
                hint="begin again",
                code="enrolment.expired",
            )
        return candidate

    def _mac(self, payload: bytes, secret: bytes) -> bytes:
        message = _CONTEXT + hashlib.sha256(secret).digest() + payload
        return hmac.digest(self._key.reveal(), message, "sha256")
