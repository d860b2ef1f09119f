"""TPMS_ATTEST of a quote and TPMT_SIGNATURE: bytes to fields and back, no trust.

TPM 2.0 Library, Part 2 (revision 1.59): section 10.12 (attestation structures),
10.6 and 10.9 (PCR selections), 11.2 and 11.3 (signatures). What parses serializes
to the same bytes.
"""

from __future__ import annotations

from dataclasses import dataclass

from kbs.core.errors import MalformedError
from kbs.core.reader import Reader
from kbs.evidence.vtpm.algorithms import (
    Algorithm,
    parse_algorithm,
    parse_hash,
)

# Part 2, section 6.2: TPM_GENERATED_VALUE, which no other signed data starts with.
TPM_GENERATED = 0xFF544347
# Part 2, section 6.9: TPM_ST_ATTEST_QUOTE.
ATTEST_QUOTE = 0x8018
# PC Client Platform TPM Profile 1.05, section 4.6.1: PCRs 0 to 23.
PCR_COUNT = 24
# Part 2, section 10.5.3: a name is an algorithm and the longest digest.
MAX_NAME = 66
# Part 2, section 10.4.3: TPM2B_DATA holds at most a TPMT_HA.
MAX_DATA = 66
MAX_DIGEST = 64
MAX_MESSAGE = 1024
# Part 2, section 11.2.4.5: the largest RSA key we accept has 4096 bits.
MAX_RSA_BYTES = 512
MAX_ECC_BYTES = 48
MAX_SIGNATURE = 1024
# Part 2, section 10.9.7: TPML_PCR_SELECTION has at most one entry a bank.
MAX_SELECTIONS = 16

_RSA_SIGNATURES = frozenset({Algorithm.RSASSA, Algorithm.RSAPSS})
SIGNATURE_SCHEMES = _RSA_SIGNATURES | {Algorithm.ECDSA}


