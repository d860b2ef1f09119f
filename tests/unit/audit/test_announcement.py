from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from kbs.audit.announcement import (
    SigningKey,
    announce,
    load_verifying_key,
    spki_text,
    verify_announcement,
)
from kbs.audit.kinds import Purpose
from kbs.core.encode import b64u
from kbs.core.errors import MalformedError, VerificationError
from tests.unit.audit.samples import ORIGIN, private_key

P256 = ec.derive_private_key(7, ec.SECP256R1())
KEYS: list[SigningKey] = [private_key(1), P256]


@pytest.mark.parametrize("previous", KEYS)
@pytest.mark.parametrize("new", KEYS)
def test_the_key_before_signs_the_new_one(
    previous: SigningKey, new: SigningKey
) -> None:
    announced = announce(
        log=ORIGIN, purpose=Purpose.TLS, public_key=new.public_key(), previous=previous
    )
    verify_announcement(announced)
    assert announced.public_key == spki_text(new.public_key())
    assert announced.previous == spki_text(previous.public_key())


@pytest.mark.parametrize("previous", KEYS)
@pytest.mark.parametrize(
    "change",
    [
        {"log": "other.example"},
        {"purpose": Purpose.LOG},
        {"public_key": spki_text(private_key(9).public_key())},
        {"previous": spki_text(private_key(9).public_key())},
        {"previous": spki_text(ec.derive_private_key(8, ec.SECP256R1()).public_key())},
        {"signature": b64u(bytes(64))},
    ],
)
def test_a_changed_announcement_is_refused(
    previous: SigningKey, change: dict[str, Any]
) -> None:
    announced = announce(
        log=ORIGIN,
        purpose=Purpose.RESPONSE,
        public_key=private_key(2).public_key(),
        previous=previous,
    )
    with pytest.raises(VerificationError) as caught:
        verify_announcement(replace(announced, **change))
    assert caught.value.code == "audit.key_announcement"


def test_keys_of_other_kinds_are_refused() -> None:
    x25519 = X25519PrivateKey.generate().public_key()
    spki = x25519.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    p384 = ec.derive_private_key(7, ec.SECP384R1()).public_key()
    for text in (b64u(spki), spki_text(p384), b64u(b"junk"), "", "+"):
        with pytest.raises(MalformedError):
            load_verifying_key(text)
