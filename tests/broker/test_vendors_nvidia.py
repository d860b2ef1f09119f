"""What comes from NVIDIA's services is proven before anybody keeps it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from urllib.parse import quote

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp

from kbs.adapters.http import PATIENCE, HttpFetcher
from kbs.broker.collateral_rows import load_stored_rim
from kbs.broker.vendors import nvidia as routes
from kbs.broker.vendors.fetching import NOTHING, Vendors, origin_of, parse_source
from kbs.broker.vendors.source import Source, parse_services
from kbs.core.encode import b64
from kbs.core.errors import CollateralError, MalformedError
from kbs.core.fetch import WRONG
from kbs.evidence.model import GivenCollateral
from kbs.pki.certificates import der
from kbs.pki.ocsp import load_ocsp_answer
from tests.fakes import vendor
from tests.fakes.amd import FakeAmd
from tests.fakes.nvidia import NOW, Device, FakeNvidia, rim_id
from tests.fakes.ocsp import Responder
from tests.fakes.rim import publish, rims
from tests.fakes.vendor import Fault, VendorService, serving
from tests.fakes.world import FakeClock

pytestmark = pytest.mark.enable_socket

NVIDIA = FakeNvidia()
GPU = Device()
CHAIN = NVIDIA.device_chain(GPU)
KNOWN = GivenCollateral(CHAIN)
QUICK = replace(PATIENCE, read=1.0, total=1.0, pause=0.01)
DRIVER = rim_id(GPU, "driver")
RIM = routes.rim_source(DRIVER)
STATUS = routes.status_source(CHAIN[1], CHAIN[2])


@pytest.fixture
def manifests() -> VendorService:
    return rims(NVIDIA, GPU)


@pytest.fixture
def responder() -> Responder:
    return Responder(nvidia=NVIDIA, device=GPU)


@pytest.fixture
def vendors(manifests: VendorService, responder: Responder) -> Iterator[Vendors]:
    with serving(manifests) as rim, serving(responder) as status:
        services = parse_services({"rim": rim, "ocsp": status})
        yield Vendors(HttpFetcher(QUICK), FakeClock(NOW), services, pins=NVIDIA.pins())


def wrong(vendors: Vendors, source: Source, known: GivenCollateral = NOTHING) -> str:
    with pytest.raises(CollateralError) as caught:
        vendors.fetch(source, known)
    assert caught.value.code == WRONG
    return str(caught.value)


def test_a_manifest_is_kept_with_its_id(vendors: Vendors) -> None:
    (item,) = vendors.fetch(RIM)
    stored = load_stored_rim(item)
    assert (stored.rim_id, stored.document) == (DRIVER, NVIDIA.rim(GPU, "driver"))
    assert origin_of("rim", item) == RIM == parse_source(RIM.url)


def test_a_manifest_of_another_id_or_signer(
    vendors: Vendors, manifests: VendorService
) -> None:
    publish(manifests, DRIVER, NVIDIA.rim(GPU, "driver"), said="NV_GPU_DRIVER_X_1")
    assert "got id NV_GPU_DRIVER_X_1" in wrong(vendors, RIM)
    publish(manifests, DRIVER, NVIDIA.rim(GPU, "driver", signer="somebody"))
    assert "expected a manifest that NVIDIA signed" in wrong(vendors, RIM)
    stranger = FakeNvidia(realm="stranger")
    publish(manifests, DRIVER, stranger.rim(GPU, "driver"))
    assert "expected a chain to a pinned root" in wrong(vendors, RIM)
    ended = NOW - timedelta(days=1)
    publish(manifests, DRIVER, NVIDIA.rim(GPU, "driver", signer_until=ended))
    assert "expected certificates that are valid now" in wrong(vendors, RIM)


@pytest.mark.parametrize("fault", [vendor.cut, vendor.instead(b"{}")])
def test_garbage_is_wrong_and_nothing_else(
    vendors: Vendors, manifests: VendorService, responder: Responder, fault: Fault
) -> None:
    manifests.faults = [fault]
    responder.faults = [fault]
    wrong(vendors, RIM)
    wrong(vendors, STATUS, KNOWN)


def test_authorities_of_a_chain_are_asked_about() -> None:
    sources = routes.status_sources(CHAIN)
    pairs = pairwise(CHAIN[1:])
    assert sources == tuple(routes.status_source(*pair) for pair in pairs)
    assert len(sources) == 3
    for source in sources:
        assert parse_source(source.url) == source
        # A device is not named in the log.
        assert source.log_name == "https://ocsp.ndis.nvidia.com"


def test_a_status_comes_with_what_proves_it(
    vendors: Vendors, responder: Responder
) -> None:
    *certificates, answer = vendors.fetch(STATUS, KNOWN)
    assert certificates == [der(one) for one in CHAIN[1:3]]
    given = load_ocsp_answer(answer, "answer")
    (asked,) = map(ocsp.load_der_ocsp_request, responder.posted)
    nonce = x509.OCSPNonce
    assert (
        given.extensions.get_extension_for_class(nonce).value
        == asked.extensions.get_extension_for_class(nonce).value
    )
    assert origin_of("ocsp", answer) == STATUS
    # What was kept is enough to ask again.
    vendors.fetch(STATUS, GivenCollateral(CHAIN[1:3]))


def test_an_answer_without_a_nonce_counts_and_one_of_another_does_not(
    vendors: Vendors, responder: Responder
) -> None:
    responder.nonce = b""
    vendors.fetch(STATUS, KNOWN)
    responder.nonce = bytes(32)
    assert "nonce of another request" in wrong(vendors, STATUS, KNOWN)


def test_a_revocation_is_kept(vendors: Vendors, responder: Responder) -> None:
    responder.status = ocsp.OCSPCertStatus.REVOKED
    *_, answer = vendors.fetch(STATUS, KNOWN)
    given = load_ocsp_answer(answer, "answer")
    assert given.certificate_status is ocsp.OCSPCertStatus.REVOKED


def test_answers_that_do_not_count(vendors: Vendors, responder: Responder) -> None:
    responder.age = timedelta(hours=25)
    assert "expected one that is current" in wrong(vendors, STATUS, KNOWN)
    responder.age = timedelta(hours=1)
    responder.status = ocsp.OCSPCertStatus.UNKNOWN
    assert "is not known to the responder" in wrong(vendors, STATUS, KNOWN)
    responder.status = ocsp.OCSPCertStatus.GOOD
    responder.signer = FakeNvidia(realm="stranger")
    assert "an answer of somebody else" in wrong(vendors, STATUS, KNOWN)


def test_a_responder_that_refuses(vendors: Vendors) -> None:
    other = FakeNvidia(realm="stranger").device_chain(GPU)
    source = routes.status_source(other[1], other[2])
    said = wrong(vendors, source, GivenCollateral(other))
    assert "got OCSP status unauthorized" in said


def test_whose_status_it_is_has_to_be_known(
    vendors: Vendors, responder: Responder
) -> None:
    assert "to hand, expected the certificate and its issuer" in wrong(vendors, STATUS)
    assert responder.asked == []


def test_a_certificate_may_be_named_by_another_digest(
    vendors: Vendors, responder: Responder
) -> None:
    """`openssl ocsp` asks by SHA-1, and what it got is refreshed by the same name."""
    digest = hashes.SHA1()  # noqa: S303 - it names, and proves nothing
    request = ocsp.OCSPRequestBuilder().add_certificate(CHAIN[1], CHAIN[2], digest)
    path = quote(b64(request.build().public_bytes(Encoding.DER)), safe="")
    source = parse_source(f"https://ocsp.ndis.nvidia.com/{path}")
    *certificates, _ = vendors.fetch(source, KNOWN)
    assert certificates == [der(one) for one in CHAIN[1:3]]
    (asked,) = map(ocsp.load_der_ocsp_request, responder.posted)
    assert isinstance(asked.hash_algorithm, hashes.SHA1)


def test_a_request_that_is_none(vendors: Vendors) -> None:
    with pytest.raises(MalformedError) as caught:
        vendors.fetch(parse_source("https://ocsp.ndis.nvidia.com/" + "A" * 40))
    assert caught.value.code == "collateral.source"


def test_certificates_that_say_nothing_of_authority_are_not_asked_about() -> None:
    leaf = FakeAmd().vcek()
    assert routes.status_sources((leaf, FakeAmd().ask)) == ()
