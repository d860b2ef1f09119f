"""A TPM quote as people read it: every field, and nothing of it proven."""

from __future__ import annotations

from kbs.evidence.vtpm.abi import ATTEST_QUOTE, TPM_GENERATED
from kbs.evidence.vtpm.algorithms import bank_name
from kbs.evidence.vtpm.item import TpmQuote
from kbs.evidence.vtpm.pcrs import pcrs_to_json
from kbs.evidence.vtpm.signature import scheme_text
from kbs.pki.certificates import describe


def inspect_quote(quote: TpmQuote) -> dict[str, object]:
    """Return all fields of a quote and of what stands beside it."""
    attest = quote.attest
    return {
        "attest": {
            "magic": f"{TPM_GENERATED:08x}",
            "type": f"{ATTEST_QUOTE:04x}",
            "qualified_signer": attest.qualified_signer.hex(),
            "extra_data": attest.extra_data.hex(),
            "clock": f"{attest.clock:016x}",
            "reset_count": attest.reset_count,
            "restart_count": attest.restart_count,
            "safe": attest.safe,
            "firmware_version": f"{attest.firmware_version:016x}",
            "pcr_select": [
                {"alg": bank_name(selection.bank), "pcrs": list(selection.pcrs)}
                for selection in attest.pcr_select
            ],
            "pcr_digest": attest.pcr_digest.hex(),
        },
        "signature": {
            "scheme": scheme_text(quote.signature.scheme, quote.signature.hash),
            "values": [value.hex() for value in quote.signature.values],
        },
        "pcrs": pcrs_to_json(quote.pcrs),
        "ak": _inspect_ak(quote),
        "event_log": _inspect_log(quote),
    }


def _inspect_ak(quote: TpmQuote) -> dict[str, object]:
    public = quote.ak.public
    document: dict[str, object] = {
        "spki_sha256": quote.ak.spki_sha256.hex(),
        "certificates": [describe(cert.subject) for cert in quote.certificates],
    }
    if public is not None:
        document["name"] = public.name.hex()
        document["attributes"] = [str(flag.name).lower() for flag in public.attributes]
        document["scheme"] = scheme_text(public.scheme.algorithm, public.scheme.hash)
    return document


def _inspect_log(quote: TpmQuote) -> dict[str, object] | None:
    log = quote.event_log
    if log is None:
        return None
    return {"format": log.format.value, "events": len(log.events)}
