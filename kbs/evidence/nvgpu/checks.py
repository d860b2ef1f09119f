"""The single checks of a device's report; `verify` says what they are and runs them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from kbs.core.checks import CheckLog, Status
from kbs.evidence.model import Trust
from kbs.evidence.nvgpu.abi import SIGNATURE_BYTES
from kbs.evidence.nvgpu.device import architecture_of, chip_of
from kbs.evidence.nvgpu.item import DeviceItem
from kbs.evidence.nvgpu.measurements import Comparison, compare
from kbs.evidence.nvgpu.opaque import Field
from kbs.evidence.nvgpu.rim import Rim
from kbs.pki.certificates import describe, spki_sha256
from kbs.pki.chain import Chain, out_of_date
from kbs.pki.ecdsa import is_p384_signature

NO_LEAF = "no certificate came with the report"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One verification: its inputs, and the log that the checks fill."""

    item: DeviceItem
    trust: Trust
    log: CheckLog

    def has_passed(self, *check_ids: str) -> bool:
        """Whether all of these checks were made and held."""
        return all(self.log.status_of(name) is Status.PASS for name in check_ids)


def check_signature(case: Case) -> None:
    """Check 1: request and response are signed by the leaf."""
    log, item = case.log, case.item
    check = "nvgpu.report.signature"
    if item.leaf is None:
        log.unchecked(check, NO_LEAF)
        return
    report, name = item.report, describe(item.leaf.subject)
    if is_p384_signature(
        item.leaf.public_key(),
        report.signature_r,
        report.signature_s,
        item.through_signature[:-SIGNATURE_BYTES],
    ):
        log.passed(check, f"signed by {name}")
    else:
        spki = spki_sha256(item.leaf)[:16]
        log.failed(check, f"the report does not verify under {name} {spki}")


def check_validity(case: Case, chain: Chain | None) -> None:
    """Check 3: every certificate of the chain is valid at the given time."""
    leaf = case.item.leaf
    check = "nvgpu.validity"
    if leaf is None:
        case.log.unchecked(check, NO_LEAF)
        return
    certificates = chain.certificates if chain else (leaf,)
    complaints = out_of_date(certificates, case.trust.now)
    at = case.trust.now.isoformat()
    if complaints:
        case.log.failed(check, "; ".join(complaints), got=at)
    elif chain is None:
        case.log.unchecked(check, f"the leaf is valid at {at}; no chain")
    else:
        case.log.passed(check, f"all certificates are valid at {at}")


def check_fwid(case: Case) -> None:
    """Check 5: the report's FWID is one of the leaf's."""
    item = case.item
    check = "nvgpu.fwid"
    fwid = item.report.opaque.value(Field.FWID)
    if fwid is None:
        case.log.skipped(check, "the report has no FWID")
    elif item.leaf is None:
        case.log.unchecked(check, NO_LEAF)
    elif fwid in item.fwids:
        case.log.passed(check, "the leaf was made for this firmware")
    else:
        case.log.failed(
            check,
            "the leaf was made for other firmware",
            got=fwid.hex(),
            expected=" or ".join(one.hex() for one in item.fwids) or "none in the leaf",
        )


def check_nonce(case: Case) -> None:
    """Check 6: a nonce beside the report is the one that was signed."""
    nonce = case.item.nonce
    if nonce is None:
        case.log.skipped("nvgpu.nonce", "no nonce stands beside the report")
    else:
        case.log.compared(
            "nvgpu.nonce",
            "the nonce beside the report against the signed one",
            nonce.hex(),
            case.item.report.nonce.hex(),
        )


def check_arch(case: Case, chain: Chain | None) -> None:
    """Check 7: chip, generation and what is said beside the report agree."""
    item = case.item
    check = "nvgpu.arch"
    if chain is None:
        case.log.unchecked(check, "the chip is not known without its chain")
        return
    chip = chip_of(chain)
    named = item.report.opaque.text(Field.CHIP_INFO)
    generation = architecture_of(chip)
    said = [f"chain {chip}"]
    said += [f"CHIP_INFO {named}"] if named is not None else []
    said += [f"arch {item.arch}"] if item.arch is not None else []
    agree = (named is None or architecture_of(named) is generation) and (
        item.arch is None or item.arch == (generation and generation.value)
    )
    if generation is None:
        case.log.unchecked(check, f"chip {chip[:20]} is of an unknown generation")
    elif agree:
        case.log.passed(check, ", ".join(said))
    else:
        case.log.failed(check, "generations", got=", ".join(said), expected="one")


def check_measurements(case: Case, rims: Mapping[str, Rim | None]) -> Comparison | None:
    """Check 9: the report was held against the manifests, by role."""
    check = "nvgpu.measurements"
    there = {role: rim for role, rim in rims.items() if rim is not None}
    found = compare(case.item.report, there)
    if len(there) < len(rims):
        so_far = f"; of the other: {found.summary()}" if there else ""
        case.log.unchecked(check, f"a manifest that is needed is not to hand{so_far}")
        return None
    if found.conflicts:
        case.log.failed(
            check,
            "driver and VBIOS manifest both give values",
            got="indices " + ", ".join(map(str, found.conflicts)),
            expected="every index in one",
        )
    elif not found.compared:
        case.log.failed(check, "nothing to compare: the manifests are empty")
    else:
        case.log.passed(check, found.summary())
    return found
