"""Collateral is fetched anew ahead of its end, beside requests and not for them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from sqlalchemy import text

from kbs.adapters.http import PATIENCE, HttpFetcher
from kbs.adapters.lock import FileLock
from kbs.app import Composed, compose
from kbs.broker.refresh import Refresher, due
from kbs.broker.vendors import amd as kds_routes
from kbs.broker.vendors.fetching import Vendors
from kbs.broker.vendors.intel import tcb_source
from kbs.broker.vendors.nvidia import status_source
from kbs.broker.vendors.source import parse_services
from kbs.core.encode import b64, parse_b64
from kbs.core.errors import ConfigurationError
from kbs.evidence.model import GivenCollateral
from tests.fakes import snp_world as confidential
from tests.fakes import vendor
from tests.fakes.amd import FakeAmd
from tests.fakes.answers import see
from tests.fakes.databases import Place
from tests.fakes.intel import FakeIntel
from tests.fakes.kds import der, kds, publish_list
from tests.fakes.nvidia import Device, FakeNvidia
from tests.fakes.ocsp import Responder
from tests.fakes.pcs import pcs, publish_tcb
from tests.fakes.snp_world import report
from tests.fakes.vendor import VendorService, serving
from tests.fakes.world import World, writer

pytestmark = pytest.mark.enable_socket

CRL = kds_routes.crl_source("Milan")
DAY = timedelta(days=1)
QUICK = replace(PATIENCE, read=1.0, total=1.0, attempts=1)


@pytest.fixture
def amd() -> FakeAmd:
    return FakeAmd()


@pytest.fixture
def service(amd: FakeAmd) -> VendorService:
    return kds(amd)


@pytest.fixture
def world(tmp_path: Path, sqlite_place: Place, amd: FakeAmd) -> Iterator[World]:
    """A broker with the issuers and one list, from -10 to +10 days."""
    with closing(sqlite_place.connect()) as database:
        made = confidential.create(tmp_path, database, amd)
        items = [b64(der(one)) for one in (amd.ark, amd.ask, amd.crl(number=7))]
        made.must("POST", "/admin/v1/collateral", {"items": items})
        yield made


@pytest.fixture
def composed(world: World, amd: FakeAmd, service: VendorService) -> Iterator[Composed]:
    with serving(service) as url:
        yield compose(
            replace(
                world.parts,
                fetcher=lambda: HttpFetcher(QUICK),
                vendor_roots=amd.pins(),
            ),
            replace(
                world.settings,
                refresh_collateral=True,
                services=parse_services({"kds": url}),
            ),
        )


@pytest.fixture
def refresher(composed: Composed) -> Refresher:
    assert composed.refresher is not None
    return composed.refresher


def _newer(amd: FakeAmd, world: World) -> bytes:
    now = world.clock.now()
    return der(amd.crl(number=8, this_update=now - DAY, next_update=now + 20 * DAY))


def _publish(service: VendorService, data: bytes) -> None:
    service.answers[CRL.path] = vendor.Served(data)


def _lists(world: World) -> int:
    listed = world.must("GET", "/admin/v1/collateral")["collateral"]
    assert isinstance(listed, list)
    return sum(row["kind"] == "crl" for row in listed)


def test_nothing_is_asked_while_there_is_time(
    refresher: Refresher, world: World, service: VendorService
) -> None:
    refresher.run()
    world.clock.time += 3 * DAY
    refresher.run()
    assert service.asked == []


def test_a_list_is_fetched_in_the_last_third_of_its_time(
    refresher: Refresher, world: World, service: VendorService, amd: FakeAmd
) -> None:
    world.clock.time += 4 * DAY
    _publish(service, _newer(amd, world))
    refresher.run()
    assert service.asked == [CRL.path]
    assert _lists(world) == 2
    (entry,) = world.entries("collateral.fetched")
    assert (entry["source"], entry["count"]) == (CRL.url, 1)
    refresher.run()
    assert service.asked == [CRL.path]
    assert refresher.overdue() == ()
    # When the old one has run out, releases go on by the new one.
    world.clock.time += 7 * DAY
    assert see(world, report(world, amd, crl=False)).status == 200


def test_the_same_list_again_is_no_news(
    refresher: Refresher, world: World, service: VendorService, amd: FakeAmd
) -> None:
    world.clock.time += 4 * DAY
    listed = world.must("GET", "/admin/v1/collateral")["collateral"]
    assert isinstance(listed, list)
    (digest,) = [row["sha256"] for row in listed if row["kind"] == "crl"]
    item = world.must("GET", f"/admin/v1/collateral/{digest}")
    data = item["data"]
    assert isinstance(data, str)
    _publish(service, parse_b64(data, "item", limit=10**6))
    refresher.run()
    refresher.run()
    # Asked once, and then not before a tenth of what is left of its time.
    assert service.asked == [CRL.path]
    assert world.entries("collateral.fetched") == []
    for hours, asked in ((14, 1), (1, 2)):
        world.clock.advance(hours * 3600)
        refresher.run()
        assert len(service.asked) == asked


def test_failures_are_told_and_asked_again_ever_later(
    refresher: Refresher,
    composed: Composed,
    world: World,
    service: VendorService,
    caplog: pytest.LogCaptureFixture,
) -> None:
    world.clock.time += 4 * DAY
    service.answers.clear()
    with caplog.at_level(logging.WARNING, "kbs.collateral"):
        refresher.run()
    assert f"{CRL.url}: " in caplog.text
    assert "status 404" in caplog.text
    for wait, asked in ((59, 1), (1, 2), (119, 2), (1, 3)):
        world.clock.advance(wait)
        refresher.run()
        assert len(service.asked) == asked
    (told,) = refresher.overdue()
    assert told.startswith(f"{CRL.url} runs out 2026-12-02T08:00:00Z: ")
    health = composed.broker.health.report()
    (missing,) = [one for one in health.missing if one.what == "refresh"]
    assert (missing.blocking, missing.detail[:8]) == (False, "1 items ")
    world.clock.time += 7 * DAY
    assert "ran out" in refresher.overdue()[0]


def test_a_release_waits_for_no_vendor(
    refresher: Refresher, world: World, service: VendorService, amd: FakeAmd
) -> None:
    world.clock.time += 4 * DAY
    service.answers.clear()
    refresher.run()
    # The old list counts for as long as it says, and then nothing could be checked.
    assert see(world, report(world, amd, crl=False)).status == 200
    world.clock.time += 7 * DAY
    assert see(world, report(world, amd, crl=False)).status == 503
    assert len(service.asked) == 1


def test_a_wrong_answer_changes_nothing(
    refresher: Refresher, world: World, service: VendorService, amd: FakeAmd
) -> None:
    world.clock.time += 4 * DAY
    publish_list(service, amd, FakeAmd(realm="stranger").crl(number=9))
    refresher.run()
    assert _lists(world) == 1
    assert "that ARK-Milan signed" in refresher.overdue()[0]
    assert see(world, report(world, amd, crl=False)).status == 200


def test_a_service_that_asks_for_patience_gets_it(
    refresher: Refresher, world: World, service: VendorService, amd: FakeAmd
) -> None:
    world.clock.time += 4 * DAY
    _publish(service, _newer(amd, world))
    service.faults = [vendor.status(429, Retry_After="7200")]
    refresher.run()
    for wait, asked in ((7199, 1), (2, 2)):
        world.clock.advance(wait)
        refresher.run()
        assert len(service.asked) == asked
    assert refresher.overdue() == ()


def test_a_clock_that_was_ahead_stops_no_fetching_for_good(
    refresher: Refresher, world: World, service: VendorService, amd: FakeAmd
) -> None:
    """Waiting until a time of next year ends when the clock is right again."""
    world.clock.time += 365 * DAY
    service.answers.clear()
    refresher.run()
    assert service.asked == [CRL.path]
    world.clock.time -= 361 * DAY
    _publish(service, _newer(amd, world))
    refresher.run()
    assert service.asked == [CRL.path, CRL.path]
    assert refresher.overdue() == ()


def test_one_worker_does_it_and_the_others_see_what_is_late(
    refresher: Refresher, world: World, service: VendorService
) -> None:
    world.clock.time += 11 * DAY
    with FileLock(world.settings.data / "collateral.lock").held() as mine:
        assert mine
        refresher.run()
    assert service.asked == []
    assert refresher.overdue() == (f"{CRL.url} ran out 2026-12-02T08:00:00Z",)


def test_a_table_that_was_changed_is_not_added_to(
    refresher: Refresher, world: World, service: VendorService, amd: FakeAmd
) -> None:
    world.clock.time += 4 * DAY
    _publish(service, _newer(amd, world))
    with writer(world) as connection:
        connection.execute(text("DELETE FROM collateral WHERE kind = 'certificate'"))
    refresher.run()
    assert _lists(world) == 1
    assert "collateral" in refresher.overdue()[0]


def test_after_it_is_closed_nothing_is_fetched(
    refresher: Refresher, world: World, service: VendorService
) -> None:
    world.clock.time += 4 * DAY
    refresher.close()
    refresher.run()
    assert service.asked == []


def test_an_offline_broker_does_not_refresh(world: World) -> None:
    assert compose(world.parts, world.settings).refresher is None
    with pytest.raises(ConfigurationError, match="--refresh-collateral"):
        replace(world.settings, refresh_collateral=True, offline=True)


def test_what_intel_and_nvidia_issue_is_fetched_anew_too(
    tmp_path: Path, sqlite_place: Place
) -> None:
    """One table, one pass: a TCB info, an OCSP answer and their certificates."""
    intel, nvidia, gpu = FakeIntel(), FakeNvidia(), Device()
    later = timedelta(days=24)
    chain = nvidia.device_chain(gpu)
    answer = nvidia.answer(
        f"{gpu.chip} identity", chain[3], chain[4], "root", delegated=False
    )
    with closing(sqlite_place.connect()) as database:
        world = World.create(tmp_path, database=database)
        items = [der(one) for one in (intel.tcb_signer, intel.root, *chain[3:])]
        items += [intel.tcb_info().encode(), answer.public_bytes(Encoding.DER)]
        body = {"items": [b64(one) for one in items]}
        assert world.must("POST", "/admin/v1/collateral", body)["added"] == 6
        world.clock.time += later
        newer = FakeIntel(now=world.clock.now()).tcb_info()
        service = pcs(intel)
        publish_tcb(service, intel, newer)
        responder = Responder(nvidia=replace(nvidia, now=world.clock.now()))
        with serving(service) as pcs_url, serving(responder) as ocsp_url:
            urls = parse_services({"pcs": pcs_url, "ocsp": ocsp_url})
            composed = compose(
                replace(
                    world.parts,
                    fetcher=lambda: HttpFetcher(QUICK),
                    vendor_roots=intel.pins() | nvidia.pins(),
                ),
                replace(world.settings, refresh_collateral=True, services=urls),
            )
            assert composed.refresher is not None
            composed.refresher.run()
            assert composed.refresher.overdue() == ()
        sources = {entry["source"] for entry in world.entries("collateral.fetched")}
        assert sources == {
            tcb_source("tdx", intel.fmspc).url,
            "https://ocsp.ndis.nvidia.com",
        }


def test_an_answer_signed_anew_that_lasts_no_longer_is_no_news(
    tmp_path: Path, sqlite_place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    """Each has another nonce, and so other bytes; nor is a device named in the log."""
    nvidia, gpu = FakeNvidia(), Device()
    chain = nvidia.device_chain(gpu)
    responder = Responder(nvidia=nvidia, device=gpu, age=timedelta(hours=20))
    with closing(sqlite_place.connect()) as database, serving(responder) as url:
        world = World.create(tmp_path, database=database)
        urls = parse_services({"ocsp": url})
        vendors = Vendors(HttpFetcher(QUICK), world.clock, urls, pins=nvidia.pins())
        source = status_source(*chain[1:3])
        items = vendors.fetch(source, GivenCollateral(chain))
        body = {"items": [b64(one) for one in items]}
        world.must("POST", "/admin/v1/collateral", body)
        composed = compose(
            replace(world.parts, fetcher=lambda: HttpFetcher(QUICK)),
            replace(world.settings, refresh_collateral=True, services=urls),
        )
        assert composed.refresher is not None
        responder.posted.clear()
        # Of the last four hours: not before a tenth of them, and then of the rest.
        for seconds, asked in ((0, 1), (30, 1), (24 * 60 - 31, 1), (2, 2), (30, 2)):
            world.clock.advance(seconds)
            composed.refresher.run()
            assert len(responder.posted) == asked
        responder.nonce = bytes(32)
        world.clock.advance(3600)
        with caplog.at_level(logging.INFO, "kbs.collateral"):
            composed.refresher.run()
        assert "got the nonce of another request" in caplog.text
        assert source.path not in caplog.text + str(composed.refresher.overdue())
        assert len(world.entries("collateral.fetched")) == 2


def test_of_several_lists_the_newest_says_when(world: World, amd: FakeAmd) -> None:
    older = amd.crl(number=6, this_update=amd.now - 20 * DAY, next_update=amd.now)
    world.clock.advance(1)
    world.must("POST", "/admin/v1/collateral", {"items": [b64(der(older))]})
    rows = world.broker.collateral.rows()
    assert len(rows) == 4
    (one,) = due(rows, amd.now + 4 * DAY)
    assert (one.source, one.ends) == (CRL, amd.now + 10 * DAY)


def test_a_table_that_cannot_be_read_is_said_and_harms_nothing(
    refresher: Refresher, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    with writer(world) as connection:
        connection.execute(text("DROP TABLE collateral"))
    with caplog.at_level(logging.ERROR, "kbs.collateral"):
        refresher.run()
    assert "collateral: " in caplog.text


def test_an_item_that_is_not_there(world: World) -> None:
    assert world.call("GET", f"/admin/v1/collateral/{'00' * 32}").status_code == 404
    assert world.call("GET", "/admin/v1/collateral/zz").status_code == 400
