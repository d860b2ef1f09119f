"""Evidence in the forms of the RCAR protocol, turned into items of a bundle.

One table: TEE name to form. Nothing is believed here, and nothing is added: what the
protocol's form does not carry is not in the item either.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from kbs.core.encode import (
    b64,
    parse_b64,
    parse_b64u,
    parse_hex,
    require_list,
    require_object,
    require_text,
)
from kbs.core.errors import MalformedError
from kbs.evidence.azure.hcl import MAX_REPORT
from kbs.evidence.cca.abi import MAX_TOKEN as MAX_CCA_TOKEN
from kbs.evidence.cca.abi import is_cca_token
from kbs.evidence.dcap.quote import (
    MAX_QUOTE_BYTES,
    TEE_TDX,
    looks_like_quote,
    tee_type_of,
)
from kbs.evidence.nvgpu.files import items_of_list
from kbs.evidence.snp.fields import octets_of, report_of_fields
from kbs.evidence.vtpm.abi import (
    MAX_MESSAGE,
    MAX_SIGNATURE,
    PCR_COUNT,
    Signature,
    parse_attest,
    serialize_signature,
)
from kbs.evidence.vtpm.algorithms import Algorithm
from kbs.evidence.vtpm.eventlog import MAX_LOG
from kbs.pki.certificates import MAX_CERTIFICATE_BYTES

Item = dict[str, object]
Evidence = Mapping[str, object]

_MAX_CERTIFICATES = 16
# What the kernel's table of extended guest requests can hold, by the `sev` crate.
_CHAIN = frozenset({"ARK", "ASK", "ASVK", "VCEK", "VLEK"})
_MAX_SVN = 2**32 - 1
_AZURE_VERSIONS = (0, 1, 2)
_PCR_BYTES = 32
_MAX_TD_QUOTE = 16 * 1024


@dataclass(frozen=True, slots=True)
class Form:
    """How evidence of one TEE name is read.

    `init_data` is the register that carries the digest of the init-data: `host_data`
    of SNP (32 bytes), `mr_config_id` of TDX (48), `config_id` of SGX (64), PCR 8 of a
    TPM, the personalization value of a CCA realm, None where nothing does.
    """

    kind: str
    read: Callable[[Evidence], Item | list[Item]]
    init_data: str | None = None


def item_of(tee: str, evidence: Evidence) -> Item:
    """Return the bundle's item for evidence of a TEE.

    Raises:
        MalformedError: an unknown TEE, evidence of another shape, or of several.
    """
    items = items_of(tee, evidence)
    if len(items) != 1:
        raise MalformedError(
            f"{tee} evidence", got=f"{len(items)} devices", expected="one"
        )
    return items[0]


def items_of(tee: str, evidence: Evidence) -> list[Item]:
    """Return the bundle's items for evidence of a TEE: all devices of one name.

    Raises:
        MalformedError: an unknown TEE, or evidence of another shape.
    """
    found = form_of(tee).read(evidence)
    return found if isinstance(found, list) else [found]


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


def tee_of(evidence: Evidence) -> str | None:
    """Return the TEE whose evidence this looks like; None if it looks like none.

    For files that nobody named: a message says its TEE.
    """
    for tee, names in _MEMBERS.items():
        if any(members <= evidence.keys() for members in names):
            return tee
    return _tee_of_bytes(evidence)


def _tee_of_bytes(evidence: Evidence) -> str | None:
    # `quote` and `token` are members of much else: what is in them has to say so too.
    with suppress(MalformedError):
        if "quote" in evidence:
            quote = parse_b64(evidence["quote"], "quote", limit=MAX_QUOTE_BYTES)
            if looks_like_quote(quote):
                return "tdx" if tee_type_of(quote) == TEE_TDX else "sgx"
        elif isinstance(evidence.get("token"), list):
            token = octets_of(evidence["token"], "cca token", most=MAX_CCA_TOKEN)
            return "cca" if is_cca_token(token) else None
    return None


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


def _tdx(evidence: Evidence) -> Item:
    item = {"kind": "tdx", "quote": _quote(evidence)}
    log = evidence.get("cc_eventlog")
    if log is not None:
        item["event_log"] = b64(parse_b64(log, "cc_eventlog", limit=MAX_LOG))
    return item


def _sgx(evidence: Evidence) -> Item:
    return {"kind": "sgx", "quote": _quote(evidence)}


def _quote(evidence: Evidence) -> object:
    return b64(parse_b64(evidence.get("quote"), "quote", limit=MAX_QUOTE_BYTES))


def _nvidia(evidence: Evidence) -> list[Item]:
    # GPUs and switches of a guest share one list.
    return items_of_list(evidence.get("device_evidence_list"))


def _cca(evidence: Evidence) -> Item:
    token = octets_of(evidence.get("token"), "cca token", most=MAX_CCA_TOKEN)
    return {"kind": "cca", "token": b64(token)}


def _tpm(evidence: Evidence) -> Item:
    quote = require_object(evidence.get("tpm_quote"), "tpm_quote")
    message = parse_b64(quote.get("message"), "tpm_quote message", limit=MAX_MESSAGE)
    values = require_list(quote.get("pcrs"), "tpm_quote pcrs", limit=PCR_COUNT)
    return {
        "kind": "vtpm",
        "quote": {"message": b64(message), "signature": quote.get("signature")},
        "pcrs": {"sha256": _quoted(message, values)},
        "ak": evidence.get("ak_public"),
    }


def _az_snp(evidence: Evidence) -> Item:
    item = _azure(evidence)
    vcek = evidence.get("vcek")
    if isinstance(vcek, str) and vcek.startswith("-----BEGIN"):
        return {**item, "certificates": [vcek]}
    der = _octets(vcek, "vcek", most=MAX_CERTIFICATE_BYTES)
    return {**item, "certificates": [b64(der)]}


def _az_tdx(evidence: Evidence) -> Item:
    quote = _octets(evidence.get("td_quote"), "td_quote", most=_MAX_TD_QUOTE)
    return {**_azure(evidence), "td_quote": b64(quote)}


def _azure(evidence: Evidence) -> Item:
    """Read what is common to the Azure forms: versions 1 and 2, and 0 of integers.

    Version 2 also has the digest in the `user-data` of the HCL claims, which is not
    used: extraData carries it whole, under a key that the hardware report vouches for.
    """
    version = evidence.get("version", 0)
    if version not in _AZURE_VERSIONS or isinstance(version, bool):
        raise MalformedError(
            "evidence version", got=repr(version)[:40], expected="1 or 2"
        )
    # Version 0 of SNP has other names for the same two members.
    hcl = evidence.get("hcl_report", evidence.get("report"))
    quote = require_object(
        evidence.get("tpm_quote", evidence.get("quote")), "tpm_quote"
    )
    return {
        "kind": "azure",
        "hcl_report": b64(_octets(hcl, "hcl_report", most=MAX_REPORT)),
        "vtpm": _azure_quote(quote),
    }


def _azure_quote(quote: Mapping[str, object]) -> dict[str, object]:
    message = _hex(quote.get("message"), "tpm_quote message", most=MAX_MESSAGE)
    raw = _hex(quote.get("signature"), "tpm_quote signature", most=MAX_SIGNATURE)
    # The signature comes bare; the vTPM's key signs by RSASSA with SHA-256 only.
    signature = Signature(scheme=Algorithm.RSASSA, hash=Algorithm.SHA256, values=(raw,))
    values = require_list(quote.get("pcrs"), "tpm_quote pcrs", limit=PCR_COUNT)
    pcrs = [_hex(one, "tpm_quote pcr", most=_PCR_BYTES).hex() for one in values]
    return {
        "quote": {
            "message": b64(message),
            "signature": b64(serialize_signature(signature)),
        },
        "pcrs": {"sha256": _quoted(message, pcrs)},
    }


def _quoted(message: bytes, values: Sequence[object]) -> dict[str, object]:
    # All 24 come, whatever was quoted; the others are nobody's word.
    selected = parse_attest(message).selected
    return {
        str(pcr): value
        for pcr, value in enumerate(values)
        if (Algorithm.SHA256, pcr) in selected
    }


def _octets(value: object, what: str, *, most: int) -> bytes:
    if isinstance(value, list):
        return octets_of(value, what, most=most)
    text = require_text(value, what, limit=2 * most)
    # Base64url, with its padding or without; a wrong padding stays, to be refused.
    bare = text.rstrip("=")
    padded = text == bare.ljust(len(bare) + -len(bare) % 4, "=")
    return parse_b64u(bare if padded else text, what, limit=most)


def _hex(value: object, what: str, *, most: int) -> bytes:
    if isinstance(value, list):
        return octets_of(value, what, most=most)
    return parse_hex(require_text(value, what, limit=2 * most), what)


FORMS: Mapping[str, Form] = {
    "az-snp-vtpm": Form("azure", _az_snp, init_data="pcr8"),
    "az-tdx-vtpm": Form("azure", _az_tdx, init_data="pcr8"),
    "nvidia": Form("nvgpu", _nvidia),
    "sample": Form("sample", _sample("sample")),
    "sampledevice": Form("sampledevice", _sample("sampledevice")),
    "cca": Form("cca", _cca, init_data="personalization_value"),
    "snp": Form("snp", _snp, init_data="host_data"),
    "tdx": Form("tdx", _tdx, init_data="mr_config_id"),
    "sgx": Form("sgx", _sgx, init_data="config_id"),
    "tpm": Form("vtpm", _tpm, init_data="pcr8"),
}
"""Every TEE name whose evidence this broker verifies."""

_MEMBERS: Mapping[str, tuple[frozenset[str], ...]] = {
    "az-snp-vtpm": (
        frozenset({"hcl_report", "tpm_quote", "vcek"}),
        frozenset({"report", "quote", "vcek"}),
    ),
    "az-tdx-vtpm": (frozenset({"hcl_report", "tpm_quote", "td_quote"}),),
    "snp": (frozenset({"attestation_report", "cert_chain"}),),
    "tpm": (frozenset({"ak_public", "tpm_quote"}),),
}
"""Members by which evidence of a TEE is known; of others, by what is in them."""