@dataclass(frozen=True, slots=True)
class PcrSelection:
    """TPMS_PCR_SELECTION: PCRs of one bank, ascending; `octets` is sizeofSelect."""

    bank: Algorithm
    pcrs: tuple[int, ...]
    octets: int = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Attest:
    """TPMS_ATTEST of type quote."""

    qualified_signer: bytes
    extra_data: bytes
    clock: int
    reset_count: int
    restart_count: int
    safe: bool
    firmware_version: int
    pcr_select: tuple[PcrSelection, ...]
    pcr_digest: bytes

    @property
    def selected(self) -> frozenset[tuple[Algorithm, int]]:
        """Every bank and PCR that the quote covers."""
        return frozenset(
            (selection.bank, pcr)
            for selection in self.pcr_select
            for pcr in selection.pcrs
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """TPMT_SIGNATURE; `values` is the one RSA signature, or ECDSA's r and s."""

    scheme: Algorithm
    hash: Algorithm
    values: tuple[bytes, ...]


def parse_attest(data: bytes) -> Attest:
    """Read a TPMS_ATTEST that must be a quote.

    Raises:
        MalformedError: wrong magic or type, any bad field, or bytes left over.
    """
    if len(data) > MAX_MESSAGE:
        raise MalformedError(
            "quote message", got=f"{len(data)} bytes", expected=f"at most {MAX_MESSAGE}"
        )
    reader = Reader(data, "quote")
    _expect(reader, 4, "magic", TPM_GENERATED)
    _expect(reader, 2, "type", ATTEST_QUOTE)
    attest = Attest(
        qualified_signer=reader.sized(2, "qualifiedSigner", limit=MAX_NAME),
        extra_data=reader.sized(2, "extraData", limit=MAX_DATA),
        clock=reader.big(8, "clockInfo.clock"),
        reset_count=reader.big(4, "clockInfo.resetCount"),
        restart_count=reader.big(4, "clockInfo.restartCount"),
        safe=_yes_no(reader, "clockInfo.safe"),
        firmware_version=reader.big(8, "firmwareVersion"),
        pcr_select=parse_selections(reader),
        pcr_digest=reader.sized(2, "pcrDigest", limit=MAX_DIGEST),
    )
    reader.end()
    return attest


def serialize_attest(attest: Attest) -> bytes:
    """Write a TPMS_ATTEST."""
    return b"".join(
        (
            TPM_GENERATED.to_bytes(4, "big"),
            ATTEST_QUOTE.to_bytes(2, "big"),
            sized(attest.qualified_signer),
            sized(attest.extra_data),
            attest.clock.to_bytes(8, "big"),
            attest.reset_count.to_bytes(4, "big"),
            attest.restart_count.to_bytes(4, "big"),
            bytes([attest.safe]),
            attest.firmware_version.to_bytes(8, "big"),
            serialize_selections(attest.pcr_select),
            sized(attest.pcr_digest),
        )
    )


def parse_selections(reader: Reader) -> tuple[PcrSelection, ...]:
    """Read a TPML_PCR_SELECTION.

    Raises:
        MalformedError: too many entries, one bank twice, a PCR above 23.
    """
    count = reader.big(4, "pcrSelect count")
    if count > MAX_SELECTIONS:
        raise MalformedError(
            "quote pcrSelect count",
            got=str(count),
            expected=f"at most {MAX_SELECTIONS}",
        )
    selections = tuple(_selection(reader) for _ in range(count))
    require_distinct_banks(selections)
    return selections


def require_distinct_banks(selections: tuple[PcrSelection, ...]) -> None:
    """Require that no bank is selected twice.

    Raises:
        MalformedError: one is.
    """
    banks = [selection.bank for selection in selections]
    for bank in banks:
        if banks.count(bank) > 1:
            raise MalformedError(
                "pcrSelect", got=f"bank {bank.name} twice", expected="each bank once"
            )


def selection_of_bits(bank: Algorithm, select: bytes) -> PcrSelection:
    """Turn pcrSelect's bit field into PCR numbers (bit n of octet m is PCR 8m+n).

    Raises:
        MalformedError: a PCR above 23 is selected.
    """
    bits = int.from_bytes(select, "little")
    if bits >> PCR_COUNT:
        raise MalformedError(
            "pcrSelect", got=f"bits {select.hex()}", expected="PCRs 0 to 23 only"
        )
    pcrs = tuple(pcr for pcr in range(PCR_COUNT) if bits >> pcr & 1)
    return PcrSelection(bank, pcrs, len(select))


def serialize_selections(selections: tuple[PcrSelection, ...]) -> bytes:
    """Write a TPML_PCR_SELECTION."""
    parts = [len(selections).to_bytes(4, "big")]
    for selection in selections:
        bits = sum(1 << pcr for pcr in selection.pcrs)
        parts.append(selection.bank.to_bytes(2, "big"))
        parts.append(bytes([selection.octets]))
        parts.append(bits.to_bytes(selection.octets, "little"))
    return b"".join(parts)


def parse_signature(data: bytes) -> Signature:
    """Read a TPMT_SIGNATURE of scheme RSASSA, RSAPSS or ECDSA.

    Raises:
        MalformedError: another scheme, an oversized value, or bytes left over.
    """
    reader = Reader(data, "quote signature")
    scheme = parse_algorithm(
        reader.big(2, "sigAlg"), "quote signature sigAlg", SIGNATURE_SCHEMES
    )
    hash_algorithm = parse_hash(reader.big(2, "hash"), "quote signature hash")
    if scheme in _RSA_SIGNATURES:
        values: tuple[bytes, ...] = (reader.sized(2, "sig", limit=MAX_RSA_BYTES),)
    else:
        values = (
            reader.sized(2, "signatureR", limit=MAX_ECC_BYTES),
            reader.sized(2, "signatureS", limit=MAX_ECC_BYTES),
        )
    reader.end()
    return Signature(scheme=scheme, hash=hash_algorithm, values=values)


def serialize_signature(signature: Signature) -> bytes:
    """Write a TPMT_SIGNATURE."""
    head = signature.scheme.to_bytes(2, "big") + signature.hash.to_bytes(2, "big")
    return head + b"".join(sized(value) for value in signature.values)


def sized(data: bytes) -> bytes:
    """Write a TPM2B: u16 size and the bytes."""
    return len(data).to_bytes(2, "big") + data


def _selection(reader: Reader) -> PcrSelection:
    bank = parse_hash(reader.big(2, "pcrSelect hash"), "quote pcrSelect hash")
    octets = reader.big(1, "sizeofSelect")
    # Part 2, section 10.6.2: three octets on a PC Client, four at most anywhere.
    if octets not in (3, 4):
        raise MalformedError("quote sizeofSelect", got=str(octets), expected="3 or 4")
    return selection_of_bits(bank, reader.take(octets, "pcrSelect"))


def _expect(reader: Reader, size: int, field: str, expected: int) -> None:
    value = reader.big(size, field)
    if value != expected:
        raise MalformedError(
            f"quote {field}", got=f"{value:0{size * 2}x}", expected=f"{expected:x}"
        )


def _yes_no(reader: Reader, field: str) -> bool:
    value = reader.big(1, field)
    if value > 1:
        raise MalformedError(f"quote {field}", got=str(value), expected="0 or 1")
    return bool(value)
