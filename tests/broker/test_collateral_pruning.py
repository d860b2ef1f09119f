"""What newer collateral superseded long ago goes, and no verdict hangs on it."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.ocsp import OCSPCertStatus as Status
from sqlalchemy import text

from kbs.app import check_start
from kbs.broker.collateral import KEPT
from kbs.broker.collateral_items import collateral_of, rows_of
from kbs.broker.collateral_pruning import superseded
from kbs.broker.ports import StoredCollateral
from kbs.core.encode import b64
from kbs.core.errors import IntegrityError
from kbs.evidence.dcap.levels import QeIdentity, Signed, TcbInfo
from kbs.evidence.dcap.vouching import Vouched, find_signers, vouched
from kbs.evidence.model import GivenCollateral
from kbs.pki.cache import LinkCache
from kbs.pki.crl import standing
from kbs.pki.roots import Purpose, pinned_roots
from kbs.pki.status import status_of
from tests.fakes import snp_world as confidential
from tests.fakes.amd import NOW, FakeAmd
from tests.fakes.answers import see
from tests.fakes.databases import Place
from tests.fakes.intel import FakeIntel
from tests.fakes.kds import der
from tests.fakes.nvidia import Device, FakeNvidia
from tests.fakes.snp_world import report
from tests.fakes.world import World, writer

PATH = "/admin/v1/collateral"
DAY = timedelta(days=1)
SIGNED = LinkCache()
AMD, INTEL, NVIDIA, GPU = FakeAmd(), FakeIntel(), FakeNvidia(), Device()
CHAIN = NVIDIA.device_chain(GPU)


def crl(
    amd: FakeAmd, number: int, begins: datetime, days: int = 20, **more: Any
) -> bytes:
    return der(
        amd.crl(
            number=number, this_update=begins, next_update=begins + days * DAY, **more
        )
    )


def answer(begins: datetime, days: int = 1, status: Status = Status.GOOD) -> bytes:
    label = f"{GPU.chip} ica"
    unknown = {label} if status is Status.UNKNOWN else set[str]()
    reason = x509.ReasonFlags.key_compromise if status is Status.REVOKED else None
    made = replace(NVIDIA, unknown=unknown).answer(
        label,
        CHAIN[2],
        CHAIN[3],
        f"{GPU.chip} identity",
        this_update=begins,
        next_update=begins + days * DAY,
        reason=reason,
    )
    return made.public_bytes(Encoding.DER)


def document(intel: FakeIntel, begins: datetime, number: int, kind: str) -> bytes:
    # What is published at one time was issued two days before.
    dated = replace(intel, now=begins + 2 * DAY)
    if kind in {"QE", "TD_QE"}:
        return dated.qe_identity(kind, tcbEvaluationDataNumber=number).encode()
    return dated.tcb_info(kind, tcbEvaluationDataNumber=number).encode()


def rows(*items: bytes) -> list[StoredCollateral]:
    return [row for place, one in enumerate(items) for row in rows_of(one, place, NOW)]


def left(given: Sequence[StoredCollateral], before: datetime) -> list[bytes]:
    gone = superseded(given, before)
    return [row.der for row in given if row.digest not in gone]


def test_the_newest_list_stays_and_so_does_what_came_after_that_time() -> None:
    ark = der(AMD.ark)
    lists = [crl(AMD, number, NOW + number * 10 * DAY) for number in range(5)]
    for day, stay in ((-1, 0), (0, 0), (9, 0), (10, 1), (35, 3), (400, 4)):
        kept = left(rows(ark, *lists), NOW + day * DAY)
        assert kept == [ark, *lists[stay:]], day


def test_what_anybody_wrote_pushes_nothing_out() -> None:
    """A list of the same name by another key, with a higher number and a later date."""
    stranger = FakeAmd(realm="stranger")
    genuine, forged = crl(AMD, 1, NOW), crl(stranger, 99, NOW + DAY)
    signers = [der(AMD.ark), der(stranger.ark)]
    everything = rows(*signers, genuine, forged)
    assert left(everything, NOW + 999 * DAY) == [*signers, genuine, forged]
    # And nothing goes where nobody can say who signed it.
    later = crl(AMD, 2, NOW + DAY)
    assert left(rows(genuine, later), NOW + 999 * DAY) == [genuine, later]


def test_documents_go_by_their_number_and_their_platform() -> None:
    signer = der(INTEL.tcb_signer)
    old = document(INTEL, NOW, 17, "TDX")
    newer = document(INTEL, NOW - DAY, 18, "TDX")
    others = [
        document(INTEL, NOW, 17, "SGX"),
        document(INTEL, NOW, 17, "QE"),
        document(INTEL, NOW, 17, "TD_QE"),
    ]
    everything = [signer, old, newer, *others]
    assert left(rows(*everything), NOW) == [signer, newer, *others]
    assert left(rows(*everything[1:]), NOW) == everything[1:]
    forged = INTEL.tcb_info(tcbEvaluationDataNumber=99, signer="stranger").encode()
    everything = [signer, newer, forged]
    assert left(rows(*everything), NOW + 99 * DAY) == everything


def test_an_answer_that_revokes_stays_for_ever() -> None:
    good, revoked = answer(NOW), answer(NOW + DAY, status=Status.REVOKED)
    again, latest = answer(NOW + 2 * DAY), answer(NOW + 3 * DAY)
    given = rows(good, revoked, again, latest)
    assert left(given, NOW + DAY) == [good, revoked, again, latest]
    assert left(given, NOW + 2 * DAY) == [revoked, again, latest]
    assert left(given, NOW + 999 * DAY) == [revoked, latest]


def verdicts(given: GivenCollateral, now: datetime) -> list[object]:
    """Everything that verifiers find out by these rows, at one time."""
    cache = SIGNED
    lists = given.revocation_lists()
    of_amd = standing((AMD.ask,), AMD.ark, lists, now=now, cache=cache)
    found: list[object] = [of_amd.current, of_amd.revoked]
    status = status_of(
        CHAIN[2],
        CHAIN[3],
        lists=lists,
        answers=given.ocsp_answers(CHAIN[2].serial_number),
        now=now,
        cache=cache,
    )
    found += [status.state, status.detail]
    signers = find_signers(
        given.certificates(), pinned_roots(Purpose.DCAP, INTEL.pins()), cache
    )
    for kind, name in ((TcbInfo, "TDX"), (TcbInfo, "SGX"), (QeIdentity, "QE")):

        def fits(one: Signed, name: str = name) -> bool:
            return one.id == name

        one = vouched(
            given.documents(), kind, fits, signers=signers, now=now, cache=cache
        )
        found.append(one.content if isinstance(one, Vouched) else repr(one))
    return found


@pytest.mark.parametrize("seed", range(4))
def test_no_verdict_hangs_on_what_goes(seed: int) -> None:
    """Of any set: at each time since then, verifiers say the same without it."""
    chance = random.Random(seed)  # noqa: S311 - a seed, no secret

    def begins() -> datetime:
        return NOW + chance.randrange(-60, 60) * DAY

    items = [der(one) for one in (AMD.ark, INTEL.tcb_signer, INTEL.root)]
    for _ in range(5):
        revoked = (AMD.ask.serial_number,) if chance.random() < 0.3 else ()
        days = chance.choice([5, 20, 90])
        items.append(crl(AMD, chance.randrange(4), begins(), days, revoked=revoked))
        items.append(document(INTEL, begins(), chance.randrange(15, 18), "TDX"))
        items.append(document(INTEL, begins(), chance.randrange(15, 18), "QE"))
        status = chance.choice([Status.GOOD] * 3 + [Status.REVOKED, Status.UNKNOWN])
        items.append(answer(begins(), chance.choice([1, 30]), status))
    everything = rows(*items)
    before = NOW + chance.randrange(-20, 50) * DAY
    gone = superseded(everything, before)
    rest = [row for row in everything if row.digest not in gone]
    assert {row.digest for row in rest} | set(gone) == {
        row.digest for row in everything
    }
    whole, pruned = collateral_of(everything), collateral_of(rest)
    for day in range(0, 120, 5):
        now = before + day * DAY
        assert verdicts(whole, now) == verdicts(pruned, now), day


@pytest.fixture
def world(tmp_path: Path, place: Place, amd: FakeAmd) -> Iterator[World]:
    """A broker with AMD's issuers."""
    with closing(place.connect()) as database:
        made = steady(confidential.create(tmp_path, database, amd))
        given(made, der(amd.ark), der(amd.ask))
        yield made


