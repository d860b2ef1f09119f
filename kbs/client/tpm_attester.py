"""Evidence of a TPM: a quote, the PCR values that it covers, the AK, the event log.

TPM 2.0 Library, Part 1, section 22 (attestation keys) and Part 3, section 18.4
(TPM2_Quote). The AK is made on first use and kept at a persistent handle; a key that
is found there must be a restricted signing key, or nobody would believe its quotes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from kbs.client.attester import Collected, require_binding
from kbs.client.tpm import DEFAULT_TCTI, LoadedKey, Quote, Tpm, open_tpm
from kbs.client.tpm_keys import AK_TEMPLATE
from kbs.core.encode import b64
from kbs.core.errors import ConfigurationError, MalformedError, UnavailableError
from kbs.evidence.vtpm.abi import (
    PCR_COUNT,
    PcrSelection,
    parse_attest,
    parse_signature,
    require_distinct_banks,
)
from kbs.evidence.vtpm.algorithms import Algorithm, parse_bank
from kbs.evidence.vtpm.eventlog import MAX_LOG
from kbs.evidence.vtpm.item import core_of, load_ak
from kbs.evidence.vtpm.pcrs import PcrValues, pcr_digest, pcrs_to_json
from kbs.evidence.vtpm.public import ObjectAttributes, parse_public

DEFAULT_AK_HANDLE = 0x81010002

DEFAULT_SELECTION = (PcrSelection(Algorithm.SHA256, (*range(8), 15)),)
"""What boots (0–7) and the workload policy (15)."""

DEFAULT_EVENT_LOG = Path("/sys/kernel/security/tpm0/binary_bios_measurements")
"""Where Linux shows the boot log of its first TPM."""

# binding.md, "Where it goes": extraData is the first 32 bytes of the binding.
EXTRA_DATA_SIZE = 32

_QUOTE_ATTEMPTS = 5
_SELECTION = re.compile(r"([a-z0-9_]+):(\d{1,2}(?:,\d{1,2})*)", re.ASCII)
_REQUIRED = (
    ObjectAttributes.RESTRICTED,
    ObjectAttributes.SIGN,
    ObjectAttributes.FIXED_TPM,
    ObjectAttributes.FIXED_PARENT,
    ObjectAttributes.SENSITIVE_DATA_ORIGIN,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TpmAttester:
    """Quotes with the AK of one TPM.

    `ak_certificates` are DER and go along as they are; `event_log` is a file.
    """

    tcti: str = DEFAULT_TCTI
    selection: tuple[PcrSelection, ...] = DEFAULT_SELECTION
    ak_handle: int = DEFAULT_AK_HANDLE
    ak_certificates: tuple[bytes, ...] = ()
    event_log: Path | None = None

    @property
    def kind(self) -> str:
        """The `kind` of its item."""
        return "vtpm"

    def collect(self, binding: bytes) -> Collected:
        """Return a quote over the first 32 bytes of the binding.

        Raises:
            UnavailableError: the TPM does not answer, or its PCRs keep changing.
            ConfigurationError: the key at the handle cannot attest.
        """
        extra_data = require_binding(binding)[:EXTRA_DATA_SIZE]
        with open_tpm(self.tcti) as tpm, attestation_key(tpm, self.ak_handle) as ak:
            quote, values = quote_consistently(tpm, ak, extra_data, self.selection)
        item: dict[str, object] = {
            "kind": self.kind,
            "quote": {"message": b64(quote.message), "signature": b64(quote.signature)},
            "pcrs": pcrs_to_json(values),
            "ak": b64(ak.public),
        }
        if self.ak_certificates:
            item["ak_certificates"] = [b64(der) for der in self.ak_certificates]
        if self.event_log is not None:
            item["event_log"] = b64(read_event_log(self.event_log))
        return Collected(item, core_of(quote.message, load_ak(ak.public)))


@contextmanager
def attestation_key(tpm: Tpm, handle: int) -> Iterator[LoadedKey]:
    """Use the AK at a persistent handle; make it first if there is none.

    Raises:
        UnavailableError: the TPM refuses.
        ConfigurationError: another kind of key lies there.
    """
    if not tpm.has_handle(handle):
        with tpm.primary(AK_TEMPLATE) as made:
            tpm.persist(made, handle)
    with tpm.persistent(handle) as ak:
        _require_attestation_key(ak, handle)
        yield ak


def quote_consistently(
    tpm: Tpm, ak: LoadedKey, extra_data: bytes, selection: Sequence[PcrSelection]
) -> tuple[Quote, PcrValues]:
    """Return a quote and the very PCR values that it signed.

    Values are read beside the quote, so an extend in between makes them disagree;
    then both are taken again.

    Raises:
        UnavailableError: the PCRs changed every time.
    """
    for _ in range(_QUOTE_ATTEMPTS):
        values = tpm.read_pcrs(selection)
        quote = tpm.quote(ak, extra_data, selection)
        attest = parse_attest(quote.message)
        scheme = parse_signature(quote.signature)
        if pcr_digest(attest, values, scheme.hash) == attest.pcr_digest:
            return quote, values
    raise UnavailableError(
        "TPM quote",
        got=f"PCRs that changed during each of {_QUOTE_ATTEMPTS} quotes",
        expected="values that stay while they are signed",
    )


def parse_selection(text: str) -> tuple[PcrSelection, ...]:
    """Read what `--pcrs` takes: `sha256:0,1,2,15` or several banks joined by `+`.

    Raises:
        MalformedError: another form, a PCR above 23, or a bank twice.
    """
    selections = tuple(_parse_bank_selection(part) for part in text.split("+"))
    require_distinct_banks(selections)
    return selections


def read_event_log(path: Path) -> bytes:
    """Read a boot log; the kernel's files claim to be empty, so no size is asked for.

    Raises:
        UnavailableError: it cannot be read, or is oversized.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_LOG + 1)
    except OSError as exc:
        raise UnavailableError(
            f"event log {path}", got=exc.strerror, hint="name it by --event-log"
        ) from exc
    if len(data) > MAX_LOG:
        raise UnavailableError(
            f"event log {path}", got="more bytes", expected=f"at most {MAX_LOG}"
        )
    return data


def default_event_log(tcti: str) -> Path | None:
    """Return this machine's boot log if the TPM is this machine's and root asks."""
    if tcti.startswith("device:") and DEFAULT_EVENT_LOG.is_file():
        return DEFAULT_EVENT_LOG
    return None


def _parse_bank_selection(text: str) -> PcrSelection:
    match = _SELECTION.fullmatch(text)
    expected = "BANK:PCR,PCR… with PCRs 0 to 23, like sha256:0,1,2,15"
    if match is None:
        raise MalformedError("PCR selection", got=repr(text)[:80], expected=expected)
    bank = parse_bank(match.group(1), "PCR selection bank")
    pcrs = [int(number) for number in match.group(2).split(",")]
    if max(pcrs) >= PCR_COUNT or len(set(pcrs)) != len(pcrs):
        raise MalformedError("PCR selection", got=repr(text)[:80], expected=expected)
    return PcrSelection(bank, tuple(sorted(pcrs)))


def _require_attestation_key(ak: LoadedKey, handle: int) -> None:
    public = parse_public(ak.public)
    if public.has(*_REQUIRED) and not public.has(ObjectAttributes.DECRYPT):
        return
    raise ConfigurationError(
        f"TPM key at {handle:#010x}",
        got=f"attributes {public.attributes:08x}",
        expected="a restricted signing key that never leaves the TPM",
        hint="name a free handle or the AK's by --ak-handle",
    )
