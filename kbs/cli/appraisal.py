"""Recorded evidence, verified at the command line: one document, one exit code.

`contract.md`, section 2. Nothing here talks to the network, and nothing here releases:
a missing revocation list is `skipped`, evidence without runtime data is recorded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from kbs.channel.binding import RuntimeBinding, parse_runtime_data
from kbs.cli.context import EXIT_DONE, EXIT_REFUSED, EXIT_UNCHECKED, EXIT_USAGE
from kbs.cli.evidence_files import (
    BUNDLE,
    EVENT_LOG,
    GCE,
    RIM,
    TOKEN,
    UNKNOWN_KIND,
    WITHOUT_CERTIFICATES,
    Unparsed,
    read_event_log,
    read_evidence,
)
from kbs.cli.evidence_items import bundle_from, read_attestation
from kbs.cli.evidence_nonces import check_bundle, check_field, check_item, parse_nonce
from kbs.cli.given_files import GivenFiles
from kbs.cli.inspection import registers_of
from kbs.core.checks import Check, CheckLog, Status, Verdict, verdict
from kbs.core.claims import Claims, ClaimValue
from kbs.core.errors import KbsError, MalformedError
from kbs.evidence.bundle import Bundle, verify_bundle
from kbs.evidence.gce.attestation import check_others
from kbs.evidence.model import StoredRim, Trust, TrustedIssuer
from kbs.evidence.nvgpu.manifests import Sources, check_rim
from kbs.evidence.nvgpu.shelf import RimShelf
from kbs.evidence.registry import VERIFIERS
from kbs.evidence.vtpm.abi import parse_attest
from kbs.pki.cache import LinkCache

_QUOTE_CHECKS = (
    "vtpm.quote.signature",
    "vtpm.quote.pcr_selection",
    "vtpm.quote.pcr_digest",
)
# What the PCR values beside a quote are needed for.
_PCR_CHECKS = frozenset({"vtpm.quote.pcr_selection", "vtpm.quote.pcr_digest"})
_LOG_CHECK = "vtpm.eventlog.replay"
_EXIT = {
    Verdict.VERIFIED: EXIT_DONE,
    Verdict.REFUSED: EXIT_REFUSED,
    Verdict.UNCHECKED: EXIT_UNCHECKED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What was found; `parsed` is false for evidence without its shape."""

    checks: tuple[Check, ...]
    claims: Claims | None = None
    parsed: bool = True
    shown: Mapping[str, object] = field(default_factory=dict)
    """What was found beside claims: nobody vouches for it."""

    @property
    def verdict(self) -> Verdict:
        """What all checks add up to."""
        return verdict(self.checks)

    @property
    def exit_code(self) -> int:
        """The exit code of the verdict; 2 for malformed evidence."""
        return _EXIT[self.verdict] if self.parsed else EXIT_USAGE

    def to_json(self) -> dict[str, object]:
        """Return the document of the contract."""
        verified = self.claims is not None and self.verdict is Verdict.VERIFIED
        return {
            "verdict": self.verdict.value,
            "checks": [check.to_json() for check in self.checks],
            "claims": self.claims.to_json() if verified and self.claims else {},
            **self.shown,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What to verify evidence with, from the options of the command."""

    at: datetime
    files: GivenFiles
    nonce: str | None = None

    def run_file(self, path: Path, kind: str | None) -> Result:
        """Verify one file of evidence, whose kind may have to be told by its bytes.

        Raises:
            MalformedError: it cannot be read; an option or a file beside it is wrong.
        """
        try:
            found, data = read_evidence(path, kind)
        except MalformedError as exc:
            if exc.code != UNKNOWN_KIND:
                raise
            # What is not even known to be evidence is refused as a bundle, which a
            # file is that nobody called anything else.
            return malformed(BUNDLE, exc)
        return self.run(found, data)

    def run(self, kind: str, data: bytes) -> Result:
        """Verify one file of evidence.

        Raises:
            MalformedError: an option or a file beside the evidence is wrong.
        """
        self.files.refuse_for(kind)
        if kind in {EVENT_LOG, RIM}:
            self._refuse_nonce(kind)
            return self._run_log(data) if kind == EVENT_LOG else self._run_rim(data)
        if self.nonce is not None and kind != BUNDLE:
            parse_nonce(self.nonce, kind)
        try:
            if kind == "vtpm" and self.files.lacks_of_quote():
                return self._run_incomplete_quote(data)
            bundle = bundle_from(kind, data, self.files)
            result = verify_recorded(bundle, self._trust(kind))
            if kind == GCE and result.parsed:
                result = _with_others(result, data)
        except Unparsed as exc:
            return malformed(exc.kind, exc.error)
        return self._with_nonce(result, kind, bundle)

    def _trust(self, kind: str) -> Trust:
        collateral = self.files.given_collateral()
        if kind in WITHOUT_CERTIFICATES:
            collateral = replace(
                collateral,
                given_certificates=(
                    self.files.given_certificates() + collateral.given_certificates
                ),
            )
        return Trust(
            now=self.at,
            collateral=collateral,
            issuers=self._issuers(kind),
            require_revocation=False,
            recorded=True,
            override_ak=self.files.named_ak(),
        )

    def _issuers(self, kind: str) -> tuple[TrustedIssuer, ...]:
        roots = self.files.given_roots() if kind == TOKEN else ()
        return self.files.given_issuers() + roots

    def _refuse_nonce(self, kind: str) -> None:
        if self.nonce is not None:
            raise MalformedError(
                "--nonce",
                got=f"a file of kind {kind}, which has none",
                expected="a bundle, a report or a quote",
                code="usage",
            )

    def _run_rim(self, data: bytes) -> Result:
        log = CheckLog()
        sources = Sources(trust=self._trust(RIM), shelf=RimShelf(), cache=LinkCache())
        check_rim(StoredRim(data), sources, log)
        checks = tuple(check.at(0) for check in log.checks)
        parsed = log.status_of("nvgpu.rim.parse") is Status.PASS
        return Result(checks=checks, parsed=parsed)

    def _run_log(self, data: bytes) -> Result:
        try:
            kind, found = read_event_log(data)
        except MalformedError as exc:
            return malformed("vtpm", exc)
        log = CheckLog()
        log.passed(f"{kind}.parse", f"{len(found.events)} events, {found.format.value}")
        log.unchecked(
            f"{kind}.eventlog.replay",
            "an event log proves nothing alone: give it by --event-log with a quote",
        )
        checks = tuple(check.at(0) for check in log.checks)
        return Result(checks=checks, shown={"replayed": registers_of(found)})

    def _run_quote_without_pcrs(self, data: bytes) -> Result:
        bundle = bundle_from("vtpm", data, self.files)
        result = verify_recorded(bundle, self._trust("vtpm"))
        selects = bool(parse_attest(data).selected)
        has_log = self.files.event_log is not None
        checks = tuple(
            _without_pcrs(one, selects=selects, has_log=has_log)
            for one in result.checks
        )
        return self._with_nonce(replace(result, checks=checks), "vtpm", bundle)

    def _run_incomplete_quote(self, data: bytes) -> Result:
        try:
            attest = parse_attest(data)
        except MalformedError as exc:
            return malformed("vtpm", exc)
        lacking = self.files.lacks_of_quote()
        if lacking == ("--pcrs",):
            return self._run_quote_without_pcrs(data)
        log = CheckLog()
        log.passed("vtpm.parse")
        for check in _QUOTE_CHECKS:
            log.unchecked(check, f"not given: {', '.join(lacking)}")
        if "--ak" in lacking:
            log.failed(
                "vtpm.ak.trust",
                "nobody vouched for the key that signed",
                got="no key",
                expected="--ak FILE",
            )
        checks = tuple(check.at(0) for check in log.checks)
        if self.nonce is not None:
            checks += (check_field(self.nonce, attest.extra_data, "vtpm"),)
        return Result(checks=checks)

    def _with_nonce(self, result: Result, kind: str, bundle: Bundle) -> Result:
        if self.nonce is None or not result.parsed:
            return result
        if kind == BUNDLE:
            checks = [check_bundle(self.nonce, bundle)]
        else:
            checks = [
                check_item(self.nonce, bundle, index)
                for index in range(len(bundle.items))
            ]
        return replace(result, checks=(*result.checks, *checks))


def verify_recorded(
    bundle: Bundle, trust: Trust, request: Mapping[str, ClaimValue] | None = None
) -> Result:
    """Verify a bundle, with its binding where it has runtime data.

    Raises:
        Unparsed: its runtime data lack their shape.
    """
    binding = None
    if bundle.runtime_data is not None:
        try:
            binding = RuntimeBinding(parse_runtime_data(dict(bundle.runtime_data)))
        except MalformedError as exc:
            raise Unparsed(BUNDLE, exc) from exc
    found = verify_bundle(
        bundle,
        trust=trust,
        verifiers=VERIFIERS,
        binding=binding,
        request=request,
        recorded=True,
    )
    return Result(checks=found.checks, claims=found.claims, parsed=found.parsed)


def malformed(kind: str, error: KbsError) -> Result:
    """Return the result of evidence that does not parse."""
    check = Check(
        id=f"{kind}.parse",
        status=Status.FAIL,
        detail=str(error),
        item=None if kind == BUNDLE else 0,
        got=error.got,
        expected=error.expected,
    )
    return Result(checks=(check,), parsed=False)


def _without_pcrs(check: Check, *, selects: bool, has_log: bool) -> Check:
    # A quote that selects nothing is wrong whatever values stand beside it.
    about_pcrs = check.id in _PCR_CHECKS and selects
    if not (about_pcrs or (check.id == _LOG_CHECK and has_log)):
        return check
    return Check(
        id=check.id,
        status=Status.UNCHECKED,
        detail="not given: --pcrs",
        item=check.item,
    )


def _with_others(result: Result, data: bytes) -> Result:
    """Add what is found of the quotes that an attestation has besides the item's."""
    attestation = read_attestation(data)
    try:
        checks = check_others(attestation, len(attestation.items) - 1)
    except MalformedError as exc:
        raise Unparsed("vtpm", exc) from exc
    return replace(result, checks=(*result.checks, *checks))
