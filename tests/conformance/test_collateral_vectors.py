"""What AMD really published is fetched and proven under the pins that ship."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from kbs.adapters.http import HttpFetcher
from kbs.broker.vendors import amd
from kbs.broker.vendors.fetching import Vendors
from kbs.broker.vendors.source import Source, parse_services
from kbs.pki.certificates import (
    der,
    load_certificates,
    load_crls,
    without_remarks,
)
from tests.fakes.vendor import Served, VendorService, serving
from tests.fakes.world import FakeClock

pytestmark = pytest.mark.enable_socket

DAY = timedelta(days=1)
VCEKS = (
    "genoa-v3-ms.vcek.pem",
    "milan-v2-coco.vcek.der",
    "milan-v3-ms.vcek.pem",
    "turin-vcek-virtee.der",
)


def certificate(path: Path) -> x509.Certificate:
    return load_certificates(without_remarks(path.read_bytes()), path.name)[0]


def fetch(
    folder: Path, line: str, source: Source, body: bytes, now: datetime
) -> tuple[bytes, ...]:
    service = VendorService({source.path: Served(body)})
    for kind, name in (("vcek", ""), ("vlek", "-vlek")):
        chain = (folder / f"amd-{line.lower()}-ask-ark{name}.pem").read_bytes()
        service.answers[amd.chain_source(line, kind).path] = Served(chain)
    with serving(service) as url:
        services = parse_services({"kds": url})
        return Vendors(HttpFetcher(), FakeClock(now), services).fetch(source)


@pytest.mark.parametrize("line", ["Milan", "Genoa", "Turin"])
@pytest.mark.parametrize("kind", ["vcek", "vlek"])
def test_issuers_of_amds(vectors: Path, line: str, kind: str) -> None:
    name = "-vlek" if kind == "vlek" else ""
    source = amd.chain_source(line, kind)
    folder = vectors / "snp"
    body = (folder / f"amd-{line.lower()}-ask-ark{name}.pem").read_bytes()
    items = fetch(folder, line, source, body, FakeClock().now())
    assert items == tuple(der(one) for one in load_certificates(body, "chain"))


@pytest.mark.parametrize("line", ["Milan", "Genoa"])
def test_lists_of_amds(vectors: Path, line: str) -> None:
    folder = vectors / "snp"
    data = (folder / f"amd-{line.lower()}-kds.crl.pem").read_bytes()
    (crl,) = load_crls(without_remarks(data), "list")
    now = crl.last_update_utc + DAY
    items = fetch(folder, line, amd.crl_source(line), der(crl), now)
    assert items[-1] == der(crl)
    assert amd.source_of_list(crl) == amd.crl_source(line)


@pytest.mark.parametrize("name", VCEKS)
def test_vceks_of_amds(vectors: Path, name: str) -> None:
    """The URL follows from the certificate, and brings exactly it."""
    leaf = certificate(vectors / "snp" / name)
    source = amd.source_of_certificate(leaf)
    assert source is not None
    line = source.path.split("/")[3]
    now = leaf.not_valid_before_utc + DAY
    items = fetch(vectors / "snp", line, source, der(leaf), now)
    assert items[0] == der(leaf)
    assert len(items) == 3
