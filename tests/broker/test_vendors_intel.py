"""What comes from Intel's service, or a PCCS, is proven before anybody keeps it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from kbs.adapters.http import PATIENCE, HttpFetcher
from kbs.broker.vendors import intel as routes
from kbs.broker.vendors.fetching import NOTHING, Vendors, origin_of, parse_source
from kbs.broker.vendors.source import Source, parse_services
from kbs.core.errors import CollateralError
from kbs.core.fetch import WRONG
from kbs.evidence.dcap.documents import TCB_INFO, parse_document
from kbs.evidence.model import GivenCollateral, VendorDocument
from tests.fakes import vendor
from tests.fakes.intel import NOW, ROOT_NAME, FakeIntel
from tests.fakes.pcs import PCCS_ROOT_CRL, PCK_CRL, ROOT_CRL, der, pcs, publish_tcb
from tests.fakes.tpm_ca import FakeTpmCA
from tests.fakes.vendor import Fault, Served, VendorService, serving
from tests.fakes.world import FakeClock

pytestmark = pytest.mark.enable_socket

QUICK = replace(PATIENCE, read=1.0, total=1.0, pause=0.01)
QE = routes.qe_source("tdx")
PCK_LIST = routes.crl_source("platform")
DAY = timedelta(days=1)


@pytest.fixture(scope="module")
def intel() -> FakeIntel:
    return FakeIntel()


@pytest.fixture
def service(intel: FakeIntel) -> VendorService:
    return pcs(intel)


@pytest.fixture
def url(service: VendorService) -> Iterator[str]:
    with serving(service) as found:
        yield found


@pytest.fixture
def vendors(url: str, intel: FakeIntel) -> Vendors:
    services = parse_services({"pcs": url, "intel": url})
    return Vendors(HttpFetcher(QUICK), FakeClock(NOW), services, pins=intel.pins())


@pytest.fixture
def tcb(intel: FakeIntel) -> Source:
    return routes.tcb_source("tdx", intel.fmspc)


def wrong(vendors: Vendors, source: Source, known: GivenCollateral = NOTHING) -> str:
    with pytest.raises(CollateralError) as caught:
        vendors.fetch(source, known)
    assert caught.value.code == WRONG
    return str(caught.value)


def certificate(one: object) -> bytes:
    return one.public_bytes(Encoding.DER)  # type: ignore[attr-defined, no-any-return]


def test_documents_come_with_their_signer(
    vendors: Vendors, intel: FakeIntel, service: VendorService, tcb: Source
) -> None:
    chain = (certificate(intel.tcb_signer), certificate(intel.root))
    assert vendors.fetch(tcb) == (*chain, service.answers[tcb.path].body)
    assert vendors.fetch(QE) == (*chain, service.answers[QE.path].body)
    sgx = routes.tcb_source("sgx", intel.fmspc)
    assert vendors.fetch(sgx)[-1] == service.answers[sgx.path].body


def test_lists_come_with_their_issuer(
    vendors: Vendors, intel: FakeIntel, service: VendorService
) -> None:
    assert vendors.fetch(PCK_LIST) == (
        certificate(intel.pck_ca),
        certificate(intel.root),
        service.answers[PCK_CRL].body,
    )
    root = service.answers[ROOT_CRL].body
    assert vendors.fetch(routes.ROOT_CRL) == (certificate(intel.root), root)
    service.asked.clear()
    vendors.fetch(routes.ROOT_CRL, GivenCollateral((intel.root,)))
    assert service.asked == [ROOT_CRL]


def test_a_pccs_has_the_list_of_the_root_in_hex(
    url: str, intel: FakeIntel, service: VendorService
) -> None:
    service.answers.pop(ROOT_CRL)
    services = parse_services({"pcs": url})
    vendors = Vendors(HttpFetcher(QUICK), FakeClock(NOW), services, pins=intel.pins())
    assert vendors.fetch(routes.ROOT_CRL)[-1].hex().encode() == (
        service.answers[PCCS_ROOT_CRL].body
    )


def test_everything_kept_says_where_it_came_from(
    intel: FakeIntel, service: VendorService, tcb: Source
) -> None:
    assert origin_of(TCB_INFO, service.answers[tcb.path].body) == tcb
    assert origin_of("intel.qe_identity", service.answers[QE.path].body) == QE
    assert origin_of("crl", der(intel.crl())) == PCK_LIST
    assert origin_of("crl", der(intel.crl("root"))) == routes.ROOT_CRL
    for source in (tcb, *routes.everything()):
        assert parse_source(source.url) == source


def test_another_signer(
    vendors: Vendors, intel: FakeIntel, service: VendorService, tcb: Source
) -> None:
    publish_tcb(service, intel, intel.tcb_info(signer="somebody"))
    assert "does not verify under Intel SGX TCB Signing" in wrong(vendors, tcb)
    stranger = FakeIntel(realm="stranger")
    service.answers.update(pcs(stranger).answers)
    for source in (tcb, QE, PCK_LIST, routes.ROOT_CRL):
        wrong(vendors, source)


def test_another_platform_or_tee_than_asked_for(
    vendors: Vendors, intel: FakeIntel, service: VendorService, tcb: Source
) -> None:
    publish_tcb(service, intel, intel.tcb_info(fmspc="00606A000000"))
    assert "expected the TCB info of TDX and FMSPC 00f0a0000000" in wrong(vendors, tcb)
    publish_tcb(service, intel, intel.tcb_info("SGX"))
    assert "expected the TCB info of TDX" in wrong(vendors, tcb)
    sgx = service.answers["/sgx/certification/v4/qe/identity"]
    service.answers[QE.path] = sgx
    assert "expected the identity of TD_QE" in wrong(vendors, QE)
    service.answers[PCK_CRL] = Served(
        der(intel.crl("root")), service.answers[PCK_CRL].headers
    )
    assert "Intel SGX PCK Platform CA" in wrong(vendors, PCK_LIST)


def test_what_ran_out_or_is_older_does_not_come_in(
    vendors: Vendors, intel: FakeIntel, service: VendorService, tcb: Source
) -> None:
    publish_tcb(service, intel, intel.tcb_info(nextUpdate="2026-11-01T00:00:00Z"))
    assert "the newest ran out" in wrong(vendors, tcb)
    newer = parse_document(intel.tcb_info(tcbEvaluationDataNumber=19).encode())
    known = GivenCollateral(given_documents=(newer,))
    publish_tcb(service, intel, intel.tcb_info())
    assert "as new as the one to hand" in wrong(vendors, tcb, known)
    publish_tcb(service, intel, newer.data.decode())
    assert vendors.fetch(tcb, known)[-1] == newer.data
    service.answers[PCK_CRL] = Served(
        der(intel.crl(next_update=NOW - DAY)), service.answers[PCK_CRL].headers
    )
    assert "expected one that covers" in wrong(vendors, PCK_LIST)


@pytest.mark.parametrize("fault", [vendor.cut, vendor.instead(b"<html>")])
def test_garbage_is_wrong_and_nothing_else(
    vendors: Vendors, service: VendorService, tcb: Source, fault: Fault
) -> None:
    for source in (tcb, QE, PCK_LIST, routes.ROOT_CRL):
        service.faults = [fault]
        wrong(vendors, source)


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("", "a chain in PEM in tcb-info-issuer-chain"),
        ("%2D%2D", "a chain in PEM in tcb-info-issuer-chain"),
    ],
)
def test_a_header_that_is_no_chain(
    vendors: Vendors, service: VendorService, tcb: Source, header: str, said: str
) -> None:
    body = service.answers[tcb.path].body
    service.answers[tcb.path] = Served(body, {"TCB-Info-Issuer-Chain": header})
    assert said in wrong(vendors, tcb)


def test_without_a_header_what_is_kept_may_do(
    vendors: Vendors, intel: FakeIntel, service: VendorService, tcb: Source
) -> None:
    body = service.answers[tcb.path].body
    service.answers[tcb.path] = Served(body)
    assert "no certificate of Intel SGX TCB Signing" in wrong(vendors, tcb)
    known = GivenCollateral((intel.tcb_signer, intel.root))
    assert vendors.fetch(tcb, known)[-1] == body


def test_a_list_of_several_or_of_nobody_who_is_named(
    vendors: Vendors, intel: FakeIntel, service: VendorService
) -> None:
    headers = service.answers[PCK_CRL].headers
    both = b"".join(
        one.public_bytes(Encoding.PEM) for one in (intel.crl(), intel.crl("root"))
    )
    service.answers[PCK_CRL] = Served(both, headers)
    assert "got 2 lists, expected one" in wrong(vendors, PCK_LIST)
    pem = intel.crl().public_bytes(Encoding.PEM)
    service.answers[PCK_CRL] = Served(pem)
    assert "no such certificate" in wrong(vendors, PCK_LIST)
    known = GivenCollateral((intel.root, intel.pck_ca))
    assert len(vendors.fetch(PCK_LIST, known)) == 3
    assert origin_of("crl", der(FakeTpmCA().revocation_lists()[0])) is None


def test_a_signer_that_has_run_out(
    vendors: Vendors, intel: FakeIntel, service: VendorService, tcb: Source
) -> None:
    ended = intel.certificate(
        "Intel SGX TCB Signing",
        "tcb",
        ROOT_NAME,
        "root",
        serial=9,
        ca=False,
        not_after=NOW - DAY,
    )
    body = service.answers[tcb.path].body
    service.answers[tcb.path] = Served(body)
    known = GivenCollateral((ended, intel.root))
    assert "expected a signer that is valid now" in wrong(vendors, tcb, known)


def test_what_is_no_document_of_intels_comes_from_nowhere() -> None:
    other = VendorDocument(
        kind="x", subject="", begins=NOW, ends=NOW, data=b"", content=None
    )
    assert routes.source_of_document(other) is None
