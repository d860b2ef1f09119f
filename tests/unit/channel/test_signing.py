"""The response key file, and signatures in their contexts."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from kbs.channel.signing import (
    ANSWER_CONTEXT,
    CHALLENGE_CONTEXT,
    ResponseSignature,
    parse_response_key,
    parse_signature,
    response_key_id,
    serialize_response_key,
    sign_document,
    verify_document,
)
from kbs.core.encode import canonical_json
from kbs.core.errors import AuthenticationError, MalformedError

KEY = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
DOCUMENT = {"b": 1, "a": "x"}
SIGNATURE = sign_document(KEY, ANSWER_CONTEXT, DOCUMENT)
P256_PEM = (
    ec.generate_private_key(ec.SECP256R1())
    .public_key()
    .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
)


def test_the_signed_bytes_are_context_zero_jcs() -> None:
    message = b"kbs.answer/1\x00" + canonical_json(DOCUMENT)
    KEY.public_key().verify(SIGNATURE.value, message)
    verify_document(KEY.public_key(), ANSWER_CONTEXT, DOCUMENT, SIGNATURE)


def test_the_key_file_is_pem_and_comes_back() -> None:
    data = serialize_response_key(KEY.public_key())
    assert data.startswith(b"-----BEGIN PUBLIC KEY-----\n")
    assert parse_response_key(data) == KEY.public_key()


@pytest.mark.parametrize("data", [b"", b"ssh-ed25519 AAAA", P256_PEM, b"-" * 5000])
def test_another_file_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedError):
        parse_response_key(data)


def test_another_context_document_or_key_does_not_verify() -> None:
    public = KEY.public_key()
    other = ed25519.Ed25519PrivateKey.generate()
    by_other = sign_document(other, ANSWER_CONTEXT, DOCUMENT)
    for context, document, signature in (
        (CHALLENGE_CONTEXT, DOCUMENT, SIGNATURE),
        (ANSWER_CONTEXT, {**DOCUMENT, "b": 2}, SIGNATURE),
        (ANSWER_CONTEXT, DOCUMENT, by_other),
        (
            ANSWER_CONTEXT,
            DOCUMENT,
            ResponseSignature(response_key_id(public), by_other.value),
        ),
    ):
        with pytest.raises(AuthenticationError) as caught:
            verify_document(public, context, document, signature)
        assert caught.value.code == "answer.signature"


def test_a_signature_has_one_json_form() -> None:
    assert parse_signature(SIGNATURE.to_json()) == SIGNATURE
    good = SIGNATURE.to_json()
    for wrong in (
        None,
        {},
        {**good, "alg": "EdDSA"},
        {**good, "sig": "AAAA"},
        {**good, "keyid": str(good["keyid"]).upper()},
        {**good, "keyid": "ab"},
    ):
        with pytest.raises(MalformedError):
            parse_signature(wrong)
