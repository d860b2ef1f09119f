"""Revoked, on hold, unknown and missing are four things; and who may say so."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp

from kbs.core.errors import MalformedError
from kbs.pki.cache import LinkCache
from kbs.pki.certificates import der
from kbs.pki.ocsp import MAX_OCSP_BYTES, load_ocsp_answer
from kbs.pki.status import CertificateState, status_of
from tests.fakes.nvidia import NOW, Device, FakeNvidia, name

NVIDIA = FakeNvidia()
GPU = Device()
CHAIN = NVIDIA.device_chain(GPU)
BROM, ICA, IDENTITY = CHAIN[1:4]
LABEL, BY = NVIDIA.brom(GPU), "GH100 ica"
HOUR = timedelta(hours=1)
HOLD = x509.ReasonFlags.certificate_hold
COMPROMISE = x509.ReasonFlags.key_compromise
State = CertificateState


def answer(**changes: Any) -> ocsp.OCSPResponse:
    return NVIDIA.answer(LABEL, BROM, ICA, BY, **changes)


def crl(
    reason: x509.ReasonFlags | str | None = "not listed", **changes: Any
) -> x509.CertificateRevocationList:
    entries = {}
    if not isinstance(reason, str):
        entries[BROM.serial_number] = reason
    return NVIDIA.crl(ICA, BY, entries, **changes)


def state(
    *words: ocsp.OCSPResponse | x509.CertificateRevocationList, **changes: Any
) -> CertificateState:
    return status_of(
        BROM,
        changes.get("issuer", ICA),
        lists=[w for w in words if isinstance(w, x509.CertificateRevocationList)],
        answers=[w for w in words if isinstance(w, ocsp.OCSPResponse)],
        now=changes.get("now", NOW),
        cache=LinkCache(),
    ).state


def at(hours: int, **changes: Any) -> ocsp.OCSPResponse:
    """An answer that is `hours` old."""
    return answer(this_update=NOW - hours * HOUR, **changes)


def test_nothing_known_is_missing() -> None:
    assert state() is State.MISSING


@pytest.mark.parametrize("delegated", [True, False])
def test_a_good_answer_by_issuer_or_delegate(delegated: bool) -> None:  # noqa: FBT001
    assert state(answer(delegated=delegated)) is State.GOOD


def test_a_list_that_does_not_name_it_is_good() -> None:
    assert state(crl()) is State.GOOD


@pytest.mark.parametrize(
    ("reason", "wanted"),
    [(COMPROMISE, State.REVOKED), (HOLD, State.HOLD)],
)
def test_both_sources_revoke_and_hold(
    reason: x509.ReasonFlags, wanted: CertificateState
) -> None:
    assert state(answer(reason=reason)) is wanted
    assert state(crl(reason)) is wanted


def test_a_list_without_a_reason_revokes() -> None:
    assert state(crl(None)) is State.REVOKED


def test_what_has_run_out_clears_nobody() -> None:
    assert state(at(30)) is State.MISSING
    assert state(crl(), now=NOW + timedelta(days=90)) is State.MISSING


def test_a_revocation_is_never_undone() -> None:
    old = at(1000, reason=COMPROMISE)
    assert state(old, at(1), crl()) is State.REVOKED


def test_a_hold_is_lifted_by_something_newer_only() -> None:
    held = at(5, reason=HOLD)
    assert state(held, at(1)) is State.GOOD
    assert state(held, at(9)) is State.HOLD
    assert state(at(100, reason=HOLD)) is State.HOLD
    assert state(at(100, reason=HOLD), at(30)) is State.HOLD


def test_a_hold_and_a_good_answer_of_one_time_hold() -> None:
    assert state(at(5, reason=HOLD), at(5)) is State.HOLD


def test_unknown_is_no_status_but_another_source_may_know() -> None:
    stranger = FakeNvidia(unknown={LABEL})
    unknown = stranger.answer(LABEL, BROM, ICA, BY)
    assert state(unknown) is State.UNKNOWN
    assert state(unknown, crl()) is State.GOOD
    assert state(unknown, now=NOW + timedelta(days=9)) is State.MISSING


def test_an_answer_of_the_future_is_not_heard() -> None:
    assert state(at(-2, reason=COMPROMISE)) is State.MISSING


# --- who may say so ---------------------------------------------------------------


def test_a_delegate_needs_the_usage() -> None:
    assert state(answer(usage=False)) is State.MISSING


def test_a_delegate_with_a_critical_extension_is_not_heard() -> None:
    assert state(answer(critical=True)) is State.MISSING


def test_a_delegate_of_another_issuer_is_not_heard() -> None:
    assert state(answer(signer="stranger")) is State.MISSING


def test_an_issuer_is_not_heard_about_anothers_certificates() -> None:
    other = NVIDIA.answer(LABEL, BROM, IDENTITY, "GH100 identity", reason=COMPROMISE)
    assert state(other) is State.MISSING
    assert state(answer(), issuer=IDENTITY) is State.MISSING


def test_an_answer_about_another_certificate_says_nothing() -> None:
    other = NVIDIA.answer(BY, ICA, IDENTITY, "GH100 identity")
    assert state(other) is State.MISSING


def test_a_signature_that_does_not_hold_is_not_heard() -> None:
    data = bytearray(answer(delegated=False).public_bytes(Encoding.DER))
    data[-1] ^= 1
    assert state(load_ocsp_answer(bytes(data), "answer")) is State.MISSING


def test_a_weak_hash_is_not_heard() -> None:
    key = NVIDIA.key(BY)
    weak = (
        ocsp.OCSPResponseBuilder()
        .add_response(
            cert=BROM,
            issuer=ICA,
            algorithm=hashes.SHA384(),
            cert_status=ocsp.OCSPCertStatus.GOOD,
            this_update=NOW - HOUR,
            next_update=NOW + HOUR,
            revocation_time=None,
            revocation_reason=None,
        )
        .responder_id(ocsp.OCSPResponderEncoding.NAME, ICA)
        .sign(key, hashes.SHA224())
    )
    assert state(weak) is State.MISSING


def test_an_rsa_issuer_answers_by_name() -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    subject = name("RSA issuer")
    issuer = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(3)
        .not_valid_before(NOW - HOUR)
        .not_valid_after(NOW + HOUR)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    leaf = (
        x509.CertificateBuilder()
        .subject_name(name("leaf"))
        .issuer_name(subject)
        .public_key(NVIDIA.key("x").public_key())
        .serial_number(4)
        .not_valid_before(NOW - HOUR)
        .not_valid_after(NOW + HOUR)
        .sign(key, hashes.SHA256())
    )
    given = (
        ocsp.OCSPResponseBuilder()
        .add_response(
            cert=leaf,
            issuer=issuer,
            algorithm=hashes.SHA1(),  # noqa: S303
            cert_status=ocsp.OCSPCertStatus.GOOD,
            this_update=NOW - HOUR,
            next_update=NOW + HOUR,
            revocation_time=None,
            revocation_reason=None,
        )
        .responder_id(ocsp.OCSPResponderEncoding.NAME, issuer)
        .sign(key, hashes.SHA256())
    )
    found = status_of(
        leaf, issuer, lists=(), answers=(given,), now=NOW, cache=LinkCache()
    )
    assert found.state is State.GOOD


def test_an_issuer_with_another_kind_of_key_is_not_heard() -> None:
    key = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32))
    # Under the very name of the one who answered.
    subject = ICA.subject
    issuer = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(3)
        .not_valid_before(NOW - HOUR)
        .not_valid_after(NOW + HOUR)
        .sign(key, None)
    )
    assert state(answer(), issuer=issuer) is State.MISSING


def test_two_statuses_in_one_answer_are_malformed() -> None:
    """Only one is asked for at a time; which of two would count?"""
    data = answer().public_bytes(Encoding.DER)
    with pytest.raises(MalformedError, match="2 statuses"):
        load_ocsp_answer(doubled(data), "answer")


def children(data: bytes) -> list[tuple[int, bytes]]:
    """The DER values in some content: tag and content of each."""
    found, at = [], 0
    while at < len(data):
        tag, size, at = data[at], data[at + 1], at + 2
        if size >= 0x80:
            width = size - 0x80
            size = int.from_bytes(data[at : at + width], "big")
            at += width
        found.append((tag, data[at : at + size]))
        at += size
    return found


def joined(values: list[tuple[int, bytes]]) -> bytes:
    parts = []
    for tag, content in values:
        size = len(content)
        width = (size.bit_length() + 7) // 8
        head = bytes((size,)) if size < 0x80 else bytes((0x80 + width,))
        if size >= 0x80:
            head += size.to_bytes(width, "big")
        parts.append(bytes((tag,)) + head + content)
    return b"".join(parts)


def doubled(data: bytes) -> bytes:
    """The same answer with its one status in it twice."""

    def change(content: bytes, path: tuple[int, ...]) -> bytes:
        values = children(content)
        if not path:
            return joined([*values, *values])
        tag, inner = values[path[0]]
        values[path[0]] = (tag, change(inner, path[1:]))
        return joined(values)

    # responder id, producedAt, responses: the list is the third of ResponseData.
    return change(data, (0, 1, 0, 1, 0, 0, 2))


def test_a_good_signature_is_remembered() -> None:
    cache = LinkCache()
    for _ in range(2):
        found = status_of(
            BROM, ICA, lists=(), answers=(answer(),), now=NOW, cache=cache
        )
        assert found.state is State.GOOD
    assert len(cache) == 2


# --- reading ----------------------------------------------------------------------


def test_an_answer_is_read_from_der() -> None:
    data = answer().public_bytes(Encoding.DER)
    assert load_ocsp_answer(data, "answer").public_bytes(Encoding.DER) == data


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"garbage",
        # OCSPResponseStatus unauthorized: what NVIDIA says of a device's leaf.
        bytes.fromhex("30030a0106"),
        bytes(MAX_OCSP_BYTES + 1),
        der(BROM),
    ],
)
def test_anything_else_is_malformed(data: bytes) -> None:
    with pytest.raises(MalformedError):
        load_ocsp_answer(data, "answer")


def test_trailing_bytes_are_malformed() -> None:
    with pytest.raises(MalformedError):
        load_ocsp_answer(answer().public_bytes(Encoding.DER) + b"\0", "answer")


def test_a_critical_extension_is_not_understood() -> None:
    builder = (
        ocsp.OCSPResponseBuilder()
        .add_response(
            cert=BROM,
            issuer=ICA,
            algorithm=hashes.SHA256(),
            cert_status=ocsp.OCSPCertStatus.GOOD,
            this_update=NOW - HOUR,
            next_update=NOW + HOUR,
            revocation_time=None,
            revocation_reason=None,
        )
        .responder_id(ocsp.OCSPResponderEncoding.HASH, ICA)
        .add_extension(x509.OCSPNonce(b"1" * 16), critical=True)
    )
    data = builder.sign(NVIDIA.key(BY), hashes.SHA384()).public_bytes(Encoding.DER)
    with pytest.raises(MalformedError, match="critical"):
        load_ocsp_answer(data, "answer")
