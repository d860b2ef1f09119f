"""PCR values as JSON, as tpm2-tools write them, and their digest."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence

import pytest

from kbs.core.encode import canonical_json
from kbs.core.errors import MalformedError
from kbs.evidence.vtpm.abi import Attest, PcrSelection
from kbs.evidence.vtpm.algorithms import Algorithm, hash_of, parse_bank
from kbs.evidence.vtpm.pcrs import (
    parse_pcr_file,
    parse_pcrs,
    pcr_digest,
    pcr_label,
    pcrs_to_json,
)

ONE = bytes([1]) * 32
TWO = bytes([2]) * 32
LONG = bytes([3]) * 48


def tool_file(
    selections: Sequence[tuple[int, bytes]],
    lists: Sequence[Sequence[bytes]],
    *,
    count: int | None = None,
) -> bytes:
    data = struct.pack("<I", len(selections) if count is None else count)
    for algorithm, bits in selections:
        data += struct.pack("<HB4sx", algorithm, len(bits), bits)
    data += bytes(8) * (16 - len(selections))
    data += struct.pack("<I", len(lists))
    for digests in lists:
        data += struct.pack("<I", len(digests))
        for value in digests:
            data += struct.pack("<H64s", len(value), value)
        data += bytes(66) * (8 - len(digests))
    return data


def test_json_is_read_and_written_back() -> None:
    document = {
        "sha256": {"0": ONE.hex(), "15": TWO.hex()},
        "sha384": {"0": LONG.hex()},
    }
    values = parse_pcrs(document)
    assert values == {
        (Algorithm.SHA256, 0): ONE,
        (Algorithm.SHA256, 15): TWO,
        (Algorithm.SHA384, 0): LONG,
    }
    assert pcrs_to_json(values) == document
    assert parse_pcr_file(canonical_json(document)) == values


@pytest.mark.parametrize(
    ("document", "what"),
    [
        ([], "pcrs"),
        ({"sha255": {}}, "pcrs bank"),
        ({"SHA256": {}}, "pcrs bank"),
        ({"sha256": []}, "pcrs sha256"),
        ({"sha256": {"24": ONE.hex()}}, "pcrs sha256"),
        ({"sha256": {"00": ONE.hex()}}, "pcrs sha256"),
        ({"sha256": {"0": ONE.hex().replace("01", "AB")}}, "pcrs sha256 0"),
        ({"sha256": {"0": LONG.hex()}}, "pcrs sha256 0"),
        ({"sha256": {"0": 1}}, "pcrs sha256 0"),
    ],
)
def test_other_json_is_refused(document: object, what: str) -> None:
    with pytest.raises(MalformedError) as caught:
        parse_pcrs(document)
    assert caught.value.what == what


def test_the_file_of_tpm2_quote_is_read_across_its_lists() -> None:
    ten = [bytes([number]) * 32 for number in range(10)]
    data = tool_file(
        [(0x000B, b"\xff\x03\x00"), (0x000C, b"\x00\x00\x80")],
        [ten[:8], [*ten[8:], LONG]],
    )
    values = parse_pcr_file(data)
    assert values == {
        **{(Algorithm.SHA256, pcr): ten[pcr] for pcr in range(10)},
        (Algorithm.SHA384, 23): LONG,
    }


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (tool_file([(0x000B, b"\x01\x00\x00")], []), "digests"),
        (tool_file([(0x000B, b"\x01\x00\x00")], [[LONG]]), "digests"),
        (tool_file([(0x000B, b"\x01\x00\x00")], [[ONE, TWO]]), "digests"),
        (tool_file([(0x000B, b"\x01")] * 2, [[ONE, ONE]]), "twice"),
        (tool_file([], [], count=17), "selection count"),
        (tool_file([(0x0099, b"\x01")], [[ONE]]), "selection hash"),
        (tool_file([(0x000B, b"\0\0\0\1")], [[ONE]]), "PCRs 0 to 23"),
        (tool_file([], []) + b"\x00", "after its end"),
        (tool_file([], [])[:-1], "bytes left"),
        (tool_file([(0x000B, b"\x01")], [[ONE]])[:-66] + b"\0", "bytes left"),
        (tool_file([], [])[:-4] + b"\xff\xff\xff\xff", "digest list count"),
        (tool_file([], [])[:-4] + b"\1\0\0\0\x09\0\0\0" + bytes(528), "digest count"),
        (
            tool_file([], [])[:-4] + b"\1\0\0\0\1\0\0\0\x41\0" + bytes(526),
            "digest size",
        ),
        (b"\x01\0\0\0\x0b\0\x05" + bytes(600), "selection size"),
    ],
)
def test_other_files_are_refused(data: bytes, match: str) -> None:
    with pytest.raises(MalformedError, match=match):
        parse_pcr_file(data)


def attest_of(*selections: PcrSelection) -> Attest:
    return Attest(
        qualified_signer=b"",
        extra_data=b"",
        clock=0,
        reset_count=0,
        restart_count=0,
        safe=True,
        firmware_version=0,
        pcr_select=selections,
        pcr_digest=b"",
    )


def test_the_digest_takes_banks_in_order_and_pcrs_ascending() -> None:
    values = {
        (Algorithm.SHA256, 7): TWO,
        (Algorithm.SHA256, 0): ONE,
        (Algorithm.SHA384, 0): LONG,
    }
    attest = attest_of(
        PcrSelection(Algorithm.SHA384, (0,)), PcrSelection(Algorithm.SHA256, (0, 7))
    )
    expected = hashlib.sha256(LONG + ONE + TWO).digest()
    assert pcr_digest(attest, values, Algorithm.SHA256) == expected
    longer = hashlib.sha384(LONG + ONE + TWO).digest()
    assert pcr_digest(attest, values, Algorithm.SHA384) == longer


def test_no_digest_without_a_value_or_under_sha1() -> None:
    attest = attest_of(PcrSelection(Algorithm.SHA256, (0,)))
    assert pcr_digest(attest, {}, Algorithm.SHA256) is None
    assert pcr_digest(attest, {(Algorithm.SHA256, 0): ONE}, Algorithm.SHA1) is None


def test_labels_and_banks_have_one_spelling() -> None:
    assert pcr_label((Algorithm.SHA256, 15)) == "sha256:15"
    assert parse_bank("sha384", "bank") is Algorithm.SHA384
    assert hash_of(Algorithm.SM3_256) is None
    with pytest.raises(MalformedError):
        parse_bank(None, "bank")
