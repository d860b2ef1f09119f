"""Vendors' certificates and revocation lists; being here makes none trusted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import final

from sqlalchemy import bindparam, delete, func, select

from kbs.adapters.sql.cursor import Cursor, pieces
from kbs.adapters.sql.prepared import Prepared
from kbs.adapters.sql.schema import collateral, collateral_state
from kbs.broker.ports import StoredCollateral, TableState
from kbs.core.clock import format_time

_ALL = select(collateral).order_by(collateral.c.imported, collateral.c.digest)
_FINGERPRINT = Prepared(
    select(
        func.count().label("count"), func.max(collateral.c.imported).label("latest")
    ).select_from(collateral)
)
_DELETE = delete(collateral).where(
    collateral.c.digest.in_(bindparam("digests", expanding=True))
)

_STATE = Prepared(
    select(collateral_state.c.seq, collateral_state.c.digest, collateral_state.c.mac)
)


@final
class SqlCollateralStore:
    """The local collateral table."""

    def __init__(self, cursor: Cursor) -> None:
        """Work in the transaction of `cursor`."""
        self._cursor = cursor
        # Asked for several times in a transaction, which sees one state of the table.
        self._seen: tuple[TableState | None] | None = None

    def forget(self) -> None:
        """Read the state anew the next time: a savepoint may have taken it back."""
        self._seen = None

    def insert(self, item: StoredCollateral) -> bool:
        """Keep one; return whether it was new."""
        statement = self._cursor.upsert(collateral)
        ignoring = statement.on_conflict_do_nothing(index_elements=["digest"])
        return self._cursor.run(ignoring, asdict(item)) == 1

    def list(self) -> Sequence[StoredCollateral]:
        """Return all of them, oldest import first."""
        return [StoredCollateral(**row) for row in self._cursor.all(_ALL)]

    def delete(self, digests: Sequence[bytes]) -> None:
        """Take these away; the state beside them is the caller's to set."""
        for piece in pieces(digests):
            self._cursor.run(_DELETE, {"digests": list(piece)})

    def fingerprint(self) -> tuple[int, str]:
        """Return a cheap value (count, latest import) that changes with the table."""
        row = self._cursor.first(_FINGERPRINT)
        if row is None or row["latest"] is None:
            return 0, ""
        return row["count"], format_time(row["latest"])

    def state(self) -> TableState | None:
        """Return what the last import left, or None before the first one."""
        if self._seen is None:
            row = self._cursor.first(_STATE)
            self._seen = (None if row is None else TableState(**row),)
        return self._seen[0]

    def set_state(self, state: TableState) -> None:
        """Replace it, together with the rows that it tells of."""
        self.forget()
        statement = self._cursor.upsert(collateral_state)
        new = statement.excluded
        self._cursor.run(
            statement.on_conflict_do_update(
                index_elements=["id"],
                set_={"seq": new.seq, "digest": new.digest, "mac": new.mac},
            ),
            {"id": 1, **asdict(state)},
        )
