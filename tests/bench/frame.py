"""What Flask and SQLite cost by themselves, with nothing of ours in them.

An application with one view that answers `{}`, asked as the broker is (`inprocess`);
and a transaction that writes what one entry is large, as durable as the log's.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from flask import Flask, Response, request

from tests.bench.exchanges import Kind, Step
from tests.bench.floor import Costs, costs_of
from tests.bench.inprocess import call, environ_of

FLASK = "Flask: a request that is answered with {}"
SQLITE = "SQLite: a durable transaction of one row of 4 KiB"

FRAME: dict[bool, dict[str, int]] = {
    True: {FLASK: 2, SQLITE: 1},
    False: {FLASK: 3, SQLITE: 2},
}
"""How many of each an exchange has at least: of the v1 door, and of the other."""

ROW = bytes(4096)


def costs(folder: Path, rounds: int) -> Costs:
    """CPU seconds and units of each."""
    with _sqlite(folder / "frame.db") as commit:
        return costs_of({FLASK: _flask(), SQLITE: commit}, rounds)


def frame_of(kind: Kind, measured: Costs) -> float:
    """Units that Flask and SQLite take of an exchange."""
    return sum(count * measured[name][1] for name, count in FRAME[kind.is_v1].items())


def _flask() -> Callable[[], None]:
    app = Flask("empty")

    @app.post("/empty")
    def empty() -> Response:
        request.get_data()
        return Response(b"{}", mimetype="application/json")

    step = Step("POST", "/empty", b"{}", {"Content-Type": "application/json"})
    return lambda: call(app, environ_of(step), step)


@contextmanager
def _sqlite(path: Path) -> Iterator[Callable[[], None]]:
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=FULL")
        database.execute("CREATE TABLE kept (number INTEGER PRIMARY KEY, row BLOB)")

        def commit() -> None:
            database.execute("BEGIN IMMEDIATE")
            database.execute("INSERT INTO kept (row) VALUES (?)", (ROW,))
            database.execute("COMMIT")

        yield commit
