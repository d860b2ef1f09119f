"""A fake AMD Key Distribution Service: issuers, lists, VCEKs of fake AMDs."""

from __future__ import annotations

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from kbs.broker.vendors.source import Service, Source
from tests.fakes.amd import FakeAmd
from tests.fakes.vendor import Served, VendorService


def kds(*amds: FakeAmd) -> VendorService:
    """A service that publishes what these vendors sign, with one VCEK each."""
    service = VendorService()
    for amd in amds:
        line = amd.product
        chains = {"vcek": amd.ask, "vlek": amd.asvk}
        for kind, issuer in chains.items():
            base = f"/{kind}/v1/{line}"
            service.answers[f"{base}/cert_chain"] = Served(pem(issuer, amd.ark))
        publish_list(service, amd, amd.crl())
        service.answers[vcek_path(amd).path] = Served(der(amd.vcek()))
    return service


def publish_list(
    service: VendorService, amd: FakeAmd, crl: x509.CertificateRevocationList
) -> None:
    """Put another list in the place of the one there."""
    service.answers[f"/vcek/v1/{amd.product}/crl"] = Served(der(crl))


def vcek_path(amd: FakeAmd) -> Source:
    """Where the chip's VCEK lies, written down a second time (AMD 57230, 4.1)."""
    tcb = amd.tcb
    path = (
        f"/vcek/v1/{amd.product}/{amd.hwid.hex()}?blSPL={tcb['bootloader']:02d}"
        f"&teeSPL={tcb['tee']:02d}&snpSPL={tcb['snp']:02d}"
        f"&ucodeSPL={tcb['microcode']:02d}"
    )
    return Source(
        Service.KDS, path + (f"&fmcSPL={tcb['fmc']:02d}" if "fmc" in tcb else "")
    )


def pem(*certificates: x509.Certificate) -> bytes:
    """Certificates in PEM."""
    return b"".join(one.public_bytes(Encoding.PEM) for one in certificates)


def der(item: x509.Certificate | x509.CertificateRevocationList) -> bytes:
    """One thing in DER."""
    return item.public_bytes(Encoding.DER)
