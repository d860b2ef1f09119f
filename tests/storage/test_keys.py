"""Rows of key versions: whole, compared before they are replaced, erased for good."""

from __future__ import annotations

import secrets
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from kbs.adapters.sql.database import SqlDatabase
from kbs.core.errors import ConflictError, IntegrityError, MalformedError
from kbs.core.ids import KeyId
from kbs.keys.model import KeyKind, KeyState, KeyVersion, Origin
from kbs.keys.store import StoredKeyVersion
from kbs.keys.wrap import Envelope
from tests.fakes.databases import Place

NOW = datetime(2026, 11, 22, 8, 0, 0, 123456, tzinfo=UTC)
CHAT = KeyId("acme", "model", "chat")


def _row(key_id: KeyId = CHAT, version: int = 1) -> StoredKeyVersion:
    return StoredKeyVersion(
        key=KeyVersion(
            key_id=key_id,
            version=version,
            kind=KeyKind.AES256,
            origin=Origin.GENERATED,
            state=KeyState.ENABLED,
            created=NOW,
            changed=NOW,
        ),
        envelope=Envelope("kek-1", secrets.token_bytes(60), secrets.token_bytes(60)),
        kek_id="kek-1",
        mac=secrets.token_bytes(32),
    )


def _destroyed(row: StoredKeyVersion) -> StoredKeyVersion:
    key = replace(row.key, state=KeyState.DESTROYED, revision=row.key.revision + 1)
    return StoredKeyVersion(key, None, row.kek_id, b"m" * 32)


def test_versions_come_back_oldest_first(database: SqlDatabase) -> None:
    rows = [_row(version=version) for version in (1, 2, 10)]
    other = _row(KeyId("acme", "model", "other"))
    with database.write() as transaction:
        for row in (rows[2], rows[0], other, rows[1]):
            transaction.keys.insert_version(row)
    with database.read() as transaction:
        assert transaction.keys.versions(CHAT) == tuple(rows)
        assert transaction.keys.versions(KeyId("acme", "model", "no")) == ()
    with pytest.raises(ConflictError) as caught, database.write() as transaction:
        transaction.keys.insert_version(_row(version=2))
    assert "acme/model/chat@2" in str(caught.value)


def test_keys_are_listed_sorted_and_by_repository(database: SqlDatabase) -> None:
    ids = sorted(
        KeyId(*text.split("/"))
        for text in ("acme/a/b", "acme/a.b/c", "acme/a-b/c", "acme-2/a/b", "zeta/k/1")
    )
    with database.write() as transaction:
        for key_id in reversed(ids):
            transaction.keys.insert_version(_row(key_id))
        transaction.keys.insert_version(_row(ids[0], 2))
    with database.read() as transaction:
        assert transaction.keys.list_keys() == tuple(ids)
        assert transaction.keys.list_keys("acme-2") == (KeyId("acme-2", "a", "b"),)
        assert transaction.keys.list_keys("nobody") == ()


def test_a_row_is_replaced_only_over_the_revision_that_was_read(
    database: SqlDatabase,
) -> None:
    row, neighbour = _row(), _row(version=2)
    changed = replace(row, key=replace(row.key, state=KeyState.RETIRED, revision=2))
    with database.write() as transaction:
        transaction.keys.insert_version(row)
        transaction.keys.insert_version(neighbour)
        transaction.keys.replace(changed, revision=1)
        with pytest.raises(ConflictError):
            transaction.keys.replace(changed, revision=1)
        with pytest.raises(ConflictError):
            transaction.keys.replace(_row(version=3), revision=1)
        assert transaction.keys.versions(CHAT) == (changed, neighbour)


def test_a_destroyed_version_leaves_a_tombstone(database: SqlDatabase) -> None:
    row = _row()
    tombstone = _destroyed(row)
    with database.write() as transaction:
        transaction.keys.insert_version(row)
        transaction.keys.replace(tombstone, revision=1)
    with database.read() as transaction:
        assert transaction.keys.versions(CHAT) == (tombstone,)


