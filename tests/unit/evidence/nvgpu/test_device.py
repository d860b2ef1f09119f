"""Which certificate of a chain signs, and what firmware it was made for."""

from __future__ import annotations

import pytest
from cryptography import x509

from kbs.core.errors import MalformedError
from kbs.evidence.nvgpu.device import (
    Architecture,
    architecture_of,
    claims_to_be_whole,
    parse_fwids,
    select_leaf,
)
from tests.fakes.nvidia import Device, FakeNvidia, der_of, fwid_der, name

NVIDIA = FakeNvidia()
DICE = "2.23.133.5.4.1"
FWID = bytes(range(48))


def leaf(value: bytes, oid: str = DICE) -> x509.Certificate:
    extension = x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), value)
    return NVIDIA.certificate(
        "a leaf",
        "an issuer",
        subject=name("leaf"),
        issuer_name=name("issuer"),
        ca=False,
        extensions=(extension,),
    )


def test_fwids_are_found_at_any_depth() -> None:
    nested = fwid_der(FWID)
    for tag in (0x30, 0xA6, 0x30):
        nested = der_of(tag, der_of(0x02, b"\x01") + nested)
    assert parse_fwids(leaf(nested)) == (FWID,)
    assert parse_fwids(leaf(nested, DICE + ".4")) == (FWID,)


@pytest.mark.parametrize(
    "value",
    [
        fwid_der(bytes(48)),
        der_of(0x30, der_of(0x04, FWID)),
        # A digest of another algorithm, and one of another length.
        der_of(0x30, bytes.fromhex("0609608648016503040201") + der_of(0x04, FWID)),
        fwid_der(FWID[:32]),
        b"",
    ],
)
def test_other_values_are_no_fwids(value: bytes) -> None:
    assert parse_fwids(leaf(value)) == ()


def test_other_extensions_are_not_looked_at() -> None:
    assert parse_fwids(leaf(fwid_der(FWID), "2.23.133.5.4.9")) == ()
    assert parse_fwids(NVIDIA.device_chain(Device())[1]) == ()


@pytest.mark.parametrize(
    "value",
    [
        b"\x30",
        b"\x30\x05ab",
        b"\x1f\x01\x01",
        b"\x30\x80",
        b"\x30\x83\x00\x00\x01a",
        b"\x30\x81\x01a",
        b"\x30\x82\x00\x80" + bytes(128),
        b"".join(der_of(0x30, b"") for _ in range(1)) + b"\x30\x7f",
    ],
)
def test_what_is_no_der_is_malformed(value: bytes) -> None:
    with pytest.raises(MalformedError):
        parse_fwids(leaf(value))


def test_depth_has_an_end() -> None:
    nested = b""
    for _ in range(12):
        nested = der_of(0x30, nested)
    with pytest.raises(MalformedError, match="deeper"):
        parse_fwids(leaf(nested))


def test_the_leaf_is_what_issued_nothing() -> None:
    chain = NVIDIA.device_chain(Device())
    assert select_leaf(chain) == chain[0]
    assert select_leaf(tuple(reversed(chain))) == chain[0]
    assert select_leaf(chain[-1:]) == chain[-1]
    assert select_leaf(()) is None
    assert claims_to_be_whole(chain)
    assert not claims_to_be_whole(chain[:-1])


def test_of_certificates_in_a_circle_the_first_is_taken() -> None:
    """Each issued another one; whatever is taken, no chain comes of it."""
    a, b = name("a"), name("b")
    one = NVIDIA.certificate("a", "b", subject=a, issuer_name=b, ca=True)
    two = NVIDIA.certificate("b", "a", subject=b, issuer_name=a, ca=True)
    assert select_leaf((one, two)) == one


@pytest.mark.parametrize(
    ("chip", "architecture"),
    [
        ("GH100", Architecture.HOPPER),
        ("GB100", Architecture.BLACKWELL),
        ("GB202", Architecture.BLACKWELL),
        ("LS10", Architecture.LS10),
        ("LS20", None),
        ("AD102", None),
        ("", None),
    ],
)
def test_generations(chip: str, architecture: Architecture | None) -> None:
    assert architecture_of(chip) is architecture
