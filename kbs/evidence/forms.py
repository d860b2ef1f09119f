"""Evidence in the forms of the RCAR protocol, turned into items of a bundle.

One table: TEE name to form. Nothing is believed here, and nothing is added: what the
protocol's form does not carry is not in the item either.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from kbs.core.encode import b64, parse_b64, require_list, require_object, require_text
from kbs.core.errors import MalformedError
from kbs.evidence.cca.abi import MAX_TOKEN as MAX_CCA_TOKEN
from kbs.evidence.snp.fields import octets_of, report_of_fields
from kbs.evidence.vtpm.abi import MAX_MESSAGE, PCR_COUNT, parse_attest
from kbs.evidence.vtpm.algorithms import Algorithm
from kbs.pki.certificates import MAX_CERTIFICATE_BYTES

Item = dict[str, object]
Evidence = Mapping[str, object]

_MAX_CERTIFICATES = 16
# What the kernel's table of extended guest requests can hold, by the `sev` crate.
_CHAIN = frozenset({"ARK", "ASK", "ASVK", "VCEK", "VLEK"})
_MAX_SVN = 2**32 - 1


@dataclass(frozen=True, slots=True)
class Form:
    """How evidence of one TEE name is read.

    `init_data` is the register that carries the digest of the init-data: `host_data`
    of SNP (32 bytes), PCR 8 of a TPM, the personalization value of a CCA realm, None
    where nothing does.
    """

    kind: str
    read: Callable[[Evidence], Item]
    init_data: str | None = None


def item_of(tee: str, evidence: Evidence) -> Item:
    """Return the bundle's item for evidence of a TEE.

    Raises:
        MalformedError: an unknown TEE, or evidence of another shape.
    """
    return form_of(tee).read(evidence)


def form_of(tee: str) -> Form:
    """Return the form of a TEE name.

    Raises:
        MalformedError: this broker verifies no such evidence.
    """
    found = FORMS.get(tee)
    if found is None:
        raise MalformedError(
            "tee", got=repr(tee)[:40], expected=", ".join(sorted(FORMS))
        )
    return found


def _sample(kind: str) -> Callable[[Evidence], Item]:
    def read(evidence: Evidence) -> Item:
        item: Item = {"kind": kind, "report_data": evidence.get("report_data", "")}
        svn = evidence.get("svn")
        if svn is not None:
            text = require_text(svn, f"{kind} svn", limit=10)
            if not (text.isascii() and text.isdigit() and int(text) <= _MAX_SVN):
                raise MalformedError(f"{kind} svn", got=repr(text), expected="a number")
            item["claims"] = {"svn": int(text)}
        return item

    return read


def _snp(evidence: Evidence) -> Item:
    report = report_of_fields(evidence.get("attestation_report"))
    chain = evidence.get("cert_chain")
    listed = [] if chain is None else chain
    entries = require_list(listed, "cert_chain", limit=_MAX_CERTIFICATES)
    certificates = [text for entry in entries for text in _certificate(entry)]
    return {"kind": "snp", "report": b64(report), "certificates": certificates}


def _certificate(entry: object) -> list[str]:
    members = require_object(entry, "cert_chain entry")
    sort = members.get("cert_type")
    if not isinstance(sort, str) or sort not in _CHAIN:
        # Empty slots, lists and what vendors put beside the chain.
        return []
    data = octets_of(
        members.get("data"), "cert_chain data", most=2 * MAX_CERTIFICATE_BYTES
    )
    if data.startswith(b"-----BEGIN"):
        return [data.decode("ascii", errors="replace")]
    return [b64(data)]


def _cca(evidence: Evidence) -> Item:
    token = octets_of(evidence.get("token"), "cca token", most=MAX_CCA_TOKEN)
    return {"kind": "cca", "token": b64(token)}


def _tpm(evidence: Evidence) -> Item:
    quote = require_object(evidence.get("tpm_quote"), "tpm_quote")
    message = parse_b64(quote.get("message"), "tpm_quote message", limit=MAX_MESSAGE)
    values = require_list(quote.get("pcrs"), "tpm_quote pcrs", limit=PCR_COUNT)
    # All 24 come, whatever was quoted; the others are nobody's word.
    selected = parse_attest(message).selected
    pcrs = {
        str(pcr): value
        for pcr, value in enumerate(values)
        if (Algorithm.SHA256, pcr) in selected
    }
    return {
        "kind": "vtpm",
        "quote": {"message": b64(message), "signature": quote.get("signature")},
        "pcrs": {"sha256": pcrs},
        "ak": evidence.get("ak_public"),
    }


FORMS: Mapping[str, Form] = {
    "sample": Form("sample", _sample("sample")),
    "sampledevice": Form("sampledevice", _sample("sampledevice")),
    "cca": Form("cca", _cca, init_data="personalization_value"),
    "snp": Form("snp", _snp, init_data="host_data"),
    "tpm": Form("vtpm", _tpm, init_data="pcr8"),
}
"""Every TEE name whose evidence this broker verifies."""
