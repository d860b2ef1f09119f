"""PCR values beside a quote: the bundle's `pcrs` member, tpm2-tools files, the digest.

The digest is TPM2_Quote's (TPM 2.0 Library, Part 3, section 18.4): the hash of the
signing scheme over the selected PCRs, banks in the selection's order, PCRs ascending.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from kbs.core.encode import parse_hex, parse_json, require_object
from kbs.core.errors import MalformedError
from kbs.core.reader import Reader
from kbs.evidence.vtpm.abi import (
    MAX_DIGEST,
    MAX_SELECTIONS,
    PCR_COUNT,
    Attest,
    PcrSelection,
    require_distinct_banks,
    selection_of_bits,
)
from kbs.evidence.vtpm.algorithms import (
    DIGEST_SIZES,
    SIGNATURE_HASHES,
    Algorithm,
    bank_name,
    digest,
    parse_bank,
    parse_hash,
)

PcrValues = Mapping[tuple[Algorithm, int], bytes]
"""The value of each PCR that was given, by bank and number."""

MAX_PCR_FILE = 64 * 1024

# TSS 2.0 Overview, `tss2_tpm2_types.h`: the C structures that tpm2-tools writes as
# they lie in memory, little-endian: TPML_PCR_SELECTION has 16 entries of 8 bytes
# (u16 hash, u8 size, 4 octets, 1 of padding), TPML_DIGEST 8 of 66 bytes.
_FILE_SELECTIONS = 16
_FILE_SELECT_OCTETS = 4
_FILE_DIGESTS = 8

_NUMBERS = {str(pcr): pcr for pcr in range(PCR_COUNT)}


def parse_pcrs(value: object) -> PcrValues:
    """Read a bundle's member `{"sha256": {"0": "<hex>", …}, …}`.

    Raises:
        MalformedError: an unknown bank, a number that is no PCR, a wrong size.
    """
    values: dict[tuple[Algorithm, int], bytes] = {}
    for name, members in require_object(value, "pcrs").items():
        bank = parse_bank(name, "pcrs bank")
        for number, text in require_object(members, f"pcrs {name}").items():
            if number not in _NUMBERS:
                raise MalformedError(
                    f"pcrs {name}", got=repr(number)[:40], expected="PCR 0 to 23"
                )
            values[bank, _NUMBERS[number]] = parse_hex(
                text, f"pcrs {name} {number}", size=DIGEST_SIZES[bank]
            )
    return values


def pcrs_to_json(values: PcrValues) -> dict[str, dict[str, str]]:
    """Write the bundle's member."""
    document: dict[str, dict[str, str]] = {}
    for (bank, pcr), value in sorted(values.items()):
        document.setdefault(bank_name(bank), {})[str(pcr)] = value.hex()
    return document


def parse_pcr_file(data: bytes) -> PcrValues:
    """Read PCR values from a file: JSON as in a bundle, or what tpm2-tools writes.

    Raises:
        MalformedError: neither of the two.
    """
    if data[:1] == b"{":
        return parse_pcrs(parse_json(data, "PCR file", limit=MAX_PCR_FILE))
    return parse_tool_pcrs(data)


def parse_tool_pcrs(data: bytes) -> PcrValues:
    """Read the PCR file of `tpm2_quote --pcr` (serialized format of tpm2-tools).

    Raises:
        MalformedError: the file has another layout, or too few or many digests.
    """
    reader = Reader(data, "PCR file")
    count = reader.little(4, "selection count")
    _at_most(count, MAX_SELECTIONS, "PCR file selection count")
    entries = [_file_selection(reader, used=i < count) for i in range(_FILE_SELECTIONS)]
    selections = tuple(entry for entry in entries if entry is not None)
    require_distinct_banks(selections)
    lists = reader.little(4, "digest list count")
    _at_most(lists, MAX_SELECTIONS * PCR_COUNT, "PCR file digest list count")
    digests = [value for _ in range(lists) for value in _file_digests(reader)]
    reader.end()
    wanted = [(entry.bank, pcr) for entry in selections for pcr in entry.pcrs]
    if [len(value) for value in digests] != [DIGEST_SIZES[bank] for bank, _ in wanted]:
        raise MalformedError(
            "PCR file digests",
            got=f"{len(digests)} digests",
            expected=f"one of the bank's size for each of {len(wanted)} PCRs",
        )
    return dict(zip(wanted, digests, strict=True))


def pcr_digest(
    attest: Attest, values: PcrValues, hash_algorithm: Algorithm
) -> bytes | None:
    """Return the digest over the selected PCRs; None when a value is missing."""
    wanted = list(_in_order(attest))
    if hash_algorithm not in SIGNATURE_HASHES or any(
        entry not in values for entry in wanted
    ):
        return None
    return digest(
        SIGNATURE_HASHES[hash_algorithm], *(values[entry] for entry in wanted)
    )


def pcr_label(entry: tuple[Algorithm, int]) -> str:
    """Return how people write a PCR of a bank: `sha256:15`."""
    return f"{bank_name(entry[0])}:{entry[1]}"


def _in_order(attest: Attest) -> Iterator[tuple[Algorithm, int]]:
    for selection in attest.pcr_select:
        for pcr in selection.pcrs:
            yield selection.bank, pcr


def _file_selection(reader: Reader, *, used: bool) -> PcrSelection | None:
    value = reader.little(2, "selection hash")
    octets = reader.little(1, "selection size")
    select = reader.take(_FILE_SELECT_OCTETS, "selection bits")
    reader.take(1, "selection padding")
    if not used:
        return None
    _at_most(octets, _FILE_SELECT_OCTETS, "PCR file selection size")
    bank = parse_hash(value, "PCR file selection hash")
    return selection_of_bits(bank, select[:octets])


def _file_digests(reader: Reader) -> list[bytes]:
    count = reader.little(4, "digest count")
    _at_most(count, _FILE_DIGESTS, "PCR file digest count")
    digests = []
    for index in range(_FILE_DIGESTS):
        size = reader.little(2, "digest size")
        buffer = reader.take(MAX_DIGEST, "digest")
        if index < count:
            _at_most(size, MAX_DIGEST, "PCR file digest size")
            digests.append(buffer[:size])
    return digests


def _at_most(value: int, limit: int, what: str) -> None:
    if value > limit:
        raise MalformedError(what, got=str(value), expected=f"at most {limit}")
