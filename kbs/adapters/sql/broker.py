"""The broker's own rows: who it is, and its keys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import final

from sqlalchemy import bindparam, delete, insert, select, update

from kbs.adapters.sql.cursor import Cursor
from kbs.adapters.sql.prepared import Prepared
from kbs.adapters.sql.schema import broker_keys, instance
from kbs.broker.ports import Instance, StoredBrokerKey
from kbs.core.errors import ConflictError

_KEY = broker_keys.c
_KEYS = select(broker_keys).order_by(_KEY.purpose, _KEY.version)
_OF_PURPOSE = _KEYS.where(_KEY.purpose == bindparam("of_purpose"))
_THIS_KEY = (
    _KEY.purpose == bindparam("of_purpose"),
    _KEY.version == bindparam("of_version"),
)
_REMOVE = delete(broker_keys).where(*_THIS_KEY)
_REPLACE = update(broker_keys).where(*_THIS_KEY).values(sealed=bindparam("new_sealed"))
_INSTANCE = Prepared(
    select(instance.c.instance, instance.c.origin, instance.c.created, instance.c.mode)
)


@final
class SqlBrokerKeyStore:
    """The broker's own keys."""

    def __init__(self, cursor: Cursor) -> None:
        """Work in the transaction of `cursor`."""
        self._cursor = cursor

    def insert(self, key: StoredBrokerKey) -> None:
        """Keep one.

        Raises:
            ConflictError: this version of this purpose exists.
        """
        self._cursor.run(
            insert(broker_keys), asdict(key), what=f"{key.purpose} key version"
        )

    def list(self, purpose: str | None = None) -> Sequence[StoredBrokerKey]:
        """Return them by purpose and version."""
        if purpose is None:
            rows = self._cursor.all(_KEYS)
        else:
            rows = self._cursor.all(_OF_PURPOSE, {"of_purpose": purpose})
        return [StoredBrokerKey(**row) for row in rows]

    def remove(self, purpose: str, version: int) -> None:
        """Erase one (an expired challenge key)."""
        self._cursor.run(_REMOVE, {"of_purpose": purpose, "of_version": version})
        self._cursor.erased = True

    def replace(self, key: StoredBrokerKey) -> None:
        """Replace the sealed bytes of one (re-wrapping).

        Raises:
            ConflictError: there is no such key any more.
        """
        values = {
            "of_purpose": key.purpose,
            "of_version": key.version,
            "new_sealed": key.sealed,
        }
        if self._cursor.run(_REPLACE, values) != 1:
            raise ConflictError(
                f"{key.purpose} key", got="none", expected=f"version {key.version}"
            )
        self._cursor.erased = True


@final
class SqlInstanceStore:
    """The one row that names the broker."""

    def __init__(self, cursor: Cursor) -> None:
        """Work in the transaction of `cursor`."""
        self._cursor = cursor

    def read(self) -> Instance | None:
        """Return it, or None in an empty database."""
        row = self._cursor.first(_INSTANCE)
        return None if row is None else Instance(**row)

    def create(self, created: Instance) -> None:
        """Write it once.

        Raises:
            ConflictError: there is one already.
        """
        self._cursor.run(
            insert(instance), {"id": 1, **asdict(created)}, what="instance"
        )

    def set_mode(self, mode: str) -> None:
        """Change the mode of the one row.

        Raises:
            ConflictError: there is no row yet.
        """
        if self._cursor.run(update(instance), {"mode": mode}) != 1:
            raise ConflictError("instance", got="none", expected="one")
