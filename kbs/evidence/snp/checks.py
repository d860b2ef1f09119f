"""The single checks of an SNP report; `verify` says what they are and runs them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from kbs.core.checks import CheckLog, Status
from kbs.core.errors import MalformedError
from kbs.evidence.model import Trust
from kbs.evidence.snp.abi import SIGNED_BYTES
from kbs.evidence.snp.certificates import (
    EndorsementKey,
    is_endorsement_key,
    parse_endorsement_key,
)
from kbs.evidence.snp.item import SnpItem
from kbs.evidence.snp.products import ProductLine, product_of_name
from kbs.evidence.snp.report import Report, SigningKey
from kbs.pki.chain import Chain, out_of_date
from kbs.pki.ecdsa import is_p384_signature
from kbs.pki.roots import amd_product_line

NO_LEAF = "no VCEK or VLEK certificate came with the report, nor is one to hand"

_CHIP_ID_BYTES = 64
# AMD 57230, section 3.1: the common name of each kind of leaf.
_SUBJECTS = {SigningKey.VCEK: "SEV-VCEK", SigningKey.VLEK: "SEV-VLEK"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One verification: its inputs, and the log that the checks fill."""

    item: SnpItem
    key: EndorsementKey | None
    trust: Trust
    log: CheckLog

    def has_passed(self, *check_ids: str) -> bool:
        """Whether all of these checks were made and held."""
        return all(self.log.status_of(name) is Status.PASS for name in check_ids)


def known_key(report: Report, trust: Trust) -> EndorsementKey | None:
    """Find the chip's VCEK at the reported TCB among the collateral.

    A VLEK names no chip, so that several may fit: it has to come with the report.
    """
    if report.signing_key is not SigningKey.VCEK or report.chip_id_masked:
        return None
    for certificate in trust.collateral.certificates():
        if not is_endorsement_key(certificate):
            continue
        try:
            key = parse_endorsement_key(certificate)
            line = key.product
            fits = line is not None and key.tcb == report.tcbs(line)["reported"]
        except MalformedError:
            continue
        if fits and padded_hwid(key) == report.chip_id:
            return key
    return None


def check_signature(case: Case) -> None:
    """Check 1: the report is signed by the leaf."""
    report, key = case.item.report, case.key
    if report.signing_key is SigningKey.NONE:
        case.log.failed("snp.report.signature", "the report says that it is not signed")
    elif key is None:
        case.log.unchecked("snp.report.signature", NO_LEAF)
    elif is_p384_signature(
        key.public_key,
        report.signature_r,
        report.signature_s,
        case.item.raw[:SIGNED_BYTES],
    ):
        case.log.passed("snp.report.signature", f"signed by {key.subject}")
    else:
        case.log.failed(
            "snp.report.signature",
            f"the report does not verify under {key.subject} {key.spki_sha256[:16]}",
        )


def check_validity(case: Case, chain: Chain | None) -> None:
    """Check 3: every certificate of the chain is valid at the given time."""
    if case.key is None:
        case.log.unchecked("snp.validity", NO_LEAF)
        return
    certificates = chain.certificates if chain else (case.key.certificate,)
    complaints = out_of_date(certificates, case.trust.now)
    at = case.trust.now.isoformat()
    if complaints:
        case.log.failed("snp.validity", "; ".join(complaints), got=at)
    elif chain is None:
        case.log.unchecked("snp.validity", f"the leaf is valid at {at}; no chain")
    else:
        case.log.passed("snp.validity", f"all certificates are valid at {at}")


def check_signing_key(case: Case) -> None:
    """Check 5: the leaf is of the kind that the report names."""
    key, named = case.key, case.item.report.signing_key
    if key is None:
        case.log.unchecked("snp.signing_key", NO_LEAF)
        return
    case.log.compared(
        "snp.signing_key",
        "SIGNING_KEY of the report against the kind of the certificate",
        f"{key.kind.value} ({key.subject})",
        f"{named.value} ({_SUBJECTS.get(named, 'no certificate')})",
    )


def check_product(case: Case, chain: Chain | None) -> None:
    """Check 6: report, leaf and root are of one product line."""
    report, key = case.item.report, case.key
    lines: dict[str, ProductLine | None] = {}
    if report.cpuid is not None:
        lines["report"] = report.product
    if key is not None:
        lines["certificate"] = key.product
    if chain is not None:
        lines["root"] = line_of(chain)
    said = ", ".join(f"{who} {line or 'unknown'}" for who, line in lines.items())
    if None in lines.values() or len(set(lines.values())) > 1:
        case.log.failed("snp.product", "product lines", got=said, expected="one, known")
    elif chain is None:
        case.log.unchecked("snp.product", f"no root to compare with ({said or 'none'})")
    else:
        case.log.passed("snp.product", said)


def check_tcb(case: Case, chain: Chain | None) -> None:
    """Check 7: REPORTED_TCB is the leaf's, component by component."""
    report, key = case.item.report, case.key
    if key is None:
        case.log.unchecked("snp.tcb", NO_LEAF)
        return
    line = line_of(chain) if chain is not None else key.product or report.product
    if line is None:
        case.log.unchecked("snp.tcb", "the layout of an unknown product line")
        return
    try:
        reported = report.tcbs(line)["reported"]
    except MalformedError as exc:
        case.log.failed("snp.tcb", str(exc))
        return
    case.log.compared(
        "snp.tcb",
        "REPORTED_TCB against the certificate",
        _spell(reported),
        _spell(key.tcb),
    )


def check_chip_id(case: Case) -> None:
    """Check 8: CHIP_ID is the leaf's hardware id, where not masked."""
    report, key = case.item.report, case.key
    if key is None:
        case.log.unchecked("snp.chip_id", NO_LEAF)
    elif key.hwid is None:
        case.log.skipped("snp.chip_id", "a VLEK names no chip")
    elif report.chip_id_masked:
        case.log.skipped("snp.chip_id", "the host masks CHIP_ID")
    else:
        case.log.compared(
            "snp.chip_id",
            "CHIP_ID against the hardware id of the certificate",
            report.chip_id.hex(),
            padded_hwid(key).hex(),
        )


def line_of(chain: Chain) -> ProductLine | None:
    """Return the product line that the chain's root vouches for."""
    return product_of_name(amd_product_line(chain.root_name) or "")


def padded_hwid(key: EndorsementKey) -> bytes:
    """Return the hardware id as CHIP_ID has it: Turin's 8 bytes and then zeros."""
    return (key.hwid or b"").ljust(_CHIP_ID_BYTES, b"\0")


def _spell(tcb: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {tcb[name]}" for name in sorted(tcb))
