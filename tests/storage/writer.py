"""A process that appends to a log.

`python -m tests.storage.writer NAME COUNT FOLDER [URL]`
"""

from __future__ import annotations

import hashlib
import sys
from datetime import UTC, datetime
from pathlib import Path

from kbs.adapters.sql.database import connect
from kbs.audit.log import PreparedEntry, append_batch

_NOW = datetime(2026, 11, 22, 8, 0, tzinfo=UTC)


def prepare(name: str, number: int) -> PreparedEntry:
    """Return an entry that nobody else writes."""
    entry_id = hashlib.sha256(f"{name}/{number}".encode()).hexdigest()[:32]
    return PreparedEntry(
        id=entry_id,
        time=_NOW,
        kind="release",
        leaf=entry_id.encode(),
        body=b"{}",
        salt=b"s" * 16,
        tenants=(name,),
    )


def main(name: str, count: str, folder: str, url: str = "") -> None:
    """Append one entry a transaction."""
    database = connect(url or None, data_dir=Path(folder))
    for number in range(int(count)):
        with database.write() as transaction:
            append_batch(transaction.log, [prepare(name, number)])
    database.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
