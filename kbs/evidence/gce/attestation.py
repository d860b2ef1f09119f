"""`attest.Attestation` of google/go-tpm-tools: quotes, event log, certificates, a TEE.

proto/attest.proto and proto/tpm.proto of that project. The parts become items of the
families that verify them: the CPU report if there is one, and the vTPM's quote. There
is a quote for each bank of PCRs, all by one key; the item has the one over SHA-256 (or
else SHA-384), and `check_others` holds the rest to the same checks.

GCEInstanceInfo is not signed and nothing is read from it; the certificate of the key
says the same (`kbs.evidence.vtpm.instance`). The canonical event log is not replayed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from kbs.core.checks import Check, CheckLog
from kbs.core.encode import b64
from kbs.core.errors import MalformedError
from kbs.evidence.gce.tee import snp_item, tdx_item
from kbs.evidence.gce.wire import Message, Schema, read_message
from kbs.evidence.vtpm.abi import PCR_COUNT
from kbs.evidence.vtpm.algorithms import DIGEST_SIZES, Algorithm, bank_name
from kbs.evidence.vtpm.checks import (
    check_digest,
    check_selection,
    check_signature,
    selected_pcrs,
)
from kbs.evidence.vtpm.item import parse_item as parse_quote_item
from kbs.evidence.vtpm.item import quote_of
from kbs.evidence.vtpm.replay import check_event_log

Item = dict[str, object]

MAX_ATTESTATION = 1024 * 1024
MAX_QUOTES = 4

_ATTESTATION = Schema(
    octets={
        1: "ak_pub",
        2: "quotes",
        3: "event_log",
        4: "instance_info",
        5: "canonical_event_log",
        6: "ak_cert",
        7: "intermediate_certs",
        8: "sev_snp_attestation",
        9: "tdx_attestation",
    },
    repeated=frozenset({"quotes", "intermediate_certs"}),
    # Newer versions add what other devices say, of which nothing is concluded here.
    open=True,
)
_QUOTE = Schema(octets={1: "quote", 2: "raw_sig", 3: "pcrs"})
_PCRS = Schema(numbers={1: "hash"}, octets={2: "pcrs"}, repeated=frozenset({"pcrs"}))
_PCR = Schema(numbers={1: "key"}, octets={2: "value"})
_PREFERRED = (Algorithm.SHA256, Algorithm.SHA384)
# Protocol buffers have no mark of their own: an attestation begins with ak_pub, whose
# TPMT_PUBLIC begins with the type of the key.
_KEY_TYPES = (Algorithm.RSA, Algorithm.ECC)


@dataclass(frozen=True, slots=True, kw_only=True)
class GceAttestation:
    """The items that an attestation becomes, and the quotes over the other banks."""

    tee: Item | None
    quote: Item
    others: tuple[Item, ...]

    @property
    def items(self) -> tuple[Item, ...]:
        """The items of a bundle, the CPU report first."""
        return (self.quote,) if self.tee is None else (self.tee, self.quote)


def is_attestation(data: bytes) -> bool:
    """Whether a file is an attestation: it begins like one and is one to its end."""
    try:
        message = read_message(data, _ATTESTATION, "attestation")
    except MalformedError:
        return False
    kinds = {int(kind).to_bytes(2, "big") for kind in _KEY_TYPES}
    return message.one("ak_pub")[:2] in kinds and bool(message.all("quotes"))


def parse_attestation(data: bytes) -> GceAttestation:
    """Read an attestation.

    Raises:
        MalformedError: no message of its kind, two TEEs, or no quote over SHA-256 or
            SHA-384; the items themselves are parsed when they are verified.
    """
    if len(data) > MAX_ATTESTATION:
        raise MalformedError(
            "attestation",
            got=f"{len(data)} bytes",
            expected=f"at most {MAX_ATTESTATION}",
        )
    message = read_message(data, _ATTESTATION, "attestation")
    quotes = dict(_quote(one, message) for one in message.all("quotes")[:MAX_QUOTES])
    if len(quotes) != len(message.all("quotes")):
        raise MalformedError(
            "attestation quotes",
            got=f"{len(message.all('quotes'))} over {len(quotes)} banks",
            expected=f"one over each bank, at most {MAX_QUOTES}",
        )
    chosen = next((bank for bank in _PREFERRED if bank in quotes), None)
    if chosen is None:
        raise MalformedError(
            "attestation quotes",
            got=", ".join(bank_name(bank) for bank in quotes) or "none",
            expected="one over sha256 or sha384",
        )
    return GceAttestation(
        tee=_tee(message),
        quote=quotes.pop(chosen),
        others=tuple(quotes.values()),
    )


def check_others(attestation: GceAttestation, index: int) -> tuple[Check, ...]:
    """Hold the quotes over the other banks to what one item's quote is held to.

    Raises:
        MalformedError: one lacks the shape of a quote.
    """
    return tuple(
        check.at(index)
        for item in attestation.others
        for check in _check_quote(item, index)
    )


def _check_quote(item: Item, index: int) -> tuple[Check, ...]:
    quote = quote_of(parse_quote_item(item, index))
    log = CheckLog()
    check_signature(quote, quote.ak.public, log)
    check_selection(quote, log)
    check_digest(quote, log)
    check_event_log(quote.event_log, selected_pcrs(quote), log)
    banks = ", ".join(bank_name(one.bank) for one in quote.attest.pcr_select)
    return tuple(
        replace(check, detail=f"{banks}: {check.detail}") for check in log.checks
    )


def _quote(data: bytes, attestation: Message) -> tuple[Algorithm, Item]:
    message = read_message(data, _QUOTE, "attestation quote")
    pcrs = read_message(message.one("pcrs"), _PCRS, "attestation pcrs")
    bank = _bank(pcrs)
    area = attestation.one("ak_pub")
    certificates = [
        attestation.one("ak_cert"),
        *attestation.all("intermediate_certs"),
    ]
    item: Item = {
        "kind": "vtpm",
        "quote": {
            "message": b64(message.one("quote")),
            "signature": b64(message.one("raw_sig")),
        },
        "pcrs": {bank_name(bank): _values(pcrs, bank)},
        # The message has a TPMT_PUBLIC; an item has it with its size.
        "ak": b64(min(len(area), 0xFFFF).to_bytes(2, "big") + area),
        "ak_certificates": [b64(one) for one in certificates if one],
    }
    if event_log := attestation.one("event_log"):
        item["event_log"] = b64(event_log)
    return bank, item


def _bank(pcrs: Message) -> Algorithm:
    code = pcrs.number("hash", most=0xFFFF)
    if code not in {int(bank) for bank in DIGEST_SIZES}:
        raise MalformedError(
            "attestation pcrs hash", got=f"{code:#x}", expected="a bank of a TPM"
        )
    return Algorithm(code)


def _values(pcrs: Message, bank: Algorithm) -> dict[str, str]:
    values: dict[str, str] = {}
    for entry in pcrs.all("pcrs"):
        pair = read_message(entry, _PCR, "attestation pcr")
        number = str(pair.number("key", most=PCR_COUNT - 1))
        if number in values:
            raise MalformedError("attestation pcr", got=f"{number} twice")
        values[number] = pair.sized("value", DIGEST_SIZES[bank]).hex()
    return values


def _tee(message: Message) -> Item | None:
    snp, tdx = message.one("sev_snp_attestation"), message.one("tdx_attestation")
    if snp and tdx:
        raise MalformedError(
            "attestation TEE", got="one of SNP and one of TDX", expected="one at most"
        )
    if snp:
        return snp_item(snp)
    return tdx_item(tdx) if tdx else None
