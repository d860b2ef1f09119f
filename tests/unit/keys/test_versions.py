"""Rows of key versions: sealed, MACed, moved, erased, re-wrapped."""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from kbs.broker import vault as vaults
from kbs.broker.vault import Vault
from kbs.core.errors import ConfigurationError, ConflictError, IntegrityError
from kbs.core.ids import KeyId
from kbs.keys.model import KeyKind, KeyState, Origin
from kbs.keys.secret import Secret
from kbs.keys.store import StoredKeyVersion
from kbs.keys.versions import (
    change_state,
    create_version,
    decrypt_version,
    first_version,
    next_version,
    verify_row,
)
from kbs.keys.wrap import Envelope, LocalKEK, generate_kek

NOW = datetime(2026, 11, 22, 8, 0, tzinfo=UTC)
LATER = NOW + timedelta(days=1)
INSTANCE = "0123456789abcdef" * 2
KEY_ID = KeyId("acme", "model", "chat")
KEK = LocalKEK(Secret(bytes(range(32))))
OTHER_KEK = LocalKEK(generate_kek())
VALUE = b"a model key that nobody may read"
KEY = first_version(
    KEY_ID, kind=KeyKind.OPAQUE, origin=Origin.IMPORTED, now=NOW, state=KeyState.PENDING
)
ROW = create_version(Secret(VALUE), KEY, KEK, instance=INSTANCE)


def open_version(
    row: StoredKeyVersion, kek: LocalKEK, *, instance: str = INSTANCE
) -> Secret:
    verify_row(row, kek, instance=instance)
    return decrypt_version(row, kek, instance=instance)


def test_what_was_stored_comes_back() -> None:
    assert open_version(ROW, KEK).reveal() == VALUE


def test_nothing_of_the_secret_is_in_the_row_or_its_repr() -> None:
    assert ROW.envelope is not None
    assert VALUE not in ROW.envelope.ciphertext + ROW.envelope.wrapped + ROW.mac
    assert VALUE.decode() not in repr(ROW)


def test_two_envelopes_of_one_secret_share_nothing() -> None:
    again = create_version(Secret(VALUE), KEY, KEK, instance=INSTANCE)
    assert again.envelope is not None
    assert ROW.envelope is not None
    assert again.envelope.wrapped != ROW.envelope.wrapped
    assert again.envelope.ciphertext != ROW.envelope.ciphertext


def changed_envelope(**changes: Any) -> StoredKeyVersion:
    assert ROW.envelope is not None
    return replace(ROW, envelope=dataclasses.replace(ROW.envelope, **changes))


def flipped(data: bytes) -> bytes:
    return bytes((data[0] ^ 1,)) + data[1:]


ENVELOPE: Envelope = ROW.envelope or Envelope("", b"", b"")


CHANGED = (
    replace(ROW, key=replace(KEY, state=KeyState.ENABLED)),
    replace(ROW, key=replace(KEY, state=KeyState.DESTROYED)),
    replace(ROW, key=replace(KEY, version=2)),
    replace(ROW, key=replace(KEY, kind=KeyKind.AES256)),
    replace(ROW, key=replace(KEY, origin=Origin.GENERATED)),
    replace(ROW, key=replace(KEY, created=LATER)),
    replace(ROW, key=replace(KEY, revision=2)),
    replace(ROW, key=replace(KEY, key_id=KeyId("rival", "model", "chat"))),
    replace(ROW, mac=flipped(ROW.mac)),
    replace(ROW, mac=b""),
    replace(ROW, envelope=None),
    changed_envelope(wrapped=flipped(ENVELOPE.wrapped)),
    changed_envelope(ciphertext=flipped(ENVELOPE.ciphertext)),
)


@pytest.mark.parametrize("row", CHANGED)
def test_any_field_changed_in_the_database_is_noticed(row: StoredKeyVersion) -> None:
    with pytest.raises(IntegrityError) as caught:
        open_version(row, KEK)
    assert caught.value.code == "keys.state"


