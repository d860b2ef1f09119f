"""Sealing and opening one message."""

from __future__ import annotations

import pytest

from kbs.channel.hpke import seal, unseal
from kbs.channel.recipient import Suite, generate_recipient_key, recipient_of
from kbs.core.errors import MalformedError, VerificationError


@pytest.mark.parametrize("suite", list(Suite))
def test_only_the_same_key_and_info_open_it(suite: Suite) -> None:
    private = generate_recipient_key(suite)
    sealed = seal(suite, recipient_of(private), b"secret", info=b"this request")
    assert unseal(suite, private, sealed, info=b"this request") == b"secret"
    with pytest.raises(VerificationError):
        unseal(suite, private, sealed, info=b"another request")
    with pytest.raises(VerificationError):
        unseal(suite, generate_recipient_key(suite), sealed, info=b"this request")
    for index in (0, len(sealed) // 2, len(sealed) - 1):
        changed = bytearray(sealed)
        changed[index] ^= 1
        with pytest.raises(VerificationError) as caught:
            unseal(suite, private, bytes(changed), info=b"this request")
        assert caught.value.code == "answer.sealed"
    for size in (0, 1, 31, len(sealed) - 1):
        with pytest.raises(VerificationError):
            unseal(suite, private, sealed[:size], info=b"this request")


def test_the_suite_must_be_that_of_the_key() -> None:
    private = generate_recipient_key(Suite.X25519)
    with pytest.raises(MalformedError):
        seal(Suite.P256, recipient_of(private), b"", info=b"")
    with pytest.raises(MalformedError):
        unseal(Suite.P384, private, b"", info=b"")
