"""A disk that is full, read-only or does not sync, below a real server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.ordeal import withstands
from tests.fakes.faulty import (
    SmallDisk,
    read_only_file,
    small_disk,
    unsynced_file,
)
from tests.fakes.outside import Outside
from tests.fakes.served import Folders, serving

FULL = {"database.full": "free disk space"}
BROKEN = {"database.disk": "look at the disk"}
UNWRITABLE_MARK = {"trust.away": "look at its disk, owner and mode"}


@dataclass
class Site:
    """A broker whose folders are disks of their own."""

    outside: Outside
    data: SmallDisk
    trust: SmallDisk

    @property
    def files(self) -> list[Path]:
        database = self.outside.folders.database
        return [database, database.with_name(database.name + "-wal")]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folders = Folders(tmp_path_factory.mktemp("disks"))
    options = ("--dev", "--workers", "2", "--rate-limit", "0")
    with ExitStack() as stack:
        data = stack.enter_context(small_disk(folders.data))
        trust = stack.enter_context(small_disk(folders.trust))
        served = stack.enter_context(serving(folders, *options))
        outside = Outside(folders, served)
        outside.administer()
        yield Site(outside, data, trust)


@pytest.mark.slow
def test_a_full_disk(site: Site) -> None:
    missing = {"disk": [""]}
    withstands(site.outside, site.data.full(), says=FULL, missing=missing)


@pytest.mark.slow
def test_a_disk_that_went_read_only(site: Site) -> None:
    fault = read_only_file(site.outside.served.workers(), site.files)
    missing = {"database": ["database.disk"]}
    withstands(site.outside, fault, says=BROKEN, missing=missing)


@pytest.mark.slow
def test_a_disk_that_does_not_sync(site: Site) -> None:
    fault = unsynced_file(site.outside.served.workers(), site.files)
    missing = {"database": ["database.disk"]}
    withstands(site.outside, fault, says=BROKEN, missing=missing)


@pytest.mark.slow
def test_a_trust_folder_that_takes_no_writes(site: Site) -> None:
    """Releases that no mark covers could be taken back unnoticed."""
    missing = {"trust folder": ["trust.away"]}
    withstands(
        site.outside, site.trust.read_only(), says=UNWRITABLE_MARK, missing=missing
    )
