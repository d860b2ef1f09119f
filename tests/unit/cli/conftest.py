"""A broker on loopback for each module of tests of the command line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from kbs.adapters.sql.database import connect
from kbs.adapters.sql.migrate import upgrade
from tests.fakes.admin_bench import Bench, serving


@pytest.fixture(scope="module")
def shared_bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """One broker for the tests of a module; each uses names of its own."""
    yield from _bench(tmp_path_factory.mktemp("bench"))


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """A broker of its own, for tests that stop everything or tamper."""
    yield from _bench(tmp_path)


def _bench(folder: Path) -> Iterator[Bench]:
    (folder / "data").mkdir()
    with closing(connect(None, data_dir=folder / "data")) as database:
        upgrade(database.engine)
        with serving(folder, database) as bench:
            yield bench
