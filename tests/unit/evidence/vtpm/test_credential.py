"""Credentials open in the TPM that has both keys, and nowhere else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec

from kbs.core.errors import KbsError, MalformedError, VerificationError
from kbs.evidence.vtpm.algorithms import Algorithm
from kbs.evidence.vtpm.credential import (
    check_endorsement_certificate,
    check_endorsement_key,
    make_credential,
)
from kbs.evidence.vtpm.public import ObjectAttributes, Scheme, parse_public
from tests.fakes.tpm import EK_ATTRIBUTES, FakeTpm
from tests.fakes.tpm_ca import FakeTpmCA, with_unknown_key

SECRET = bytes(range(32))


@pytest.mark.parametrize("kind", ["ecc", "rsa"])
def test_the_tpm_with_both_keys_opens_it(
    ecc_tpm: FakeTpm, rsa_tpm: FakeTpm, kind: str
) -> None:
    tpm = {"ecc": ecc_tpm, "rsa": rsa_tpm}[kind]
    made = make_credential(parse_public(tpm.ek_public), tpm.ak_name, SECRET)
    assert tpm.activate_credential(made.credential_blob, made.secret) == SECRET


def test_each_credential_is_wrapped_afresh(ecc_tpm: FakeTpm) -> None:
    public = parse_public(ecc_tpm.ek_public)
    one = make_credential(public, ecc_tpm.ak_name, SECRET)
    two = make_credential(public, ecc_tpm.ak_name, SECRET)
    assert one.secret != two.secret
    assert one.credential_blob != two.credential_blob


def test_another_attestation_key_in_the_same_tpm_does_not_open_it(
    ecc_tpm: FakeTpm,
) -> None:
    public = parse_public(ecc_tpm.ek_public)
    made = make_credential(public, FakeTpm().ak_name, SECRET)
    with pytest.raises(InvalidSignature):
        ecc_tpm.activate_credential(made.credential_blob, made.secret)


def test_another_tpm_does_not_open_it(ecc_tpm: FakeTpm) -> None:
    public = parse_public(ecc_tpm.ek_public)
    made = make_credential(public, ecc_tpm.ak_name, SECRET)
    with pytest.raises(InvalidSignature):
        FakeTpm().activate_credential(made.credential_blob, made.secret)


@pytest.mark.parametrize("size", [0, 33])
def test_the_secret_has_a_size_that_a_tpm_takes(ecc_tpm: FakeTpm, size: int) -> None:
    public = parse_public(ecc_tpm.ek_public)
    with pytest.raises(MalformedError):
        make_credential(public, ecc_tpm.ak_name, bytes(size))


@pytest.mark.parametrize(
    ("attributes", "wrong"),
    [
        (EK_ATTRIBUTES & ~ObjectAttributes.RESTRICTED, "RESTRICTED not set"),
        (EK_ATTRIBUTES & ~ObjectAttributes.DECRYPT, "DECRYPT not set"),
        (EK_ATTRIBUTES & ~ObjectAttributes.FIXED_TPM, "FIXED_TPM not set"),
        (EK_ATTRIBUTES & ~ObjectAttributes.FIXED_PARENT, "FIXED_PARENT not set"),
        (
            EK_ATTRIBUTES & ~ObjectAttributes.SENSITIVE_DATA_ORIGIN,
            "SENSITIVE_DATA_ORIGIN not set",
        ),
        (EK_ATTRIBUTES | ObjectAttributes.SIGN, "SIGN set"),
    ],
)
def test_a_key_that_is_no_endorsement_key_is_refused(
    ecc_tpm: FakeTpm, attributes: ObjectAttributes, wrong: str
) -> None:
    public = replace(ecc_tpm.endorsement_public, attributes=attributes)
    with pytest.raises(VerificationError) as caught:
        make_credential(public, ecc_tpm.ak_name, SECRET)
    assert caught.value.code == "vtpm.ek.attributes"
    assert caught.value.got == wrong


def test_a_storage_key_has_a_cipher_and_no_scheme(ecc_tpm: FakeTpm) -> None:
    public = ecc_tpm.endorsement_public
    scheme = Scheme(Algorithm.ECDH, Algorithm.SHA256)
    for changed in (replace(public, symmetric=None), replace(public, scheme=scheme)):
        with pytest.raises(KbsError) as caught:
            check_endorsement_key(changed)
        assert caught.value.code == "vtpm.ek.attributes"


def test_a_number_that_is_no_modulus_is_refused(rsa_tpm: FakeTpm) -> None:
    """OpenSSL reads an even modulus and fails when something is sealed to it."""
    area = bytearray(rsa_tpm.ek_public)
    area[-1] &= 0xFE
    with pytest.raises(MalformedError, match="nothing can be sealed to"):
        make_credential(parse_public(bytes(area)), rsa_tpm.ak_name, SECRET)


def test_the_certificate_is_for_exactly_this_key(ecc_tpm: FakeTpm) -> None:
    authority = FakeTpmCA()
    public = parse_public(ecc_tpm.ek_public)
    check_endorsement_certificate(public, authority.certify(public.key, signs=False))
    other = ec.generate_private_key(ec.SECP256R1()).public_key()
    with pytest.raises(VerificationError) as caught:
        check_endorsement_certificate(public, authority.certify(other, signs=False))
    assert caught.value.code == "vtpm.ek.certificate"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"ca": True, "signs": False}, "a CA's"),
        ({}, "key usage"),
        ({"usage": False}, "extended key usage 2.23.133.8.3"),
    ],
)
def test_what_a_maker_certifies_besides_is_no_endorsement_key(
    ecc_tpm: FakeTpm, options: dict[str, Any], words: str
) -> None:
    """A certificate of a server, an AK or a CA, by the CA of endorsement keys."""
    public = parse_public(ecc_tpm.ek_public)
    certificate = FakeTpmCA().certify(public.key, **options)
    with pytest.raises(VerificationError, match=words) as caught:
        check_endorsement_certificate(public, certificate)
    assert caught.value.code == "vtpm.ek.certificate"


def test_a_certificate_with_an_unreadable_key_is_for_none(ecc_tpm: FakeTpm) -> None:
    with pytest.raises(VerificationError):
        check_endorsement_certificate(
            parse_public(ecc_tpm.ek_public), with_unknown_key(FakeTpmCA())
        )
