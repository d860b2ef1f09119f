"""TPMS_ATTEST and TPMT_SIGNATURE: strict, and written back byte for byte."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kbs.core.errors import MalformedError
from kbs.evidence.vtpm.abi import (
    Attest,
    PcrSelection,
    parse_attest,
    parse_signature,
    serialize_attest,
    serialize_signature,
)
from kbs.evidence.vtpm.algorithms import Algorithm

ATTEST = Attest(
    qualified_signer=bytes.fromhex("000b") + bytes(32),
    extra_data=b"nonce",
    clock=1,
    reset_count=2,
    restart_count=3,
    safe=True,
    firmware_version=4,
    pcr_select=(PcrSelection(Algorithm.SHA256, (0, 7, 15)),),
    pcr_digest=bytes(32),
)
GOOD = serialize_attest(ATTEST)
# Offsets: magic 4, type 2, qualifiedSigner 2 + 34, extraData 2 + 5, clockInfo 17.
SAFE = 4 + 2 + 36 + 7 + 16
SELECT = SAFE + 1 + 8


def patched(offset: int, data: bytes) -> bytes:
    return GOOD[:offset] + data + GOOD[offset + len(data) :]


def test_fields_are_read_where_the_specification_puts_them() -> None:
    assert parse_attest(GOOD) == ATTEST
    assert parse_attest(GOOD).selected == {
        (Algorithm.SHA256, 0),
        (Algorithm.SHA256, 7),
        (Algorithm.SHA256, 15),
    }


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (patched(0, b"\xfe"), "quote magic"),
        (patched(4, b"\x80\x17"), "quote type"),
        (patched(6, b"\x00\x43"), "quote qualifiedSigner size"),
        (patched(42, b"\x00\x43"), "quote extraData size"),
        (patched(SAFE, b"\x02"), "quote clockInfo.safe"),
        (patched(SELECT, b"\x00\x00\x00\x11"), "quote pcrSelect count"),
        (patched(SELECT + 4, b"\x00\x01"), "quote pcrSelect hash"),
        (patched(SELECT + 6, b"\x02"), "quote sizeofSelect"),
        (patched(SELECT + 6, b"\x05"), "quote sizeofSelect"),
        (patched(SELECT + 10, b"\x00\x41"), "quote pcrDigest size"),
        (GOOD + b"\x00", "quote"),
        (GOOD[:-1], "quote pcrDigest at offset 86"),
        (b"", "quote magic at offset 0"),
        (GOOD + bytes(1024), "quote message"),
    ],
)
def test_a_single_wrong_field_is_named(data: bytes, what: str) -> None:
    with pytest.raises(MalformedError) as caught:
        parse_attest(data)
    assert caught.value.what == what


def test_one_bank_is_not_selected_twice() -> None:
    twice = replace(ATTEST, pcr_select=ATTEST.pcr_select * 2)
    with pytest.raises(MalformedError, match="bank SHA256 twice"):
        parse_attest(serialize_attest(twice))


def test_a_fourth_octet_of_select_is_kept_but_selects_nothing() -> None:
    wide = replace(ATTEST, pcr_select=(PcrSelection(Algorithm.SHA1, (23,), 4),))
    data = serialize_attest(wide)
    assert parse_attest(data) == wide
    beyond = data.replace(bytes.fromhex("0400008000"), bytes.fromhex("0400008001"))
    with pytest.raises(MalformedError, match="PCRs 0 to 23"):
        parse_attest(beyond)


RSA_SIGNATURE = bytes.fromhex("0014000b0003aabbcc")
ECC_SIGNATURE = bytes.fromhex("0018000c0001aa0002bbcc")


@pytest.mark.parametrize("data", [RSA_SIGNATURE, ECC_SIGNATURE])
def test_signatures_are_written_back(data: bytes) -> None:
    assert serialize_signature(parse_signature(data)) == data


def test_a_signature_knows_its_scheme_and_values() -> None:
    signature = parse_signature(ECC_SIGNATURE)
    assert signature.scheme is Algorithm.ECDSA
    assert signature.hash is Algorithm.SHA384
    assert signature.values == (b"\xaa", b"\xbb\xcc")


@pytest.mark.parametrize(
    ("data", "what"),
    [
        ("0010000b0003aabbcc", "quote signature sigAlg"),
        ("001a000b0003aabbcc", "quote signature sigAlg"),
        ("001400100003aabbcc", "quote signature hash"),
        ("0014000b0003aabbccdd", "quote signature"),
        ("0014000b0201", "quote signature sig size"),
        ("0018000b0031", "quote signature signatureR size"),
        ("0018000b0001aa", "quote signature signatureS size at offset 7"),
    ],
)
def test_other_signatures_are_refused(data: str, what: str) -> None:
    with pytest.raises(MalformedError) as caught:
        parse_signature(bytes.fromhex(data))
    assert caught.value.what == what
