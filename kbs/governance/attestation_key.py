"""An enrolled attestation key: the governed object that makes one AK trusted.

It holds the TPM2B_PUBLIC and the TPM name that follows from it. Whether the key's
attributes are those of an attestation key is for the vTPM verifier to say.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from kbs.core.encode import b64, canonical_json, parse_b64, parse_hex, require_members
from kbs.core.errors import MalformedError
from kbs.core.ids import parse_name
from kbs.core.reader import Reader

_MAX_PUBLIC = 1024
_SHA256_SIZE = 32
# TPM 2.0 Library, Part 2, table 9 (TPM_ALG_ID).
_NAME_ALGORITHMS: Mapping[int, str] = {
    0x000B: "sha256",
    0x000C: "sha384",
    0x000D: "sha512",
}


class Enrolment(StrEnum):
    """How an attestation key came to be trusted."""

    ACTIVATION = "activation"
    MANUAL = "manual"


@dataclass(frozen=True, slots=True, kw_only=True)
class AttestationKey:
    """An AK in a group: its TPM name, its TPM2B_PUBLIC, and how it was enrolled.

    `ek` is hex SHA-256 of the endorsement key's SPKI, where activation proved one.
    """

    group: str
    name: bytes
    public: bytes
    how: Enrolment
    ek: str | None = None

    def to_json(self) -> dict[str, object]:
        """Return the JSON form."""
        document: dict[str, object] = {
            "group": self.group,
            "name": self.name.hex(),
            "public": b64(self.public),
            "how": self.how.value,
        }
        if self.ek is not None:
            document["ek"] = self.ek
        return document

    def canonical(self) -> bytes:
        """Return the content."""
        return canonical_json(self.to_json())


def parse_attestation_key(value: object) -> AttestationKey:
    """Accept an AK whose name is the one that its TPM2B_PUBLIC gives.

    Raises:
        MalformedError: anything else.
    """
    members = require_members(
        value, "ak", required={"group", "name", "public", "how"}, optional={"ek"}
    )
    public = parse_b64(members["public"], "ak public", limit=_MAX_PUBLIC)
    name = parse_hex(members["name"], "ak name")
    if name != tpm_name(public):
        raise MalformedError(
            "ak name", got=name.hex()[:140], expected=tpm_name(public).hex()
        )
    ek = None
    if "ek" in members:
        ek = parse_hex(members["ek"], "ak ek", size=_SHA256_SIZE).hex()
    how = _parse_enrolment(members["how"])
    if how is Enrolment.ACTIVATION and ek is None:
        raise MalformedError("ak ek", got="none", expected="the EK that activated it")
    return AttestationKey(
        group=parse_name(members["group"], "ak group"),
        name=name,
        public=public,
        how=how,
        ek=ek,
    )


def tpm_name(public: bytes) -> bytes:
    """Return the name of a TPM2B_PUBLIC: u16 nameAlg and digest of the TPMT_PUBLIC.

    TPM 2.0 Library, Part 1, section 16 ("Names").

    Raises:
        MalformedError: it is no TPM2B_PUBLIC, or names another hash.
    """
    reader = Reader(public, "TPM2B_PUBLIC")
    area = reader.sized(2, "publicArea", limit=_MAX_PUBLIC)
    reader.end()
    inner = Reader(area, "TPMT_PUBLIC")
    inner.take(2, "type")
    algorithm = inner.big(2, "nameAlg")
    if algorithm not in _NAME_ALGORITHMS:
        raise MalformedError(
            "TPMT_PUBLIC nameAlg",
            got=f"0x{algorithm:04x}",
            expected="SHA-256, SHA-384 or SHA-512",
        )
    digest = hashlib.new(_NAME_ALGORITHMS[algorithm], area).digest()
    return algorithm.to_bytes(2, "big") + digest


def _parse_enrolment(value: object) -> Enrolment:
    if isinstance(value, str) and value in {how.value for how in Enrolment}:
        return Enrolment(value)
    raise MalformedError(
        "ak how", got=repr(value)[:40], expected="activation or manual"
    )
