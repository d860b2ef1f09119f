"""Blobs: the broker's own keys and kept evidence."""

from __future__ import annotations

import pytest

from kbs.core.errors import IntegrityError
from kbs.keys.blob import open_blob, seal_blob
from kbs.keys.secret import Secret
from kbs.keys.wrap import LocalKEK, decrypt_envelope, encrypt_envelope, generate_kek

KEK = LocalKEK(generate_kek())
PLACE = {"instance": "ab" * 16, "purpose": "log-key", "blob_id": "1"}
SECRET = Secret(b"the private key of the log")
BLOB = seal_blob(SECRET, KEK, **PLACE)


def test_a_blob_opens_where_it_was_sealed_for() -> None:
    assert open_blob(BLOB, KEK, **PLACE) == SECRET
    assert SECRET.reveal() not in BLOB


@pytest.mark.parametrize("member", ["instance", "purpose", "blob_id"])
def test_a_blob_does_not_open_elsewhere(member: str) -> None:
    with pytest.raises(IntegrityError) as caught:
        open_blob(BLOB, KEK, **{**PLACE, member: "other"})
    assert caught.value.code == "keys.ciphertext"


def test_a_blob_does_not_open_under_another_kek() -> None:
    with pytest.raises(IntegrityError) as caught:
        open_blob(BLOB, LocalKEK(generate_kek()), **PLACE)
    assert caught.value.code == "keys.kek"


@pytest.mark.parametrize("index", range(len(BLOB)))
def test_every_byte_of_a_blob_counts(index: int) -> None:
    changed = bytearray(BLOB)
    changed[index] ^= 0x80
    with pytest.raises(IntegrityError):
        open_blob(bytes(changed), KEK, **PLACE)


@pytest.mark.parametrize("size", [0, 1, 5, 9, 11, 40, len(BLOB) - 1])
def test_a_truncated_blob_is_refused(size: int) -> None:
    with pytest.raises(IntegrityError):
        open_blob(BLOB[:size], KEK, **PLACE)


def test_an_envelope_is_bound_to_its_context() -> None:
    envelope = encrypt_envelope(SECRET, {"id": "a"}, KEK)
    assert decrypt_envelope(envelope, {"id": "a"}, KEK) == SECRET
    with pytest.raises(IntegrityError):
        decrypt_envelope(envelope, {"id": "b"}, KEK)
