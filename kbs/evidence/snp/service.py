"""Where AMD's Key Distribution Service publishes what a report is checked with.

AMD 57230, Versioned Chip Endorsement Key (VCEK) Certificate and KDS Interface
Specification, section 4. A VLEK is not published: a host has it.
"""

from __future__ import annotations

from collections.abc import Mapping

from kbs.core.errors import MalformedError
from kbs.evidence.snp.certificates import EndorsementKey
from kbs.evidence.snp.products import ProductLine
from kbs.evidence.snp.report import Report, SigningKey

KEY_SERVICE = "https://kdsintf.amd.com"

# A hardware id of Turin; the rest of CHIP_ID is zeros. Elsewhere CHIP_ID is all of it.
_TURIN_HWID_BYTES = 8


def chain_path(line: str, kind: str) -> str:
    """Return where the issuer of a line's VCEKs or VLEKs lies, with its root."""
    return f"/{kind}/v1/{line}/cert_chain"


def crl_path(line: str) -> str:
    """Return where the revocation list of a line's root lies."""
    return f"/vcek/v1/{line}/crl"


def vcek_path(line: str, hwid: bytes, tcb: Mapping[str, int]) -> str:
    """Return where the VCEK of a chip at one TCB lies."""
    # Numbers have two digits, as AMD's own examples write them.
    query = (
        f"blSPL={tcb['bootloader']:02}&teeSPL={tcb['tee']:02}"
        f"&snpSPL={tcb['snp']:02}&ucodeSPL={tcb['microcode']:02}"
    )
    if "fmc" in tcb:
        query += f"&fmcSPL={tcb['fmc']:02}"
    return f"/vcek/v1/{line}/{hwid.hex()}?{query}"


def where_leaf(report: Report) -> str:
    """Say where the leaf that a report needs is to be had; empty where nobody knows."""
    if report.signing_key is SigningKey.VLEK:
        return "; AMD publishes no VLEK, the host has it"
    if report.signing_key is not SigningKey.VCEK:
        return ""
    if report.chip_id_masked:
        return "; the report hides its chip, the host knows it"
    line = report.product
    # Reports before version 3 name no line: they are of Milan or of Genoa.
    shown = ProductLine.MILAN if report.cpuid is None else line
    if shown is None:
        return ""
    try:
        tcb = report.tcbs(shown)["reported"]
    except MalformedError:
        return ""
    short = shown is ProductLine.TURIN
    hwid = report.chip_id[:_TURIN_HWID_BYTES] if short else report.chip_id
    found = f"; fetch {KEY_SERVICE}{vcek_path(shown, hwid, tcb)}"
    if line is None:
        found += " (or Genoa's: the report does not say)"
    return found


def where_issuers(key: EndorsementKey) -> str:
    """Say where the issuers of a leaf are to be had; empty where nobody knows."""
    if key.product is None:
        return ""
    path = chain_path(key.product, key.kind.value.lower())
    return f"; fetch {KEY_SERVICE}{path}"
