"""The claims that a verified enclave quote proves.

Intel SGX ECDSA QuoteGenReference, rev. 1.14, appendix A.4 (enclave report body); Intel
SDM, volume 3D, sections 38.7 (SECS) and 38.15 (REPORT).
"""

from __future__ import annotations

from kbs.core.claims import ClaimSpec, ClaimValue, Safety
from kbs.evidence.dcap.fields import Fields
from kbs.evidence.dcap.reports import EnclaveReport
from kbs.evidence.dcap.tcb_claims import tcb_specs

FAMILY = "sgx"

_SOURCE = "Enclave report body"
_FIELDS = Fields(FAMILY, _SOURCE)

_DEBUG = Safety(
    reason="the host can read the memory of an enclave under debug",
    default=(False,),
)
_PRODUCT = Safety(
    reason="a signer signs many enclaves: name MRENCLAVE, or which product of MRSIGNER",
    alternatives=("sgx.mr_enclave",),
)
_SVN = Safety(
    reason="a signer's older versions have its older holes: name MRENCLAVE, or the SVN",
    alternatives=("sgx.mr_enclave",),
    floor=True,
)


SGX_CLAIMS: tuple[ClaimSpec, ...] = (
    _FIELDS.version("3, 4 or 5"),
    _FIELDS.octets(
        "mr_enclave", 32, "Digest of the enclave's initial content", boot=True
    ),
    _FIELDS.octets(
        "mr_signer", 32, "SHA-256 of the key that signed the enclave", boot=True
    ),
    _FIELDS.number("isv_prod_id", "Product, as its signer numbers it", _PRODUCT),
    _FIELDS.number("isv_svn", "Security version, as its signer counts it", _SVN),
    _FIELDS.octets("isv_ext_prod_id", 16, "Further product id that the signer gave"),
    _FIELDS.octets("isv_family_id", 16, "Family of products that the signer gave"),
    _FIELDS.octets(
        "config_id", 64, "What the host gave at start, like a digest of initdata"
    ),
    _FIELDS.number("config_svn", "Security version of that configuration"),
    _FIELDS.octets(
        "report_data", 64, "What the enclave asked to have signed: the binding"
    ),
    _FIELDS.flag(
        "debug", "The enclave is under debug", f"{_SOURCE}, ATTRIBUTES bit 1", _DEBUG
    ),
    _FIELDS.octets("attributes", 16, "Flags and XFRM, as they are laid out"),
    _FIELDS.octets("misc_select", 4, "What is saved on exceptions, as it is laid out"),
    _FIELDS.octets("cpu_svn", 16, "SVNs of the processor"),
    *tcb_specs(FAMILY),
)
"""Every claim of the family, in the order of the documentation."""


def report_claims(version: int, report: EnclaveReport) -> dict[str, ClaimValue]:
    """Return what header and report alone say."""
    return {
        "sgx.version": version,
        "sgx.mr_enclave": report.mr_enclave.hex(),
        "sgx.mr_signer": report.mr_signer.hex(),
        "sgx.isv_prod_id": report.isv_prod_id,
        "sgx.isv_svn": report.isv_svn,
        "sgx.isv_ext_prod_id": report.isv_ext_prod_id.hex(),
        "sgx.isv_family_id": report.isv_family_id.hex(),
        "sgx.config_id": report.config_id.hex(),
        "sgx.config_svn": report.config_svn,
        "sgx.report_data": report.report_data.hex(),
        "sgx.debug": report.is_debug,
        "sgx.attributes": report.attributes.hex(),
        "sgx.misc_select": report.misc_select.hex(),
        "sgx.cpu_svn": report.cpu_svn.hex(),
    }
