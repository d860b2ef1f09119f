"""Loose files become the item of a bundle, whatever accepted form they have."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from kbs.core.encode import b64, canonical_json
from kbs.core.errors import MalformedError
from kbs.evidence.vtpm.item import item_from_files, load_ak, parse_item, pem_of
from kbs.evidence.vtpm.pcrs import pcrs_to_json
from tests.fakes.eventlog import typical_log
from tests.fakes.tpm import FakeTpm

BOUND = bytes(32)
SELECTION = (0, 15)


def pcr_file(tpm: FakeTpm) -> bytes:
    values = {
        entry: value
        for entry, value in tpm.pcrs.items()
        if entry[0].name == "SHA256" and entry[1] in SELECTION
    }
    return canonical_json(pcrs_to_json(values))


def pem(key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey) -> bytes:
    return pem_of(key).encode()


def test_files_make_the_same_item_as_the_guest(ecc_tpm: FakeTpm) -> None:
    message, signature = ecc_tpm.quote(BOUND, SELECTION)
    made = item_from_files(message, signature, pcr_file(ecc_tpm), ecc_tpm.ak_public)
    given = ecc_tpm.quote_item(BOUND, SELECTION)
    assert made.keys() == given.keys()
    assert {**made, "quote": None} == {**given, "quote": None}
    assert made["quote"] == {"message": b64(message), "signature": b64(signature)}


def test_a_raw_rsa_signature_is_taken_as_rsassa_sha256(rsa_tpm: FakeTpm) -> None:
    message, signature = rsa_tpm.quote(BOUND, SELECTION)
    raw = signature[6:]
    assert len(raw) == 256
    one = item_from_files(message, raw, pcr_file(rsa_tpm), rsa_tpm.ak_public)
    assert one["quote"] == {"message": b64(message), "signature": b64(signature)}


@pytest.mark.parametrize("kind", ["ecc", "rsa"])
def test_pem_and_der_keys_are_the_same_key(
    ecc_tpm: FakeTpm, rsa_tpm: FakeTpm, kind: str
) -> None:
    tpm = {"ecc": ecc_tpm, "rsa": rsa_tpm}[kind]
    message, signature = tpm.quote(BOUND, SELECTION)
    pcrs = pcr_file(tpm)
    from_pem = item_from_files(message, signature, pcrs, pem(tpm.public.key))
    from_der = item_from_files(message, signature, pcrs, tpm.ak_spki)
    assert from_pem == from_der
    assert parse_item(from_pem, 0).core == parse_item(from_der, 0).core
    assert load_ak(tpm.ak_spki).public is None


def test_an_event_log_is_carried_along(ecc_tpm: FakeTpm) -> None:
    message, signature = ecc_tpm.quote(BOUND, SELECTION)
    log = typical_log().to_bytes()
    made = item_from_files(
        message, signature, pcr_file(ecc_tpm), ecc_tpm.ak_public, log
    )
    assert made["event_log"] == b64(log)
    parse_item(made, 0)


def der(
    key: ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey | rsa.RSAPublicKey,
) -> bytes:
    return key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


@pytest.mark.parametrize(
    "data",
    [
        der(ed25519.Ed25519PrivateKey.generate().public_key()),
        der(ec.generate_private_key(ec.SECP521R1()).public_key()),
        der(ec.generate_private_key(ec.SECP256R1()).public_key()) + b"\0",
        der(rsa.RSAPublicNumbers(3, (1 << 2047) + 1).public_key()),
        der(rsa.RSAPublicNumbers(65537, (1 << 1023) + 1).public_key()),
        b"",
        b"\x00\x01\x00",
    ],
)
def test_keys_of_other_kinds_are_refused(data: bytes) -> None:
    with pytest.raises(MalformedError):
        load_ak(data)


def test_a_base64_of_pem_is_read_too(ecc_tpm: FakeTpm) -> None:
    item = ecc_tpm.quote_item(BOUND)
    plain = {**item, "ak": pem_of(ecc_tpm.public.key)}
    wrapped = {**item, "ak": b64(pem(ecc_tpm.public.key))}
    assert parse_item(plain, 0).core == parse_item(wrapped, 0).core
