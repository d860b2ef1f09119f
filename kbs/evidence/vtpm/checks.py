"""The checks of a quote under a key: signature, PCR selection, digest.

Whose key it is, the caller decides: an attestation key that is enrolled or certified,
or one that a CPU report names.
"""

from __future__ import annotations

from kbs.core.checks import CheckLog
from kbs.evidence.vtpm.algorithms import Algorithm
from kbs.evidence.vtpm.item import TpmQuote
from kbs.evidence.vtpm.pcrs import PcrValues, pcr_digest, pcr_label
from kbs.evidence.vtpm.public import TpmPublic
from kbs.evidence.vtpm.signature import is_signed, scheme_problem, scheme_text


def check_signature(quote: TpmQuote, public: TpmPublic | None, log: CheckLog) -> bool:
    """Check the signature by the key, in a scheme that its area allows, if known."""
    check = "vtpm.quote.signature"
    key = quote.ak.key
    problem = scheme_problem(quote.signature, key, public)
    if problem is not None:
        got, expected = problem
        log.failed(
            check, "the signature's scheme is not the key's", got=got, expected=expected
        )
        return False
    scheme = scheme_text(quote.signature.scheme, quote.signature.hash)
    fingerprint = quote.ak.spki_sha256.hex()
    if not is_signed(quote.signature, key, quote.message):
        log.failed(check, f"{scheme} does not verify under the key SPKI {fingerprint}")
        return False
    log.passed(check, f"{scheme} by the key SPKI {fingerprint}")
    return True


def check_selection(quote: TpmQuote, log: CheckLog) -> None:
    """Check that the values beside the quote are those of the PCRs that it selected."""
    check = "vtpm.quote.pcr_selection"
    selected, given = quote.attest.selected, frozenset(quote.pcrs)
    if not selected:
        log.failed(check, "the quote selects no PCR", got="none", expected="some")
        return
    if selected == given:
        log.passed(check, f"{len(selected)} PCRs, as the quote selected")
        return
    log.failed(
        check,
        f"not selected: {_labels(given - selected)}; "
        f"without a value: {_labels(selected - given)}",
        got=_labels(given),
        expected=_labels(selected),
    )


def check_digest(quote: TpmQuote, log: CheckLog) -> None:
    """Check that the values beside the quote hash to its digest."""
    check = "vtpm.quote.pcr_digest"
    computed = pcr_digest(quote.attest, quote.pcrs, quote.signature.hash)
    if computed is None:
        log.failed(
            check,
            "the digest cannot be computed: a value is missing, or the hash is weak",
        )
        return
    log.compared(
        check,
        "digest over the PCR values beside the quote",
        computed.hex(),
        quote.attest.pcr_digest.hex(),
    )


def selected_pcrs(quote: TpmQuote) -> PcrValues:
    """Return the values of the PCRs that the quote selected."""
    selected = quote.attest.selected
    return {entry: value for entry, value in quote.pcrs.items() if entry in selected}


def _labels(entries: frozenset[tuple[Algorithm, int]]) -> str:
    return ", ".join(pcr_label(entry) for entry in sorted(entries)) or "none"
