"""Every kind of collateral is under the one sealed state, and goes out and in again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from sqlalchemy import text

from kbs.app import check_start
from kbs.broker.collateral_rows import OCSP, RIM, stored_rim_bytes
from kbs.core.encode import b64
from kbs.core.errors import IntegrityError
from kbs.evidence.dcap.documents import DOCUMENT_KINDS
from tests.fakes import snp_world as confidential
from tests.fakes.amd import FakeAmd
from tests.fakes.databases import Place
from tests.fakes.intel import FakeIntel
from tests.fakes.nvidia import Device, FakeNvidia
from tests.fakes.world import World, writer

PATH = "/admin/v1/collateral"
KINDS = sorted({"certificate", "crl", OCSP, RIM, *DOCUMENT_KINDS})


@pytest.fixture
def full(tmp_path: Path, place: Place, amd: FakeAmd) -> Iterator[World]:
    """A broker with something of every kind."""
    intel, nvidia, gpu = FakeIntel(), FakeNvidia(), Device()
    items = [
        amd.ask.public_bytes(Encoding.DER),
        amd.crl().public_bytes(Encoding.DER),
        intel.tcb_info().encode(),
        intel.qe_identity().encode(),
        *(one.public_bytes(Encoding.DER) for one in nvidia.answers(gpu)),
        *(stored_rim_bytes(one) for one in nvidia.rims(gpu)),
    ]
    with closing(place.connect()) as opened:
        world = confidential.create(tmp_path, opened, amd)
        world.must("POST", PATH, {"items": [b64(one) for one in items]})
        assert sorted({one["kind"] for one in _listed(world)}) == KINDS
        yield world


def _listed(world: World) -> list[dict[str, Any]]:
    found = world.must("GET", PATH)["collateral"]
    assert isinstance(found, list)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_that_was_taken_away_is_missed(full: World, kind: str) -> None:
    with writer(full) as connection:
        statement = text("DELETE FROM collateral WHERE kind = :kind")
        assert connection.execute(statement, {"kind": kind}).rowcount
    with pytest.raises(IntegrityError, match="rows that are another set"):
        check_start(full.parts, full.settings)


def test_every_kind_is_given_out_as_it_is_taken(full: World) -> None:
    rows = _listed(full)
    given = [full.must("GET", f"{PATH}/{one['sha256']}") for one in rows]
    assert [one["kind"] for one in given] == [one["kind"] for one in rows]
    again = full.must("POST", PATH, {"items": [one["data"] for one in given]})
    assert (again["read"], again["added"]) == (len(rows), 0)
