"""Transactions: whole snapshots, one writer, durable, and savepoints."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from kbs.adapters.sql.database import SqlDatabase
from kbs.broker.ports import Transaction
from kbs.core.errors import ConflictError

NOW = datetime(2026, 11, 22, 8, 0, 0, 123456, tzinfo=UTC)


def _use_in_a_savepoint(transaction: Transaction, *tokens: str) -> None:
    with transaction.savepoint():
        for token in tokens:
            transaction.tokens.use(token, NOW)


def test_a_savepoint_takes_only_its_part_back(database: SqlDatabase) -> None:
    with database.write() as transaction:
        transaction.tokens.use("kept", NOW)
        with pytest.raises(ConflictError):
            _use_in_a_savepoint(transaction, "lost", "kept")
        _use_in_a_savepoint(transaction, "later")
    with database.write() as transaction:
        _use_in_a_savepoint(transaction, "lost")
        for token in ("kept", "later", "lost"):
            with pytest.raises(ConflictError):
                _use_in_a_savepoint(transaction, token)
