"""The verifier of Azure confidential VMs: hardware report, HCL claims, vTPM quote.

What each part must show, in order; every step is recorded, none stops the next:

1. `snp.*` or `tdx.*`      the hardware report holds, by its own family's verifier
2. `azure.runtime_data`    its REPORT_DATA is SHA-256 of the HCL claims, and zeros
3. `azure.vmpl`            on SNP the report was made at VMPL 0, where the paravisor is
4. `vtpm.quote.*`          the quote is signed by the key HCLAkPub of those claims
5. `vtpm.eventlog.replay`  the event log, if there is one, leads to the quoted PCRs

The key needs no certificate and no enrolment: the paravisor, which the report measures,
made it. So a rule must say which paravisor (`claims`). Binding is in extraData and is
compared by the caller; the `user-data` of the claims is not used.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from kbs.core.checks import Check, CheckLog, Status, Verdict, verdict
from kbs.core.claims import ClaimSpec, ClaimValue, ItemClaims
from kbs.evidence.azure.claims import (
    FAMILIES,
    claim_specs,
    configuration_claims,
    moved,
)
from kbs.evidence.azure.hcl import ReportType
from kbs.evidence.azure.item import KIND, AzureItem, parse_item
from kbs.evidence.model import ItemResult, ParsedItem, Trust, Verifier
from kbs.evidence.snp.item import SnpItem
from kbs.evidence.vtpm.checks import (
    check_digest,
    check_selection,
    check_signature,
    selected_pcrs,
)
from kbs.evidence.vtpm.claims import quote_claims
from kbs.evidence.vtpm.inspecting import inspect_quote
from kbs.evidence.vtpm.item import TpmQuote
from kbs.evidence.vtpm.replay import check_event_log
from kbs.evidence.vtpm.verify import BINDING_SIZE, BOUND_SIZE

_NO_QUOTE = "no vTPM quote came with the report"


class AzureVerifier:
    """Verifies items of kind `azure`, over verifiers of the hardware beneath."""

    def __init__(self, snp: Verifier, tdx: Verifier) -> None:
        """Take the verifiers of the reports that the VMs have."""
        self._hardware = {ReportType.SNP: snp, ReportType.TDX: tdx}
        self._vocabulary = tuple(
            spec
            for kind, verifier in self._hardware.items()
            for spec in claim_specs(kind, verifier.vocabulary)
        )

    @property
    def kind(self) -> str:
        """The `kind` of its items; their claims are `azure_snp.*` or `azure_tdx.*`."""
        return KIND

    @property
    def vocabulary(self) -> tuple[ClaimSpec, ...]:
        """Every claim it can give."""
        return self._vocabulary

    @property
    def primary(self) -> bool:
        """The report and the quote are one item, which is a primary by itself."""
        return True

    def parse(self, item: Mapping[str, object], index: int) -> ParsedItem:
        """Read the JSON item.

        Raises:
            MalformedError: a part lacks the promised shape.
        """
        body = parse_item(item, index, self._hardware)
        message = b"" if body.quote is None else body.quote.message
        return ParsedItem(
            kind=KIND,
            index=index,
            core=body.hcl.raw + message,
            bound=b"" if body.quote is None else body.quote.attest.extra_data,
            body=body,
        )

    def inspect(self, parsed: ParsedItem) -> Mapping[str, object]:
        """Return all parsed fields for people; nothing in it is proven."""
        item = _body(parsed)
        claims = item.hcl.claims
        document: dict[str, object] = {
            "hcl": {
                "version": item.hcl.version,
                "report_type": item.hcl.type.name.lower(),
                "hash_type": "sha256",
                "runtime_data_sha256": item.hcl.report_data[:32].hex(),
                "user_data": claims.user_data,
                "vm": dict(claims.configuration),
                "runtime_data": item.hcl.claims_json.decode("utf-8"),
            }
        }
        if item.hardware is not None:
            verifier = self._hardware[item.hcl.type]
            document[item.hardware.kind] = dict(verifier.inspect(item.hardware))
        if item.quote is not None:
            document["vtpm"] = inspect_quote(item.quote)
        return document

    def bound_matches(self, parsed: ParsedItem, binding: bytes) -> bool:
        """Whether extraData is exactly the first 32 bytes of this 48-byte binding."""
        return len(binding) == BINDING_SIZE and parsed.bound == binding[:BOUND_SIZE]

    def verify(self, parsed: ParsedItem, trust: Trust) -> ItemResult:
        """Run every check but binding; evidence that is wrong does not raise."""
        item, log = _body(parsed), CheckLog()
        hardware = self._verify_hardware(item, trust, log)
        _check_runtime_data(item, log)
        _check_vmpl(item, log)
        proven = _check_quote(item.quote, log)
        below = () if hardware is None else hardware.checks
        checks = tuple(check.at(parsed.index) for check in (*below, *log.checks))
        bound = all(
            log.status_of(check) is Status.PASS
            for check in ("azure.runtime_data", "vtpm.quote.signature")
        )
        vmpl = log.status_of("azure.vmpl")
        return ItemResult(
            checks=checks,
            claims=_claims(item, hardware, proven, checks, parsed.index),
            authenticated=bound
            and vmpl is not Status.FAIL
            and hardware is not None
            and hardware.authenticated,
            identities=_identities(item, hardware),
        )

    def _verify_hardware(
        self, item: AzureItem, trust: Trust, log: CheckLog
    ) -> ItemResult | None:
        if item.hardware is not None:
            return self._hardware[item.hcl.type].verify(item.hardware, trust)
        log.unchecked("azure.td_quote", "no TD quote came with the report")
        return None


def _check_runtime_data(item: AzureItem, log: CheckLog) -> None:
    check = "azure.runtime_data"
    if item.hardware is None:
        # A TDREPORT proves nothing (its MAC is for its machine), but a wrong one tells.
        if _td_report_data(item) != item.hcl.report_data:
            log.failed(
                check, "REPORTDATA of the TDREPORT is not the HCL claims' digest"
            )
        else:
            log.unchecked(
                check, "only the TDREPORT says so, which proves nothing alone"
            )
        return
    log.compared(
        check,
        "REPORT_DATA against SHA-256 of the HCL claims and 32 zero bytes",
        item.hardware.bound.hex(),
        item.hcl.report_data.hex(),
    )


def _td_report_data(item: AzureItem) -> bytes:
    # Intel TDX Module ABI, REPORTMACSTRUCT: REPORTDATA at offset 128.
    return item.hcl.payload[128:192]


def _check_vmpl(item: AzureItem, log: CheckLog) -> None:
    check = "azure.vmpl"
    body = None if item.hardware is None else item.hardware.body
    if not isinstance(body, SnpItem):
        log.skipped(check, "there are no VMPLs but on SNP")
        return
    log.compared(
        check, "VMPL of the report; the paravisor is at 0", body.report.vmpl, 0
    )


def _check_quote(quote: TpmQuote | None, log: CheckLog) -> Mapping[str, ClaimValue]:
    if quote is None:
        log.unchecked("vtpm.quote.signature", _NO_QUOTE)
        log.unchecked("vtpm.quote.pcr_selection", _NO_QUOTE)
        log.unchecked("vtpm.quote.pcr_digest", _NO_QUOTE)
        return {}
    check_signature(quote, None, log)
    check_selection(quote, log)
    check_digest(quote, log)
    return check_event_log(quote.event_log, selected_pcrs(quote), log)


def _claims(
    item: AzureItem,
    hardware: ItemResult | None,
    proven: Mapping[str, ClaimValue],
    checks: tuple[Check, ...],
    index: int,
) -> ItemClaims | None:
    sound = verdict(checks) is Verdict.VERIFIED
    below = None if hardware is None else hardware.claims
    if not sound or below is None or item.quote is None:
        return None
    family = FAMILIES[item.hcl.type]
    vtpm = {**quote_claims(item.quote.attest, item.quote.pcrs), **proven}
    values = {
        **moved(below.values, family),
        **configuration_claims(item.hcl.claims, family),
        **moved(vtpm, family),
    }
    return ItemClaims(family=family, item=index, values=values)


def _identities(item: AzureItem, hardware: ItemResult | None) -> tuple[str, ...]:
    below = () if hardware is None else hardware.identities
    if item.quote is None:
        return below
    digest = hashlib.sha256(item.quote.ak.spki).hexdigest()
    signer = item.quote.attest.qualified_signer.hex()
    return (*below, f"spki:{digest}", f"qn:{signer}")


def _body(parsed: ParsedItem) -> AzureItem:
    if not isinstance(parsed.body, AzureItem):
        message = f"item {parsed.index} was not parsed by the azure family"
        raise TypeError(message)
    return parsed.body
