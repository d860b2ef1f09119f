"""The chain of signed statements, and the objects that they speak of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache
from typing import final

from sqlalchemy import BindParameter, bindparam, func, insert, select

from kbs.adapters.sql.cursor import PIECE, Cursor, pieces
from kbs.adapters.sql.prepared import Prepared
from kbs.adapters.sql.schema import governed_objects, statements
from kbs.broker.ports import StoredObject, StoredStatement

_OBJECT = governed_objects.c
_HEAD = Prepared(select(func.max(statements.c.seq).label("head")))
_AFTER = (
    select(statements)
    .where(statements.c.seq > bindparam("after"))
    .order_by(statements.c.seq)
)
_OBJECTS = (
    select(governed_objects)
    .where(_OBJECT.kind == bindparam("of_kind"))
    .order_by(_OBJECT.tenant, _OBJECT.name, _OBJECT.version)
)


@lru_cache(PIECE)
def _at(count: int) -> Prepared:
    """Return the query for this many statements: seq0, seq1 and so on."""
    seqs: list[BindParameter[int]] = [
        bindparam(f"seq{place}") for place in range(count)
    ]
    return Prepared(
        select(statements.c.seq, statements.c.envelope).where(
            statements.c.seq.in_(seqs)
        )
    )


@lru_cache(PIECE)
def _contents(count: int) -> Prepared:
    """Return the query for this many contents: digest0, digest1 and so on."""
    digests: list[BindParameter[str]] = [
        bindparam(f"digest{place}") for place in range(count)
    ]
    return Prepared(
        select(_OBJECT.digest, _OBJECT.content)
        .where(_OBJECT.digest.in_(digests))
        .order_by(_OBJECT.kind, _OBJECT.tenant, _OBJECT.name, _OBJECT.version)
    )


@final
class SqlGovernanceStore:
    """Statements and the contents that they put in force."""

    def __init__(self, cursor: Cursor) -> None:
        """Work in the transaction of `cursor`."""
        self._cursor = cursor

    def head(self) -> int:
        """Return the highest seq, 0 when there is none."""
        row = self._cursor.first(_HEAD)
        return 0 if row is None or row["head"] is None else row["head"]

    def statements(self, after: int = 0) -> Sequence[StoredStatement]:
        """Return the statements after a seq, in order."""
        rows = self._cursor.all(_AFTER, {"after": after})
        return [StoredStatement(**row) for row in rows]

    def statements_at(self, seqs: Sequence[int]) -> Mapping[int, bytes]:
        """Return the envelopes with these numbers; missing ones are left out."""
        return {
            row["seq"]: row["envelope"]
            for piece in pieces(seqs)
            for row in self._cursor.all(_at(len(piece)), _named("seq", piece))
        }

    def append(self, statement: StoredStatement) -> None:
        """Add the next statement.

        Raises:
            ConflictError: the seq is taken.
        """
        self._cursor.run(insert(statements), asdict(statement), what="statement seq")

    def contents(self, digests: Sequence[str]) -> Mapping[str, bytes]:
        """Return contents by digest (hex); missing ones are left out."""
        return {
            row["digest"]: row["content"]
            for piece in pieces(digests)
            for row in self._cursor.all(_contents(len(piece)), _named("digest", piece))
        }

    def insert_object(self, stored: StoredObject) -> None:
        """Keep one version.

        Raises:
            ConflictError: this version of this object exists.
        """
        self._cursor.run(
            insert(governed_objects),
            asdict(stored),
            what=f"{stored.kind} {stored.tenant}/{stored.name} version",
        )

    def objects(
        self, kind: str, tenant: str | None = None, name: str | None = None
    ) -> Sequence[StoredObject]:
        """Return versions, ordered by tenant, name, version."""
        statement, values = _OBJECTS, {"of_kind": kind}
        if tenant is not None:
            statement = statement.where(_OBJECT.tenant == bindparam("of_tenant"))
            values["of_tenant"] = tenant
        if name is not None:
            statement = statement.where(_OBJECT.name == bindparam("of_name"))
            values["of_name"] = name
        rows = self._cursor.all(statement, values)
        return [StoredObject(**row) for row in rows]


def _named(name: str, values: Sequence[object]) -> dict[str, object]:
    return {f"{name}{place}": value for place, value in enumerate(values)}
