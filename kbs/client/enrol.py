"""Enrolling an AK: proving to the broker that it lives in the TPM of a certified EK.

TPM 2.0 Library, Part 1, section 24 (credential protection). The broker encrypts a
secret to the EK that only a TPM with this AK beside it opens; the guest sends it back.
What comes of it is pending: trust begins when an administrator signs it.

No answer here is signed by the broker, so each may be an attacker's on the network.
What he can get by that:

* TPM2_ActivateCredential gives up a secret only if it was encrypted to this EK for the
  name of this AK, and the secret goes to the server that sent it. One that he made, he
  knew. One that he relays from another broker or CA proves there that this AK is in
  this TPM, which is true. Neither key signs or decrypts anything else by it; a blob
  that does not open is an error of the TPM without a penalty: no authorization failed.
* If he relays with another group, the enrolment is pending in that group, where an
  administrator who expects no such machine does not sign it. If he makes the answer up,
  nothing is pending.
* He learns the EK certificate, which names the machine. `--broker-key` finds out first
  that the right broker is at the other end, `--tls-sha256` that nobody is in between.

What is shown to people is therefore our own words: the group that was asked for and the
name that this AK has, and of the answer only an id of fixed form.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from cryptography import x509

from kbs.client.refusal import error_of
from kbs.client.retry import Patience
from kbs.client.tpm import Tpm, open_tpm
from kbs.client.tpm_attester import attestation_key
from kbs.client.tpm_keys import EkKind, ek_kind_of
from kbs.client.transport import Transport
from kbs.core.encode import (
    b64,
    canonical_json,
    parse_b64,
    require_members,
    require_text,
)
from kbs.core.errors import MalformedError, UnavailableError, VerificationError
from kbs.core.ids import ScopedName, parse_hex32
from kbs.evidence.vtpm.public import parse_public, spki_of

T = TypeVar("T")

_OK = 200
_CREATED = 201
_MAX_STRUCTURE = 1024
# The broker takes 64 KiB back, which is this many characters of base64url.
_MAX_TOKEN = 88 * 1024
_PENDING = "pending"
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
            VerificationError: the certificate is another TPM's, or what is pending is
                not what was asked for.
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
        ak_name = parse_public(ak_public).name.hex()

        def attempt() -> Enrolment:
            pending = self._prove(transport, endorsement, request)
            return _read_pending(pending, group=str(group), ak_name=ak_name)

        return patience.persist(attempt)

    def _prove(
        self, transport: Transport, endorsement: EndorsementKey, request: object
    ) -> dict[str, object]:
        offered = _post(
            transport,
            "/v1/enrolments",
            request,
            {"enrolment", "credential_blob", "encrypted_secret", "expires"},
        )
        token = _understood(
            lambda: require_text(offered["enrolment"], "enrolment", limit=_MAX_TOKEN)
        )
        blob = _structure(offered, "credential_blob")
        encrypted = _structure(offered, "encrypted_secret")
        with (
            open_tpm(self.tcti) as tpm,
            attestation_key(tpm, self.ak_handle) as ak,
            tpm.primary(endorsement.kind.template) as ek,
        ):
            secret = tpm.activate_credential(ak, ek, blob, encrypted)
        return _post(
            transport,
            "/v1/enrolments/activate",
            {"enrolment": token, "secret": b64(secret)},
            {"id", "status", "group", "ak_name"},
        )


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
        VerificationError: it made another one.
    """
    key = _load(endorsement.certificate).public_key()
    made = parse_public(ek_public)
    if spki_of(made.key) != spki_of(key):  # type: ignore[arg-type] # kind was checked
        raise VerificationError(
            "EK",
            got="a key that is not the certificate's",
            expected="the key of the EK certificate",
            hint="the certificate is another TPM's, or made for another template",
            code="enrolment.ek",
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
    except (ValueError, x509.InvalidVersion) as exc:
        raise MalformedError(
            "EK certificate", got="unreadable bytes", expected="a DER certificate"
        ) from exc


def _post(
    transport: Transport, path: str, document: object, members: set[str]
) -> dict[str, object]:
    reply = transport.post(path, canonical_json(document))
    if reply.status not in (_OK, _CREATED):
        raise error_of(reply)
    return _understood(
        lambda: require_members(reply.json(), "enrolment", required=members)
    )


def _structure(members: dict[str, object], name: str) -> bytes:
    return _understood(lambda: parse_b64(members[name], name, limit=_MAX_STRUCTURE))


def _read_pending(members: dict[str, object], *, group: str, ak_name: str) -> Enrolment:
    """Return the enrolment that was asked for, if the answer is about it."""
    for name, expected in (
        ("status", _PENDING),
        ("group", group),
        ("ak_name", ak_name),
    ):
        if members[name] != expected:
            raise VerificationError(
                f"enrolment {name}",
                got=ascii(members[name])[:200],
                expected=expected,
                hint="who answered is not the broker, or somebody changed the request",
                code="enrolment.answer",
            )
    return Enrolment(
        id=_understood(lambda: parse_hex32(members["id"], "enrolment id")),
        status=_PENDING,
        group=group,
        ak_name=ak_name,
    )


def _understood(read: Callable[[], T]) -> T:
    # Nothing that was written here is malformed: whoever answered is not a broker.
    try:
        return read()
    except MalformedError as exc:
        raise UnavailableError("broker's answer", got=str(exc)[:200]) from exc
