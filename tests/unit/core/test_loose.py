"""Bytes are read from text in the spellings that tools have, and from nothing else."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbs.core.loose import octets_in

DATA = bytes(range(256)) + b"\xfb\xff"
HEX = DATA.hex()
B64 = base64.b64encode(DATA).decode()
B64U = base64.urlsafe_b64encode(DATA).decode()
SPELLINGS = {
    "hex": HEX,
    "upper case": HEX.upper(),
    "0x": f"0x{HEX}",
    "lines of hex": "\n".join(HEX[at : at + 60] for at in range(0, len(HEX), 60)),
    "base64": B64,
    "without padding": B64.rstrip("="),
    "lines of base64": base64.encodebytes(DATA).decode(),
    "base64url": B64U,
    "base64url without padding": f" {B64U.rstrip('=')}\r\n",
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_every_spelling_is_the_same_bytes(name: str) -> None:
    assert octets_in(SPELLINGS[name]) == DATA
    assert octets_in(SPELLINGS[name].encode()) == DATA


@pytest.mark.parametrize(
    "text", ["", " ", "A", "a.b.c", "{}", "AAAA====", "AA=A", "ä", b"\xff\xfe"]
)
def test_what_is_neither_is_nothing(text: str | bytes) -> None:
    assert octets_in(text) is None


@given(st.binary(max_size=60) | st.text(max_size=60))
def test_any_text_is_bytes_or_nothing(text: bytes | str) -> None:
    assert isinstance(octets_in(text), bytes | None)
