"""`make flood`: challenges that nobody answers, and what they leave behind.

Strangers may begin as often as they like, at both doors. What a beginning costs is CPU
and an answer; nothing is stored, in the database or in memory. Every tenth asks for the
resource as well, as guests do, without anything.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

from flask.testing import FlaskClient

from kbs.adapters.sql.database import SqlDatabase
from tests.fakes.world import World

DEFAULT = 1_500_000
AUTH = b'{"version":"0.4.0","tee":"sample","extra-params":""}'
_PAGE_KIB = 4


def flood(world: World, count: int) -> dict[str, int]:
    """Send `count` beginnings; return KiB of memory and bytes of data before, after."""
    client = world.app.test_client(use_cookies=False)
    _send(client, 2000)  # what the first ones load stays
    before, stored = _resident_kib(), _stored(world)
    step = max(1, count // 20)
    started = time.monotonic()
    for done in range(0, count, step):
        _send(client, min(step, count - done))
        rate = (done + step) / (time.monotonic() - started)
        print(f"\r{done + step:>9} at {rate:.0f}/s", end="", file=sys.stderr)
    print(file=sys.stderr)
    return {
        "challenges": count,
        "memory_before_kib": before,
        "memory_after_kib": _resident_kib(),
        "stored_before": stored,
        "stored_after": _stored(world),
    }


def _send(client: FlaskClient, count: int) -> None:
    for number in range(count):
        if number % 10 == 0:
            answer = client.get("/kbs/v0/resource/default/test/key")
            assert answer.status_code == 401
        elif number % 2:
            answer = client.post("/v1/challenge", json={})
            assert answer.status_code == 200
        else:
            answer = client.post("/kbs/v0/auth", data=AUTH)
            assert answer.status_code == 200


def _resident_kib() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE_KIB


def _stored(world: World) -> int:
    """Rows of every table that a stranger might fill."""
    database = world.parts.database
    assert isinstance(database, SqlDatabase)
    tables = ("log_entries", "spent_challenges", "sessions", "evidence", "enrolments")
    with database.engine.connect() as connection:
        return sum(
            connection.exec_driver_sql(f"SELECT count(*) FROM {name}").scalar_one()
            for name in tables
        )


def main() -> None:
    """Flood a broker of this process's own and print what stayed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=DEFAULT)
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        closing(World.create(Path(folder), development=True)) as world,
    ):
        for name, value in flood(world, arguments.count).items():
            print(f"{name:20} {value:>10}")


if __name__ == "__main__":
    main()
