"""TPM2B_PUBLIC: fields, names, keys, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from kbs.core.errors import MalformedError
from kbs.evidence.vtpm.abi import sized
from kbs.evidence.vtpm.algorithms import Algorithm, digest
from kbs.evidence.vtpm.public import (
    EccParameters,
    ObjectAttributes,
    RsaParameters,
    Scheme,
    Symmetric,
    TpmPublic,
    parse_public,
    serialize_area,
    serialize_public,
)
from tests.fakes.tpm import FakeTpm, public_of

P384 = ec.generate_private_key(ec.SECP384R1())


def area_of(public: TpmPublic) -> bytes:
    return serialize_area(public)


def patched(public: TpmPublic, offset: int, data: bytes) -> bytes:
    area = area_of(public)
    return sized(area[:offset] + data + area[offset + len(data) :])


def test_signing_and_endorsement_keys_are_written_back(
    ecc_tpm: FakeTpm, rsa_tpm: FakeTpm
) -> None:
    for public in (
        ecc_tpm.public,
        rsa_tpm.public,
        ecc_tpm.endorsement_public,
        rsa_tpm.endorsement_public,
        public_of(P384, attributes=ObjectAttributes.SIGN, auth_policy=bytes(32)),
    ):
        data = serialize_public(public)
        assert parse_public(data) == public
        assert serialize_public(parse_public(data)) == data


def test_schemes_with_and_without_a_hash_are_read(rsa_tpm: FakeTpm) -> None:
    for scheme in (Scheme(Algorithm.RSAES), Scheme(Algorithm.OAEP, Algorithm.SHA256)):
        public = replace(rsa_tpm.endorsement_public, scheme=scheme)
        assert parse_public(serialize_public(public)).scheme == scheme


def test_a_kdf_is_read(ecc_tpm: FakeTpm) -> None:
    parameters = ecc_tpm.public.parameters
    assert isinstance(parameters, EccParameters)
    kdf = Scheme(Algorithm.KDF1_SP800_56A, Algorithm.SHA256)
    public = replace(ecc_tpm.public, parameters=replace(parameters, kdf=kdf))
    assert parse_public(serialize_public(public)) == public


def test_the_name_is_the_digest_of_the_area(ecc_tpm: FakeTpm) -> None:
    public = ecc_tpm.public
    assert public.name == b"\x00\x0b" + digest(hashes.SHA256(), area_of(public))


def test_the_key_is_the_one_that_signs(ecc_tpm: FakeTpm, rsa_tpm: FakeTpm) -> None:
    for tpm in (ecc_tpm, rsa_tpm):
        assert parse_public(tpm.ak_public).key == tpm.key.public_key()


def test_exponents_zero_and_65537_are_the_same_key(rsa_tpm: FakeTpm) -> None:
    parameters = rsa_tpm.public.parameters
    assert isinstance(parameters, RsaParameters)
    spelled = replace(rsa_tpm.public, parameters=replace(parameters, exponent=65537))
    assert parse_public(serialize_public(spelled)).key == rsa_tpm.public.key
    assert spelled.name != rsa_tpm.public.name


# Offsets in the area: type 0, nameAlg 2, attributes 4, authPolicy size 8, symmetric 10,
# scheme 12 with hash 14, then keyBits 16 and exponent 18, or curveID 16 and kdf 18.
@pytest.mark.parametrize(
    ("offset", "data", "what"),
    [
        (0, "0008", "TPMT_PUBLIC type"),
        (2, "0004", "TPMT_PUBLIC nameAlg"),
        (4, "80000000", "TPMT_PUBLIC objectAttributes"),
        (4, "00000001", "TPMT_PUBLIC objectAttributes"),
        (8, "0041", "TPMT_PUBLIC authPolicy size"),
        (8, "0001", "TPMT_PUBLIC authPolicy"),
        (10, "0025", "TPMT_PUBLIC symmetric"),
        (12, "001a", "TPMT_PUBLIC scheme"),
        (14, "0010", "TPMT_PUBLIC scheme hash"),
        (16, "0001", "TPMT_PUBLIC curveID"),
        (18, "0007", "TPMT_PUBLIC kdf"),
        (20, "0031", "TPMT_PUBLIC unique.x size"),
        (30, "ff", "TPMT_PUBLIC unique"),
    ],
)
def test_a_single_wrong_field_of_an_ecc_key_is_named(
    ecc_tpm: FakeTpm, offset: int, data: str, what: str
) -> None:
    before = area_of(ecc_tpm.public)[offset : offset + len(data) // 2]
    changed = bytes.fromhex(data)
    if changed == before:
        changed = bytes([changed[0] ^ 1])
    with pytest.raises(MalformedError) as caught:
        parse_public(patched(ecc_tpm.public, offset, changed))
    assert caught.value.what == what


@pytest.mark.parametrize(
    ("offset", "data", "what"),
    [
        (16, "0400", "TPMT_PUBLIC keyBits"),
        (18, "00000003", "TPMT_PUBLIC exponent"),
        (22, "0201", "TPMT_PUBLIC unique size"),
        (24, "00", "TPMT_PUBLIC unique"),
        (12, "0018", "TPMT_PUBLIC scheme"),
    ],
)
def test_a_single_wrong_field_of_an_rsa_key_is_named(
    rsa_tpm: FakeTpm, offset: int, data: str, what: str
) -> None:
    with pytest.raises(MalformedError) as caught:
        parse_public(patched(rsa_tpm.public, offset, bytes.fromhex(data)))
    assert caught.value.what == what


def test_a_short_modulus_is_refused(rsa_tpm: FakeTpm) -> None:
    parameters = rsa_tpm.public.parameters
    assert isinstance(parameters, RsaParameters)
    short = replace(parameters, modulus=parameters.modulus[:-1])
    with pytest.raises(MalformedError, match="modulus of 2048 bits"):
        parse_public(serialize_public(replace(rsa_tpm.public, parameters=short)))


@pytest.mark.parametrize(
    ("bits", "mode", "what"),
    [(64, 0x0043, "keyBits"), (128, 0x0044, "mode")],
)
def test_storage_keys_use_aes_in_cfb_mode(
    ecc_tpm: FakeTpm, bits: int, mode: int, what: str
) -> None:
    public = ecc_tpm.endorsement_public
    good = bytes.fromhex("000600800043")
    bad = b"\x00\x06" + bits.to_bytes(2, "big") + mode.to_bytes(2, "big")
    data = sized(area_of(public).replace(good[:2] + good[2:4] + b"\x00\x43", bad))
    with pytest.raises(MalformedError, match=f"symmetric {what}"):
        parse_public(data)
    assert public.symmetric == Symmetric(128)


@pytest.mark.parametrize("cut", [0, 1, 40])
def test_truncated_and_padded_structures_are_refused(
    ecc_tpm: FakeTpm, cut: int
) -> None:
    data = ecc_tpm.ak_public
    with pytest.raises(MalformedError):
        parse_public(data[:cut])
    with pytest.raises(MalformedError):
        parse_public(data + bytes(cut + 1))
    with pytest.raises(MalformedError):
        parse_public(sized(data[2:] + bytes(cut + 1)))


def test_attributes_are_asked_together(ecc_tpm: FakeTpm) -> None:
    public = ecc_tpm.public
    assert public.has(ObjectAttributes.SIGN, ObjectAttributes.RESTRICTED)
    assert not public.has(ObjectAttributes.SIGN, ObjectAttributes.DECRYPT)
