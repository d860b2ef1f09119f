"""Strict DER: one spelling of each value, and nothing else."""

from __future__ import annotations

import pytest

from kbs.core.errors import MalformedError
from kbs.pki import der


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ()),
        ("0500", ((0x05, b""),)),
        ("0201050401aa", ((0x02, b"\x05"), (0x04, b"\xaa"))),
        ("048180" + "00" * 128, ((0x04, bytes(128)),)),
        ("0482" + "0100" + "00" * 256, ((0x04, bytes(256)),)),
        ("0483010000" + "00" * 65536, ((0x04, bytes(65536)),)),
    ],
)
def test_values_that_follow_each_other(
    text: str, expected: tuple[tuple[int, bytes], ...]
) -> None:
    assert der.elements(bytes.fromhex(text), "test") == expected


@pytest.mark.parametrize(
    "text",
    [
        "04",
        "0402aa",
        "0480aa0000",  # indefinite length
        "04817f" + "00" * 127,  # long form where the short one does
        "0482" + "0080" + "00" * 128,
        "048400000001aa",  # a length of four bytes
        "1f8101" + "00",  # a tag of several bytes
        "04ff",
    ],
)
def test_any_other_spelling_is_malformed(text: str) -> None:
    with pytest.raises(MalformedError):
        der.elements(bytes.fromhex(text), "test")


@pytest.mark.parametrize("text", ["", "0201050500", "040105"])
def test_one_value_is_one_value_of_its_tag(text: str) -> None:
    with pytest.raises(MalformedError):
        der.element(bytes.fromhex(text), der.INTEGER, "test")
    assert der.element(bytes.fromhex("020105"), der.INTEGER, "test") == b"\x05"


@pytest.mark.parametrize("text", ["", "0005", "ff", "0100", "00ff00"])
def test_numbers_out_of_range_or_long_are_malformed(text: str) -> None:
    with pytest.raises(MalformedError):
        der.unsigned(bytes.fromhex(text), "test", most=255)
    assert der.unsigned(b"\x00\xff", "test", most=255) == 255
    assert der.unsigned(b"\x00", "test", most=255) == 0


def test_booleans() -> None:
    assert der.boolean(b"\xff", "test") is True
    assert der.boolean(b"\x00", "test") is False
    for content in (b"", b"\x01", b"\xff\xff"):
        with pytest.raises(MalformedError):
            der.boolean(content, "test")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2a864886f84d010d01", "1.2.840.113741.1.13.1"),
        ("00", "0.0"),
        ("5504", "2.5.4"),
        ("8837", "2.999"),
    ],
)
def test_object_identifiers(text: str, expected: str) -> None:
    assert der.object_identifier(bytes.fromhex(text), "test") == expected


@pytest.mark.parametrize("text", ["", "80", "2a8001", "2a86"])
def test_object_identifiers_in_another_spelling_are_malformed(text: str) -> None:
    with pytest.raises(MalformedError):
        der.object_identifier(bytes.fromhex(text), "test")
