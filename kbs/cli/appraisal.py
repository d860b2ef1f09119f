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
    GivenFiles,
    Unparsed,
    bundle_from,
    lacks_of_quote,
    read_attestation,
    read_event_log,
    read_evidence,
)
from kbs.core.checks import Check, CheckLog, Status, Verdict, verdict
from kbs.core.claims import Claims, ClaimValue
from kbs.core.encode import parse_b64u
from kbs.core.errors import KbsError, MalformedError
from kbs.evidence.bundle import Bundle, verify_bundle
from kbs.evidence.gce.attestation import check_others
from kbs.evidence.model import StoredRim, Trust, TrustedIssuer
from kbs.evidence.nvgpu.manifests import Sources, check_rim
from kbs.evidence.nvgpu.shelf import RimShelf
from kbs.evidence.registry import VERIFIERS
from kbs.evidence.vtpm.abi import Attest, parse_attest
from kbs.evidence.vtpm.algorithms import bank_name
from kbs.evidence.vtpm.eventlog import EventLog, replay
from kbs.pki.cache import LinkCache

# AMD 56860, table 23 (REPORT_DATA); the longest nonce that most raw evidence carries.
_MAX_NONCE = 64
# AWS, attestation_process.md, section 2.2: nonce = bytes .size (0..1024).
_MAX_NONCES = {"nitro": 1024, "nitrotpm": 1024}

_QUOTE_CHECKS = (
    "vtpm.quote.signature",
    "vtpm.quote.pcr_selection",
    "vtpm.quote.pcr_digest",
)
# What the PCR values beside a quote are needed for.
_PCR_CHECKS = frozenset({"vtpm.quote.pcr_selection", "vtpm.quote.pcr_digest"})
_LOG_CHECK = "vtpm.eventlog.replay"
# Their REPORTDATA or challenge has 64 bytes; a shorter nonce leaves zeros behind it.
_REPORTS = frozenset({"snp", "tdx", "sgx", "cca"})
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
            _nonce_bytes(self.nonce, kind)
        try:
            if kind == "vtpm" and lacks_of_quote(self.files):
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
        lacking = lacks_of_quote(self.files)
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
            checks += (_raw_nonce_check(self.nonce, attest.extra_data, "vtpm"),)
        return Result(checks=checks)

    def _with_nonce(self, result: Result, kind: str, bundle: Bundle) -> Result:
        if self.nonce is None or not result.parsed:
            return result
        if kind == BUNDLE:
            checks = [_bundle_nonce_check(self.nonce, bundle)]
        else:
            checks = [
                _item_nonce_check(self.nonce, bundle, index)
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


def registers_of(log: EventLog) -> dict[str, dict[str, str]]:
    """Return the PCRs that a log leads to, by bank; none of a SHA-1 log."""
    registers: dict[str, dict[str, str]] = {}
    for (bank, pcr), value in sorted(replay(log).items()):
        registers.setdefault(bank_name(bank), {})[str(pcr)] = value.hex()
    return registers


def inspect_attest(attest: Attest) -> dict[str, object]:
    """Return the fields of a quote that came without signature, PCRs and key."""
    return {
        "extra_data": attest.extra_data.hex(),
        "qualified_signer": attest.qualified_signer.hex(),
        "clock": f"{attest.clock:016x}",
        "reset_count": attest.reset_count,
        "restart_count": attest.restart_count,
        "safe": attest.safe,
        "firmware_version": f"{attest.firmware_version:016x}",
        "pcr_select": [
            {"alg": selection.bank.name.lower(), "pcrs": list(selection.pcrs)}
            for selection in attest.pcr_select
        ],
        "pcr_digest": attest.pcr_digest.hex(),
    }


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


def _nonce_bytes(text: str, kind: str) -> bytes:
    most = _MAX_NONCES.get(kind, _MAX_NONCE)
    data = parse_b64u(text, "--nonce", limit=most)
    if not data:
        # Nothing at all would match a report whose REPORT_DATA is all zero.
        raise MalformedError("--nonce", got="nothing", expected=f"1 to {most} bytes")
    return data


def _bundle_nonce_check(text: str, bundle: Bundle) -> Check:
    runtime_data = bundle.runtime_data or {}
    return _nonce_check(str(runtime_data.get("nonce", "none")), text, "runtime_data")


def _with_others(result: Result, data: bytes) -> Result:
    """Add what is found of the quotes that an attestation has besides the item's."""
    attestation = read_attestation(data)
    try:
        checks = check_others(attestation, len(attestation.items) - 1)
    except MalformedError as exc:
        raise Unparsed("vtpm", exc) from exc
    return replace(result, checks=(*result.checks, *checks))


def _item_nonce_check(text: str, bundle: Bundle, index: int) -> Check:
    kind = bundle.kind(index)
    parsed = VERIFIERS[kind].parse(bundle.items[index], index)
    signed = parsed.bound if parsed.nonce is None else parsed.nonce
    return _raw_nonce_check(text, signed, kind).at(index)


def _raw_nonce_check(text: str, bound: bytes, kind: str) -> Check:
    nonce = _nonce_bytes(text, kind)
    expected = nonce.ljust(len(bound), b"\0") if kind in _REPORTS else nonce
    return _nonce_check(bound.hex(), expected.hex(), "the signed field", item=0)


def _nonce_check(got: str, expected: str, where: str, item: int | None = None) -> Check:
    log = CheckLog()
    log.compared("binding.nonce", f"--nonce against {where}", got, expected)
    return replace(log.checks[0], item=item)