def steady(world: World) -> World:
    """The same, where time goes on as the clock does."""
    return world.restarted(monotonic=lambda: world.clock.now().timestamp())


def given(world: World, *items: bytes) -> dict[str, Any]:
    return world.must("POST", PATH, {"items": [b64(one) for one in items]})


def kept(world: World) -> list[str]:
    found = world.must("GET", PATH)["collateral"]
    assert isinstance(found, list)
    return [one["not_before"][:10] for one in found if one["kind"] == "crl"]


def test_a_table_that_is_refreshed_does_not_grow_for_ever(
    world: World, amd: FakeAmd
) -> None:
    for number in range(12):
        now = world.clock.now()
        added = given(world, crl(amd, number, now))
        assert added["added"] == 1
        assert see(world, report(world, amd, crl=False)).status == 200
        world.clock.time += 10 * DAY
    # What stood in the last 30 days, and what stood when they began.
    assert len(kept(world)) == KEPT // (10 * DAY) + 1
    entries = world.entries("collateral.pruned")
    assert sum(int(str(one["count"])) for one in entries) == 12 - 4
    assert all(len(str(one["digests"])) > 64 for one in entries)
    # It is whole: for this process, for a new one, and for whoever tampers with it.
    check_start(world.parts, world.settings)
    with writer(world) as connection:
        connection.execute(text("DELETE FROM collateral WHERE kind = 'crl'"))
    with pytest.raises(IntegrityError, match="another set"):
        check_start(world.parts, world.settings)


