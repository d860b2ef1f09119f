"""Rows of key versions, as `kbs.keys.store.KeyStore` wants them.

A row is only carried here: whether it is one that this broker wrote, its MAC says.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

from sqlalchemy import bindparam, insert, select, update

from kbs.adapters.sql.cursor import Cursor
from kbs.adapters.sql.prepared import Prepared, Row
from kbs.adapters.sql.schema import key_state, key_versions
from kbs.core.errors import ConflictError, IntegrityError, MalformedError
from kbs.core.ids import KeyId, parse_key_id
from kbs.keys.model import KeyKind, KeyState, KeyVersion, Origin
from kbs.keys.store import StoredKeyVersion
from kbs.keys.wrap import Envelope

# By the words that are stored.
_KINDS = {str(kind): kind for kind in KeyKind}
_ORIGINS = {str(origin): origin for origin in Origin}
_STATES = {str(state): state for state in KeyState}

_ROW = key_versions.c
_ID = (_ROW.repository, _ROW.type, _ROW.tag)
_THIS_ID = (
    _ROW.repository == bindparam("of_repository"),
    _ROW.type == bindparam("of_type"),
    _ROW.tag == bindparam("of_tag"),
)
_VERSIONS = Prepared(select(key_versions).where(*_THIS_ID).order_by(_ROW.version))
_IDS = select(*_ID).distinct().order_by(*_ID)
_IDS_OF = _IDS.where(_ROW.repository == bindparam("of_repository"))
_MACS = select(*_ID, _ROW.version, _ROW.mac)
_STATE = Prepared(select(key_state.c.seq, key_state.c.digest, key_state.c.mac))
_REPLACE = update(key_versions).where(
    *_THIS_ID,
    _ROW.version == bindparam("of_version"),
    _ROW.revision == bindparam("of_revision"),
)


@final
class SqlKeyStore:
    """Key versions inside one transaction."""

    def __init__(self, cursor: Cursor) -> None:
        """Work in the transaction of `cursor`."""
        self._cursor = cursor

    def insert_version(self, row: StoredKeyVersion) -> None:
        """Add a version.

        Raises:
            ConflictError: this version exists.
        """
        self._cursor.run(insert(key_versions), _values(row), what=f"key {row.key.ref}")

    def versions(self, key_id: KeyId) -> tuple[StoredKeyVersion, ...]:
        """Return all versions of a key, oldest first.

        Raises:
            IntegrityError: a row is none that was ever written.
        """
        return tuple(_stored(row) for row in self._cursor.all(_VERSIONS, _of(key_id)))

    def list_keys(self, repository: str | None = None) -> tuple[KeyId, ...]:
        """Return the ids of all keys, or of one repository's, sorted."""
        if repository is None:
            rows = self._cursor.all(_IDS)
        else:
            rows = self._cursor.all(_IDS_OF, {"of_repository": repository})
        return tuple(KeyId(**row) for row in rows)

    def replace(self, row: StoredKeyVersion, *, revision: int) -> None:
        """Write a row over the one whose revision is `revision`, whole.

        Raises:
            ConflictError: the stored row has another revision, or is not there.
        """
        where = {
            **_of(row.key.key_id),
            "of_version": row.key.version,
            "of_revision": revision,
        }
        if self._cursor.run(_REPLACE, {**where, **_values(row)}) != 1:
            raise ConflictError(
                f"key {row.key.ref}",
                got="another revision, or no row",
                expected=f"revision {revision}",
                hint="it changed since it was read; read it again",
            )
        self._cursor.erased = True

    def macs(self) -> Mapping[str, bytes]:
        """Return the MAC of every version, by `repository/type/tag@version`."""
        return {
            f"{row['repository']}/{row['type']}/{row['tag']}@{row['version']}": row[
                "mac"
            ]
            for row in self._cursor.all(_MACS)
        }

    def state(self) -> tuple[int, bytes, bytes] | None:
        """Return what the last change left: its number, a digest, and their MAC."""
        row = self._cursor.first(_STATE)
        return None if row is None else (row["seq"], row["digest"], row["mac"])

    def set_state(self, state: tuple[int, bytes, bytes]) -> None:
        """Replace it, together with the rows that it tells of."""
        statement = self._cursor.upsert(key_state)
        new = statement.excluded
        seq, digest, mac = state
        self._cursor.run(
            statement.on_conflict_do_update(
                index_elements=["id"],
                set_={"seq": new.seq, "digest": new.digest, "mac": new.mac},
            ),
            {"id": 1, "seq": seq, "digest": digest, "mac": mac},
        )


def _of(key_id: KeyId) -> dict[str, object]:
    return {
        "of_repository": key_id.repository,
        "of_type": key_id.type,
        "of_tag": key_id.tag,
    }


def _values(row: StoredKeyVersion) -> dict[str, object]:
    key, envelope = row.key, row.envelope
    if envelope is not None and envelope.kek_id != row.kek_id:
        raise MalformedError(
            f"key {key.ref} envelope",
            got=f"key-encryption key {envelope.kek_id}",
            expected=row.kek_id,
        )
    return {
        "repository": key.key_id.repository,
        "type": key.key_id.type,
        "tag": key.key_id.tag,
        "version": key.version,
        "kind": key.kind.value,
        "origin": key.origin.value,
        "state": key.state.value,
        "created": key.created,
        "changed": key.changed,
        "revision": key.revision,
        "kek_id": row.kek_id,
        "wrapped": None if envelope is None else envelope.wrapped,
        "ciphertext": None if envelope is None else envelope.ciphertext,
        "mac": row.mac,
    }


def _stored(row: Row) -> StoredKeyVersion:
    name = f"{row['repository']}/{row['type']}/{row['tag']}"
    try:
        key = KeyVersion(
            key_id=parse_key_id(name),
            version=row["version"],
            kind=_KINDS[row["kind"]],
            origin=_ORIGINS[row["origin"]],
            state=_STATES[row["state"]],
            created=row["created"],
            changed=row["changed"],
            revision=row["revision"],
        )
    except (KeyError, ValueError, MalformedError) as exc:
        raise _damaged(name, "a row that was never written") from exc
    return StoredKeyVersion(key, _envelope(row, name), row["kek_id"], row["mac"])


def _envelope(row: Row, name: str) -> Envelope | None:
    wrapped, ciphertext = row["wrapped"], row["ciphertext"]
    if wrapped is None and ciphertext is None:
        return None
    if wrapped is None or ciphertext is None:
        raise _damaged(name, "half an envelope")
    return Envelope(kek_id=row["kek_id"], wrapped=wrapped, ciphertext=ciphertext)


def _damaged(name: str, got: str) -> IntegrityError:
    return IntegrityError(
        f"key {name}",
        got=got,
        expected="what this broker wrote",
        hint="the database was changed behind the broker; restore this row",
        code="keys.state",
    )