def test_an_envelope_of_another_kek_is_a_mistake(database: SqlDatabase) -> None:
    with database.write() as transaction, pytest.raises(MalformedError):
        transaction.keys.insert_version(replace(_row(), kek_id="kek-2"))


@pytest.mark.parametrize(
    "change",
    [
        "kind = 'aes128'",
        "origin = ''",
        "state = 'ENABLED'",
        "version = 0",
        "revision = 0",
        "wrapped = NULL",
        "ciphertext = NULL",
        "created = 9000000000000000000",
    ],
)
def test_a_row_that_was_never_written_is_damage(
    database: SqlDatabase, change: str
) -> None:
    with database.write() as transaction:
        transaction.keys.insert_version(_row())
    with database.engine.begin() as connection:
        connection.exec_driver_sql(f"UPDATE key_versions SET {change}")
    with database.read() as transaction, pytest.raises(IntegrityError):
        transaction.keys.versions(CHAT)


def _bytes_of(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.iterdir())


def test_an_erased_envelope_leaves_no_byte_in_the_files(sqlite_place: Place) -> None:
    row = _row()
    assert row.envelope is not None
    with closing(sqlite_place.connect()) as database:
        with database.write() as transaction:
            transaction.keys.insert_version(row)
        assert row.envelope.wrapped in _bytes_of(sqlite_place.folder)
        with database.write() as transaction:
            transaction.keys.replace(_destroyed(row), revision=1)
        left = _bytes_of(sqlite_place.folder)
    assert row.envelope.wrapped not in left
    assert row.envelope.ciphertext not in left


def test_a_reader_only_delays_the_erasure(sqlite_place: Place) -> None:
    row = _row()
    assert row.envelope is not None
    with closing(sqlite_place.connect()) as database:
        with database.write() as transaction:
            transaction.keys.insert_version(row)
        with database.read() as reader:
            assert reader.keys.versions(CHAT) == (row,)
            with database.write() as transaction:
                transaction.keys.replace(_destroyed(row), revision=1)
            assert reader.keys.versions(CHAT) == (row,)
            assert row.envelope.wrapped in _bytes_of(sqlite_place.folder)
        with database.write() as transaction:
            transaction.tokens.use("any other write", NOW)
        assert row.envelope.wrapped not in _bytes_of(sqlite_place.folder)


def test_what_a_killed_process_left_is_erased_by_the_next(sqlite_place: Place) -> None:
    row = _row()
    assert row.envelope is not None
    with closing(sqlite_place.connect()) as killed:
        with killed.write() as transaction:
            transaction.keys.insert_version(row)
        # It erased, and did not come to empty the log.
        with killed.engine.begin() as connection:
            connection.exec_driver_sql("DELETE FROM key_versions")
        assert row.envelope.wrapped in _bytes_of(sqlite_place.folder)
        with closing(sqlite_place.connect()) as following:
            with following.write() as transaction:
                transaction.tokens.use("any", NOW)
            assert row.envelope.wrapped not in _bytes_of(sqlite_place.folder)


def test_a_scrubbing_that_fails_does_not_fail_the_commit(sqlite_place: Place) -> None:
    with (
        closing(sqlite_place.connect()) as database,
        closing(sqlite_place.connect()) as other,
    ):
        with database.write() as transaction:
            transaction.keys.insert_version(_row())
        with other.read() as reader:
            assert reader.log.head().size == 0
            with database.write() as transaction:
                transaction.broker_keys.remove("challenge", 1)
                transaction.tokens.use("first", NOW)
        with database.read() as after:
            assert len(after.keys.versions(CHAT)) == 1
        with pytest.raises(ConflictError):
            _use_again(database)


def _use_again(database: SqlDatabase) -> None:
    with database.write() as transaction:
        transaction.tokens.use("first", NOW)
