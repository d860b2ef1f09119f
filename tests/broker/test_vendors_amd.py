"""What comes from AMD's service is proven before anybody keeps it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest

from kbs.adapters.http import PATIENCE, HttpFetcher
from kbs.broker.vendors import amd as kds_routes
from kbs.broker.vendors.fetching import NOTHING, Vendors, origin_of, parse_source
from kbs.broker.vendors.source import (
    Service,
    Source,
    parse_services,
    split_url,
)
from kbs.core.errors import CollateralError, MalformedError
from kbs.core.fetch import ABSENT, WRONG
from kbs.evidence.model import GivenCollateral
from kbs.pki.certificates import load_certificates, load_der_certificate
from tests.fakes import vendor
from tests.fakes.amd import FakeAmd
from tests.fakes.kds import der, kds, pem, publish_list, vcek_path
from tests.fakes.vendor import Served, VendorService, serving
from tests.fakes.world import FakeClock

pytestmark = pytest.mark.enable_socket

QUICK = replace(PATIENCE, read=1.0, total=1.0, pause=0.01)
CRL = kds_routes.crl_source("Milan")
CHAIN = kds_routes.chain_source("Milan")


@pytest.fixture(scope="module")
def amd() -> FakeAmd:
    return FakeAmd()


@pytest.fixture
def service(amd: FakeAmd) -> VendorService:
    return kds(amd, FakeAmd(product="Turin"))


@pytest.fixture
def vendors(service: VendorService, amd: FakeAmd) -> Iterator[Vendors]:
    pins = amd.pins() | FakeAmd(product="Turin").pins()
    with serving(service) as url:
        yield Vendors(
            HttpFetcher(QUICK), FakeClock(), parse_services({"kds": url}), pins=pins
        )


def wrong(vendors: Vendors, source: Source, known: GivenCollateral = NOTHING) -> str:
    with pytest.raises(CollateralError) as caught:
        vendors.fetch(source, known)
    assert caught.value.code == WRONG
    assert str(caught.value).startswith(f"answer for {source.url}: got ")
    return str(caught.value)


def test_issuers_come_with_their_root(vendors: Vendors, amd: FakeAmd) -> None:
    assert vendors.fetch(CHAIN) == (der(amd.ask), der(amd.ark))
    vlek = kds_routes.chain_source("Milan", "vlek")
    assert vendors.fetch(vlek) == (der(amd.asvk), der(amd.ark))


def test_a_list_comes_with_what_proves_it_unless_that_is_kept(
    vendors: Vendors, amd: FakeAmd, service: VendorService
) -> None:
    *chain, crl = vendors.fetch(CRL)
    assert chain == [der(amd.ask), der(amd.ark)]
    assert service.answers[CRL.path].body == crl
    service.asked.clear()
    assert vendors.fetch(CRL, GivenCollateral((amd.ark,))) == (crl,)
    assert service.asked == [CRL.path]


@pytest.mark.parametrize("product", ["Milan", "Turin"])
def test_a_vcek_comes_with_its_chain(
    vendors: Vendors, service: VendorService, product: str
) -> None:
    chip = FakeAmd(product=product)
    items = vendors.fetch(vcek_path(chip))
    assert len(items) == 3
    leaf = load_der_certificate(items[0], "VCEK")
    assert kds_routes.source_of_certificate(leaf) == vcek_path(chip)
    served = service.answers[f"/vcek/v1/{product}/cert_chain"].body
    assert items[1:] == tuple(der(one) for one in load_certificates(served, ""))


def test_everything_kept_says_where_it_came_from(amd: FakeAmd) -> None:
    assert origin_of("crl", der(amd.crl())) == CRL
    assert origin_of("certificate", der(amd.ark)) == CHAIN
    assert origin_of("certificate", der(amd.asvk)) == kds_routes.chain_source(
        "Milan", "vlek"
    )
    assert origin_of("certificate", der(amd.vcek())) == vcek_path(amd)
    assert origin_of("certificate", der(amd.vlek())) is None
    assert origin_of("certificate", b"damaged") is None
    assert origin_of("other", b"") is None


def test_another_vendor_signed_it(vendors: Vendors, service: VendorService) -> None:
    stranger = kds(FakeAmd(realm="stranger"))
    service.answers.update(stranger.answers)
    assert "no trusted root" in wrong(vendors, CHAIN)
    assert "no trusted root" in wrong(vendors, CRL)


def test_another_line_than_asked_for(
    vendors: Vendors, service: VendorService, amd: FakeAmd
) -> None:
    turin = FakeAmd(product="Turin")
    service.answers[CHAIN.path] = Served(pem(turin.ask, turin.ark))
    assert "got certificates of SEV-Turin, ARK-Turin" in wrong(vendors, CHAIN)
    service.answers[CHAIN.path] = Served(pem(amd.ask, amd.ark))
    publish_list(service, amd, turin.crl())
    assert "a list of ARK-Turin" in wrong(vendors, CRL)


def test_another_chip_or_tcb_than_asked_for(
    vendors: Vendors, service: VendorService, amd: FakeAmd
) -> None:
    source = vcek_path(amd)
    for leaf in (
        FakeAmd(chip="chip-2").vcek(),
        amd.vcek({**amd.tcb, "snp": 2}),
        amd.vlek(),
    ):
        service.answers[source.path] = Served(der(leaf))
        assert f"Milan, chip {amd.hwid.hex()[:16]}…" in wrong(vendors, source)


def test_a_leaf_that_the_issuer_did_not_sign(
    vendors: Vendors, service: VendorService, amd: FakeAmd
) -> None:
    source = vcek_path(amd)
    service.answers[source.path] = Served(der(amd.vcek(signer="asvk")))
    assert "did not sign SEV-VCEK" in wrong(vendors, source)


def test_lists_that_are_not_good_now(
    vendors: Vendors, service: VendorService, amd: FakeAmd
) -> None:
    day = timedelta(days=1)
    publish_list(service, amd, amd.crl(next_update=amd.now - day))
    assert "expected one that covers 2026-11-22T08:00:00Z" in wrong(vendors, CRL)
    publish_list(service, amd, amd.crl(this_update=amd.now + day))
    assert "expected one that covers" in wrong(vendors, CRL)
    publish_list(service, amd, amd.crl(signer="ask"))
    assert "that ARK-Milan signed" in wrong(vendors, CRL)


def test_an_older_list_does_not_come_in(
    vendors: Vendors, service: VendorService, amd: FakeAmd
) -> None:
    newer = amd.crl(number=8, revoked=(1,))
    known = GivenCollateral((amd.ark,), (newer,))
    assert "expected one as new as the one to hand" in wrong(vendors, CRL, known)
    publish_list(service, amd, newer)
    assert vendors.fetch(CRL, known) == (der(newer),)


@pytest.mark.parametrize(
    "fault", [vendor.cut, vendor.instead(b""), vendor.instead(b"<html>busy</html>")]
)
@pytest.mark.parametrize("what", ["chain", "list", "vcek"])
def test_garbage_is_wrong_and_nothing_else(
    vendors: Vendors,
    service: VendorService,
    amd: FakeAmd,
    what: str,
    fault: vendor.Fault,
) -> None:
    source = {"chain": CHAIN, "list": CRL, "vcek": vcek_path(amd)}[what]
    service.faults = [fault]
    wrong(vendors, source)


def test_what_the_service_does_not_have(
    vendors: Vendors, service: VendorService, amd: FakeAmd
) -> None:
    service.answers.clear()
    for source in (CHAIN, CRL, vcek_path(amd)):
        with pytest.raises(CollateralError) as caught:
            vendors.fetch(source)
        assert caught.value.code == ABSENT


@pytest.mark.parametrize(
    "url",
    [
        "https://kdsintf.amd.com/vcek/v1/Rome/crl",
        "https://kdsintf.amd.com/vcek/v1/Milan/crl?x=1",
        "https://kdsintf.amd.com/vcek/v1/Milan/00?blSPL=1&teeSPL=0&snpSPL=1&ucodeSPL=1",
        "https://kdsintf.amd.com.evil.example/vcek/v1/Milan/crl",
        "https://kdsintf.amd.com@evil.example/vcek/v1/Milan/crl",
        "https://kdsintf.amd.com",
        "http://kdsintf.amd.com/vcek/v1/Milan/crl",
        "http://169.254.169.254/latest/meta-data",
        "https://kdsintf.amd.com/" + "a" * 3000,
        "",
    ],
)
def test_only_what_vendors_publish_is_a_source(url: str) -> None:
    with pytest.raises(MalformedError) as caught:
        parse_source(url)
    assert caught.value.code == "collateral.source"


def test_a_source_is_its_url() -> None:
    assert parse_source(CRL.url) == CRL == split_url(CRL.url)
    assert CRL.log_name == CRL.url
    # A chip is not named in the log.
    assert vcek_path(FakeAmd()).log_name == "https://kdsintf.amd.com"


@pytest.mark.parametrize(
    "url",
    [
        "ftp://mirror",
        "https://",
        "https://user:secret@mirror",
        "https://mirror/?q=1",
        "https://mirror/#f",
        "https://mir ror",
        "https://[::1",
        "mirror",
    ],
)
def test_the_url_of_a_service_is_plain(url: str) -> None:
    with pytest.raises(MalformedError, match="URL of a service"):
        parse_services({"kds": url})


def test_services_by_name() -> None:
    services = parse_services({"pcs": "https://pccs.example:8081/prefix/"})
    assert services.url_of(Source(Service.PCS, "/x")) == (
        "https://pccs.example:8081/prefix/x"
    )
    assert services.url_of(CRL) == CRL.url
    with pytest.raises(MalformedError, match="expected kds, pcs, intel, rim, ocsp"):
        parse_services({"amd": "https://mirror"})


def test_issuers_that_are_kept_are_not_fetched_again(
    vendors: Vendors, service: VendorService, amd: FakeAmd
) -> None:
    source = vcek_path(amd)
    items = vendors.fetch(source, GivenCollateral((amd.ask, amd.ark)))
    assert items[1:] == (der(amd.ask), der(amd.ark))
    assert service.asked == [source.path]
    # Somebody of the same name in the table stands in nobody's way.
    stranger = FakeAmd(realm="stranger")
    vendors.fetch(source, GivenCollateral((stranger.ask, stranger.ark)))
    assert service.asked[1:] == [source.path, CHAIN.path]


def test_issuers_that_have_run_out(
    vendors: Vendors, service: VendorService, amd: FakeAmd
) -> None:
    ended = amd.now - timedelta(days=1)
    old = amd.authority("SEV-Milan", "ask", 0x10001, not_after=ended)
    service.answers[CHAIN.path] = Served(pem(old, amd.ark))
    assert "expected certificates that are valid now" in wrong(vendors, CHAIN)


def test_an_issuer_of_the_right_name_below_the_root_of_another_line(
    service: VendorService, amd: FakeAmd
) -> None:
    turin = FakeAmd(product="Turin")
    service.answers[CHAIN.path] = Served(pem(amd.ask, amd.ark))
    pins = {next(iter(amd.pins())): "AMD ARK Turin"} | turin.pins()
    with serving(service) as url:
        services = parse_services({"kds": url})
        vendors = Vendors(HttpFetcher(QUICK), FakeClock(), services, pins=pins)
        assert "expected one to AMD ARK Milan" in wrong(vendors, CHAIN)


def test_a_leaf_with_damaged_extensions_comes_from_nowhere(amd: FakeAmd) -> None:
    extensions = amd.extensions() | {"1.3.6.1.4.1.3704.1.4": b"short"}
    damaged = amd.leaf(0, extensions)
    assert origin_of("certificate", der(damaged)) is None
