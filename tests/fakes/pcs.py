"""A fake Intel PCS, or PCCS: TCB infos, identities and lists with their chains."""

from __future__ import annotations

from urllib.parse import quote

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from tests.fakes.intel import FakeIntel, pem
from tests.fakes.vendor import Served, VendorService

TDX_TCB = "/tdx/certification/v4/tcb?fmspc={}"
TDX_QE = "/tdx/certification/v4/qe/identity"
PCK_CRL = "/sgx/certification/v4/pckcrl?ca=platform&encoding=der"
ROOT_CRL = "/IntelSGXRootCA.der"
PCCS_ROOT_CRL = "/sgx/certification/v4/rootcacrl"


def pcs(intel: FakeIntel) -> VendorService:
    """A service that publishes what this Intel signs for one kind of platform."""
    service = VendorService()
    for kind, qe in (("SGX", "QE"), ("TDX", "TD_QE")):
        base = f"/{kind.lower()}/certification/v4"
        publish_tcb(service, intel, intel.tcb_info(kind), kind)
        service.answers[f"{base}/qe/identity"] = Served(
            intel.qe_identity(qe).encode(),
            {"SGX-Enclave-Identity-Issuer-Chain": chain_header(intel, "signer")},
        )
    service.answers[PCK_CRL] = Served(
        der(intel.crl()), {"SGX-PCK-CRL-Issuer-Chain": chain_header(intel, "ca")}
    )
    service.answers[ROOT_CRL] = Served(der(intel.crl("root")))
    service.answers[PCCS_ROOT_CRL] = Served(der(intel.crl("root")).hex().encode())
    return service


def publish_tcb(
    service: VendorService, intel: FakeIntel, text: str, kind: str = "TDX"
) -> None:
    """Put another TCB info in the place of the one there."""
    path = f"/{kind.lower()}/certification/v4/tcb?fmspc={intel.fmspc}"
    service.answers[path] = Served(
        text.encode(), {"TCB-Info-Issuer-Chain": chain_header(intel, "signer")}
    )


def chain_header(intel: FakeIntel, whose: str) -> str:
    """A chain as the service puts it into a header."""
    first = intel.tcb_signer if whose == "signer" else intel.pck_ca
    return quote(pem(first) + pem(intel.root), safe="")


def der(crl: x509.CertificateRevocationList) -> bytes:
    """A list in DER."""
    return crl.public_bytes(Encoding.DER)