@pytest.mark.parametrize("row", CHANGED)
def test_a_vault_that_knows_the_row_notices_as_well(row: StoredKeyVersion) -> None:
    vault = Vault(KEK, INSTANCE)
    assert vault.open_key(ROW).reveal() == VALUE
    for read in (vault.verify, vault.open_key):
        with pytest.raises(IntegrityError) as caught:
            read(row)
        assert caught.value.code == "keys.state"
    assert vault.open_key(ROW).reveal() == VALUE


def test_a_vault_forgets_rather_than_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vaults, "REMEMBERED", 2)
    vault = Vault(KEK, INSTANCE)
    for number in range(5):
        key = replace(KEY, key_id=KeyId("acme", "model", f"chat-{number}"))
        row = create_version(Secret(VALUE), key, KEK, instance=INSTANCE)
        assert vault.open_key(row).reveal() == VALUE
        with pytest.raises(IntegrityError):
            vault.verify(replace(row, mac=flipped(row.mac)))
        assert len(vault._whole) <= 2


def test_another_instance_or_kek_does_not_open_it() -> None:
    with pytest.raises(IntegrityError) as caught:
        open_version(ROW, KEK, instance="f" * 32)
    assert caught.value.code == "keys.state"
    with pytest.raises(IntegrityError) as caught:
        open_version(ROW, OTHER_KEK)
    assert caught.value.code == "keys.kek"


def test_a_life_from_pending_to_the_tombstone() -> None:
    row = ROW
    for revision, state in enumerate((KeyState.ENABLED, KeyState.RETIRED), start=2):
        row = change_state(row, state, KEK, instance=INSTANCE, now=LATER)
        assert (row.key.state, row.key.revision) == (state, revision)
        assert row.key.changed == LATER
        assert open_version(row, KEK).reveal() == VALUE
    tombstone = change_state(row, KeyState.DESTROYED, KEK, instance=INSTANCE, now=LATER)
    assert tombstone.envelope is None
    verify_row(tombstone, KEK, instance=INSTANCE)
    with pytest.raises(ConflictError):
        open_version(tombstone, KEK)
    with pytest.raises(ConflictError):
        change_state(tombstone, KeyState.ENABLED, KEK, instance=INSTANCE, now=LATER)


def test_an_erased_envelope_cannot_be_put_back_under_the_tombstone() -> None:
    tombstone = change_state(ROW, KeyState.DESTROYED, KEK, instance=INSTANCE, now=LATER)
    with pytest.raises(IntegrityError):
        open_version(replace(tombstone, envelope=ROW.envelope), KEK)


def test_a_row_is_verified_before_its_state_changes() -> None:
    forged = replace(ROW, key=replace(KEY, state=KeyState.RETIRED))
    with pytest.raises(IntegrityError):
        change_state(forged, KeyState.DESTROYED, KEK, instance=INSTANCE, now=LATER)


def test_the_next_version_is_of_the_same_kind_and_enabled() -> None:
    key = next_version(KEY, origin=Origin.GENERATED, now=LATER)
    assert (key.version, key.kind, key.state) == (2, KEY.kind, KeyState.ENABLED)
    assert (key.origin, key.created, key.revision) == (Origin.GENERATED, LATER, 1)


@pytest.mark.parametrize("key", [b"", bytes(32), bytes(range(31)), bytes(range(33))])
def test_what_is_no_kek_is_refused_at_start(key: bytes) -> None:
    with pytest.raises(ConfigurationError):
        LocalKEK(Secret(key))


def test_a_kek_shows_its_id_only() -> None:
    assert KEK.provider == "local"
    assert len(KEK.kek_id) == 16
    assert KEK.kek_id == LocalKEK(Secret(bytes(range(32)))).kek_id
    assert KEK.kek_id != OTHER_KEK.kek_id
    assert bytes(range(32)).hex() not in repr(KEK)
