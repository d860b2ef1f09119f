"""One `azure` item of a bundle: the HCL report, its endorsements, and a vTPM quote.

::

    {"kind": "azure", "hcl_report": b64,
     "vtpm"?: {"quote": {"message", "signature"}, "pcrs", "event_log"?},
     "certificates"?: [PEM or b64 DER, …], "crl"?: b64,          SNP: VCEK, ASK, ARK
     "td_quote"?: b64, "collateral"?: {…}}                       TDX

The parts are items of the families that they come from, in those families' own forms;
the key of the quote is the one that the HCL report names, so that none stands beside
it. Nothing is believed here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from kbs.core.encode import b64, parse_b64, require_members
from kbs.core.errors import MalformedError
from kbs.evidence.azure.hcl import MAX_REPORT, HclReport, ReportType, parse_hcl_report
from kbs.evidence.model import ParsedItem, Verifier
from kbs.evidence.vtpm.item import TpmQuote, pem_of, quote_of
from kbs.evidence.vtpm.item import parse_item as parse_quote_item

KIND = "azure"

_MEMBERS: Mapping[ReportType, frozenset[str]] = {
    ReportType.SNP: frozenset({"certificates", "crl"}),
    ReportType.TDX: frozenset({"td_quote", "collateral"}),
}
# The name of a member here, and in an item of the family that it comes from.
_RENAMED = {"td_quote": "quote"}


@dataclass(frozen=True, slots=True, kw_only=True)
class AzureItem:
    """The parts; `hardware` is None where the evidence lacks a report to verify."""

    hcl: HclReport
    hardware: ParsedItem | None
    quote: TpmQuote | None


def parse_item(
    item: Mapping[str, object], index: int, hardware: Mapping[ReportType, Verifier]
) -> AzureItem:
    """Read the JSON item; `hardware` are the verifiers of CPU reports.

    Raises:
        MalformedError: a member lacks its shape, or does not go with the report.
    """
    members = require_members(
        dict(item),
        f"item {index}",
        required={"kind", "hcl_report"},
        optional={"vtpm"}.union(*_MEMBERS.values()),
    )
    if members["kind"] != KIND:
        raise MalformedError(
            f"item {index} kind", got=repr(members["kind"])[:40], expected=KIND
        )
    hcl = parse_hcl_report(
        parse_b64(members["hcl_report"], "hcl_report", limit=MAX_REPORT)
    )
    foreign = members.keys() - _MEMBERS[hcl.type] - {"kind", "hcl_report", "vtpm"}
    if foreign:
        raise MalformedError(
            "azure item",
            got=f"{', '.join(sorted(foreign))} beside a report of {hcl.type.name}",
            expected=", ".join(sorted(_MEMBERS[hcl.type])),
        )
    return AzureItem(
        hcl=hcl,
        hardware=_hardware(members, hcl, index, hardware[hcl.type]),
        quote=_quote(members["vtpm"], hcl, index) if "vtpm" in members else None,
    )


def _hardware(
    members: Mapping[str, object],
    hcl: HclReport,
    index: int,
    verifier: Verifier,
) -> ParsedItem | None:
    inner: dict[str, object] = {
        _RENAMED.get(name, name): members[name]
        for name in _MEMBERS[hcl.type]
        if name in members
    }
    if hcl.type is ReportType.SNP:
        inner["report"] = b64(hcl.payload)
    elif "td_quote" not in members:
        return None
    return verifier.parse({"kind": verifier.kind, **inner}, index)


def _quote(value: object, hcl: HclReport, index: int) -> TpmQuote:
    members = require_members(
        value, "vtpm", required={"quote", "pcrs"}, optional={"event_log"}
    )
    item = {"kind": "vtpm", "ak": pem_of(hcl.claims.ak), **members}
    return quote_of(parse_quote_item(item, index))