def test_an_import_that_brings_nothing_new_takes_nothing_away(
    world: World, amd: FakeAmd
) -> None:
    now = world.clock.now()
    first, second = crl(amd, 1, now), crl(amd, 2, now + DAY)
    given(world, first, second)
    world.clock.time += 100 * DAY
    again = given(world, first, second)
    assert again["added"] == 0
    assert len(kept(world)) == 2
    given(world, crl(amd, 3, world.clock.now()))
    assert len(kept(world)) == 2
    (entry,) = world.entries("collateral.pruned")
    assert entry["count"] == 1
    # An older one that is imported once more goes at once, and rules nothing.
    assert given(world, first)["added"] == 1
    assert len(kept(world)) == 2


def test_a_clock_that_jumps_takes_nothing_away(world: World, amd: FakeAmd) -> None:
    jumping = world.restarted(monotonic=lambda: 1.0)
    now = world.clock.now()
    given(jumping, crl(amd, 1, now), crl(amd, 2, now + DAY))
    jumping.clock.time += 100 * DAY
    given(jumping, crl(amd, 3, now))
    assert len(kept(jumping)) == 3
    assert jumping.entries("collateral.pruned") == []


def test_evidence_that_is_kept_longer_keeps_its_collateral(
    tmp_path: Path, sqlite_place: Place, amd: FakeAmd
) -> None:
    with closing(sqlite_place.connect()) as database:
        world = steady(
            World.create(tmp_path, database=database, evidence_retention_days=365)
        )
        given(world, der(amd.ark))
        for number in range(4):
            given(world, crl(amd, number, world.clock.now()))
            world.clock.time += 90 * DAY
        assert len(kept(world)) == 4
        world.clock.time += 270 * DAY
        given(world, crl(amd, 9, world.clock.now()))
        assert len(kept(world)) == 3
