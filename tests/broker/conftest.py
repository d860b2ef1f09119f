"""A broker for each test; `any_world` runs a test on both databases."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.fakes import snp_world as confidential
from tests.fakes.amd import FakeAmd
from tests.fakes.databases import (
    Place,
    database,
    empty_place,
    place,
    postgresql_place,
    postgresql_server,
    postgresql_template,
    sqlite_place,
    sqlite_template,
)
from tests.fakes.steps import Bench, open_bench
from tests.fakes.world import World

__all__ = [
    "database",
    "empty_place",
    "place",
    "postgresql_place",
    "postgresql_server",
    "postgresql_template",
    "sqlite_place",
    "sqlite_template",
]


@pytest.fixture
def world(tmp_path: Path, sqlite_place: Place) -> Iterator[World]:
    """A broker on SQLite."""
    with closing(sqlite_place.connect()) as opened:
        yield World.create(tmp_path, database=opened)


@pytest.fixture
def any_world(tmp_path: Path, place: Place) -> Iterator[World]:
    """A broker on each kind of database in turn."""
    with closing(place.connect()) as opened:
        yield World.create(tmp_path, database=opened)


@pytest.fixture
def amd() -> FakeAmd:
    """The maker of the CPUs."""
    return FakeAmd()


@pytest.fixture
def snp_world(tmp_path: Path, sqlite_place: Place, amd: FakeAmd) -> Iterator[World]:
    """A broker that trusts the fake AMD, with a key under each policy."""
    with closing(sqlite_place.connect()) as opened:
        yield confidential.create(tmp_path, opened, amd)


@pytest.fixture
def bench(tmp_path: Path, place: Place) -> Iterator[Bench]:
    """A broker with a probe at its steps, on each kind of database in turn."""
    with open_bench(tmp_path, place) as opened:
        yield opened


@pytest.fixture
def sqlite_bench(tmp_path: Path, sqlite_place: Place) -> Iterator[Bench]:
    """The same on SQLite only."""
    with open_bench(tmp_path, sqlite_place) as opened:
        yield opened
