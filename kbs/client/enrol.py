"""Enrolling an AK: proving to the broker that it lives in the TPM of a certified EK.

TPM 2.0 Library, Part 1, section 24 (credential protection). The broker encrypts a
secret to the EK that only a TPM with this AK beside it opens; the guest sends it back.
What comes of it is pending: trust begins when an administrator signs it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cryptography import x509

from kbs.client.refusal import error_of
from kbs.client.retry import Patience
from kbs.client.tpm import Tpm, open_tpm
from kbs.client.tpm_attester import attestation_key
from kbs.client.tpm_keys import EkKind, ek_kind_of
from kbs.client.transport import Transport
from kbs.core.encode import b64, canonical_json, parse_b64, require_members
from kbs.core.errors import MalformedError, UnavailableError
from kbs.core.ids import ScopedName
from kbs.evidence.vtpm.public import parse_public, spki_of

_OK = 200
_CREATED = 201
_MAX_STRUCTURE = 1024
# X.690, sections 8.1.3 and 8.9: a SEQUENCE; a length up to 127 in one byte, longer
# ones behind a byte that says how many bytes they have.
_SEQUENCE = 0x30
_LONG = 0x80


@dataclass(frozen=True, slots=True)
class EndorsementKey:
    """Which EK to use, and the certificate (DER) that a TPM's maker gave it."""

    kind: EkKind
    certificate: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Enrolment:
    """A pending enrolment, as the broker named it."""

    id: str
    status: str
    group: str
    ak_name: str

    def to_json(self) -> dict[str, object]:
        """Return the JSON form."""
        return {
            "id": self.id,
            "status": self.status,
            "group": self.group,
            "ak_name": self.ak_name,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Enroller:
    """Enrols the AK of one TPM; `certificate` (DER) stands in for the one in NV."""

    tcti: str
    ak_handle: int
    certificate: bytes | None = None
    chain: tuple[bytes, ...] = ()

    def enrol(
        self, transport: Transport, group: ScopedName, patience: Patience
    ) -> Enrolment:
        """Return the pending enrolment that the broker keeps now.

        Raises:
            UnavailableError: broker or TPM do not answer, or the TPM has no EK
                certificate.
            KbsError: the broker refuses.
        """
        with open_tpm(self.tcti) as tpm:
            endorsement = find_endorsement_key(tpm, self.certificate)
            with attestation_key(tpm, self.ak_handle) as ak:
                ak_public = ak.public
            with tpm.primary(endorsement.kind.template) as ek:
                ek_public = ek.public
        require_certified(ek_public, endorsement)
        request = {
            "group": str(group),
            "ak": b64(ak_public),
            "ek": b64(ek_public),
            "ek_certificate": b64(endorsement.certificate),
            "ek_chain": [b64(der) for der in self.chain],
        }
        return patience.persist(lambda: self._prove(transport, endorsement, request))

    def _prove(
        self, transport: Transport, endorsement: EndorsementKey, request: object
    ) -> Enrolment:
        offered = _post(
            transport,
            "/v1/enrolments",
            request,
            {"enrolment", "credential_blob", "encrypted_secret", "expires"},
        )
        blob = _structure(offered, "credential_blob")
        encrypted = _structure(offered, "encrypted_secret")
        with (
            open_tpm(self.tcti) as tpm,
            attestation_key(tpm, self.ak_handle) as ak,
            tpm.primary(endorsement.kind.template) as ek,
        ):
            secret = tpm.activate_credential(ak, ek, blob, encrypted)
        answer = {"enrolment": offered["enrolment"], "secret": b64(secret)}
        pending = _post(
            transport,
            "/v1/enrolments/activate",
            answer,
            {"id", "status", "group", "ak_name"},
        )
        return Enrolment(**{name: str(value)[:200] for name, value in pending.items()})


def find_endorsement_key(tpm: Tpm, certificate: bytes | None) -> EndorsementKey:
    """Return the EK that the given certificate, or one in the TPM, is about.

    Raises:
        UnavailableError: the TPM has no certificate, and none was given.
        MalformedError: the given one is about a key that we cannot make.
    """
    if certificate is not None:
        return EndorsementKey(ek_kind_of(_load(certificate)), certificate)
    for kind in (EkKind.ECC, EkKind.RSA):
        data = tpm.nv_read(kind.nv_certificate)
        if data is not None:
            return EndorsementKey(kind, without_padding(data))
    raise UnavailableError(
        "EK certificate",
        got="none in the TPM's NV memory",
        expected="one at 0x01c0000a (ECC) or 0x01c00002 (RSA)",
        hint="get it from the TPM's maker and give it by --ek-cert",
    )


def require_certified(ek_public: bytes, endorsement: EndorsementKey) -> None:
    """Require that the TPM made the key that the certificate is about.

    Raises:
        UnavailableError: it made another one.
    """
    key = _load(endorsement.certificate).public_key()
    made = parse_public(ek_public)
    if spki_of(made.key) != spki_of(key):  # type: ignore[arg-type] # kind was checked
        raise UnavailableError(
            "EK",
            got="a key that is not the certificate's",
            expected="the key of the EK certificate",
            hint="the certificate is another TPM's, or made for another template",
        )


def without_padding(data: bytes) -> bytes:
    """Return the DER certificate at the start of an NV index.

    Makers define the index larger than the certificate and fill it up. What is not
    DER is returned as it is, for the parser to refuse.
    """
    if len(data) < 2 or data[0] != _SEQUENCE:  # noqa: PLR2004 - tag and length
        return data
    extra = data[1] - _LONG if data[1] > _LONG else 0
    size = int.from_bytes(data[2 : 2 + extra], "big") if extra else data[1]
    return data[: 2 + extra + size]


def _load(certificate: bytes) -> x509.Certificate:
    try:
        return x509.load_der_x509_certificate(certificate)
    except ValueError as exc:
        raise MalformedError(
            "EK certificate", got="unreadable bytes", expected="a DER certificate"
        ) from exc


def _post(
    transport: Transport, path: str, document: object, members: Sequence[str] | set[str]
) -> dict[str, object]:
    reply = transport.post(path, canonical_json(document))
    if reply.status not in (_OK, _CREATED):
        raise error_of(reply)
    try:
        return require_members(reply.json(), "broker's answer", required=set(members))
    except MalformedError as exc:
        raise UnavailableError("broker's answer", got=str(exc)[:200]) from exc


def _structure(members: dict[str, object], name: str) -> bytes:
    try:
        return parse_b64(members[name], name, limit=_MAX_STRUCTURE)
    except MalformedError as exc:
        raise UnavailableError("broker's answer", got=str(exc)[:200]) from exc
