"""The report's layout: what is read, and what is refused before any cryptography."""

from __future__ import annotations

import pytest

from kbs.core.errors import MalformedError
from kbs.evidence.snp.abi import parse_report, serialize_report
from kbs.evidence.snp.products import (
    ProductLine,
    parse_tcb,
    product_of_cpuid,
    product_of_name,
)
from kbs.evidence.snp.report import CPUID, Mitigations, SigningKey
from tests.fakes.amd import FIELDS, VCEK, FakeAmd, sign_report

MILAN = FakeAmd()
TURIN = FakeAmd(product="Turin")


@pytest.mark.parametrize("product", ["Milan", "Genoa", "Turin"])
@pytest.mark.parametrize("version", [2, 3, 5])
def test_what_parses_serializes_to_the_same_bytes(product: str, version: int) -> None:
    raw = FakeAmd(product=product).report(version=version, report_data=b"bound")
    report = parse_report(raw)
    assert report.version == version
    assert serialize_report(report) == raw
    assert report.product == (product if version > 2 else None)
    assert (report.cpuid is None) == (version < 3)
    assert (report.mitigations is None) == (version < 5)


def test_every_field_lies_where_the_specification_says() -> None:
    texts = {
        name: bytes([index + 1]) * size
        for index, (name, (_, size)) in enumerate(FIELDS.items())
        if size in (16, 32, 48, 64) and not name.startswith("reserved")
    }
    numbers: dict[str, int | bytes] = {
        "guest_svn": 0x01020304,
        "policy": 0x3FF0102,
        "vmpl": 3,
        "platform_info": 0xFF,
        "key_info": 1 << 2 | 1 << 1 | 1,
        "current_tcb": bytes((1, 2, 0, 0, 0, 0, 3, 4)),
        "reported_tcb": bytes((5, 6, 0, 0, 0, 0, 7, 8)),
        "committed_tcb": bytes((9, 10, 0, 0, 0, 0, 11, 12)),
        "launch_tcb": bytes((13, 14, 0, 0, 0, 0, 15, 16)),
        "current_build": bytes((7, 8, 9)),
        "committed_build": bytes((4, 5, 6)),
        "launch_mit_vector": 0x0102030405060708,
        "current_mit_vector": 0x1112131415161718,
    }
    body = MILAN.report_body(numbers | texts, version=5, signing_key=VCEK)
    report = parse_report(sign_report(body, MILAN.key()))
    for name, value in texts.items():
        assert getattr(report, name) == value
    assert report.guest_svn == 0x01020304
    assert report.policy == 0x3FF0102
    assert report.vmpl == 3
    assert report.platform_info == 0xFF
    assert report.signing_key is SigningKey.VLEK
    assert report.author_key_en
    assert report.mask_chip_key
    assert report.cpuid == CPUID(family=0x19, model=0x01, stepping=1)
    assert report.current_version == (9, 8, 7)
    assert report.committed_version == (6, 5, 4)
    assert report.mitigations == Mitigations(
        launch=0x0102030405060708, current=0x1112131415161718
    )
    tcbs = report.tcbs(ProductLine.MILAN)
    assert tcbs["current"] == {"bootloader": 1, "tee": 2, "snp": 3, "microcode": 4}
    assert tcbs["reported"]["snp"] == 7
    assert tcbs["committed"]["snp"] == 11
    assert tcbs["launch"]["microcode"] == 16


REFUSED: dict[str, tuple[dict[str, int | bytes], str]] = {
    "version 0": ({"version": 0}, "VERSION"),
    "version 4": ({"version": 4}, "VERSION"),
    "version 6": ({"version": 6}, "VERSION"),
    "policy bit 17 clear": ({"policy": 0x10000}, "bit 17"),
    "policy bit 26 set": ({"policy": 1 << 26 | 0x30000}, "POLICY"),
    "policy bit 63 set": ({"policy": 1 << 63 | 0x30000}, "POLICY"),
    "platform bit 8 set": ({"platform_info": 1 << 8}, "PLATFORM_INFO"),
    "vmpl 4": ({"vmpl": 4}, "VMPL"),
    "a report that the host asked for": ({"vmpl": 0xFFFFFFFF}, "hypervisor"),
    "algorithm 0": ({"signature_algo": 0}, "SIGNATURE_ALGO"),
    "algorithm 2": ({"signature_algo": 2}, "SIGNATURE_ALGO"),
    "signing key 2": ({"key_info": 2 << 2}, "SIGNING_KEY"),
    "signing key 6": ({"key_info": 6 << 2}, "SIGNING_KEY"),
    "key information bit 5": ({"key_info": 1 << 5}, "SIGNING_KEY"),
    "key information bit 31": ({"key_info": 1 << 31}, "SIGNING_KEY"),
    "reserved 4Ch": ({"reserved_4c": 1}, "4Ch"),
    "reserved 18Bh": ({"reserved_18b": 1}, "18Bh"),
    "reserved 19Fh": ({"reserved_18b": 1 << 160}, "18Bh"),
    "reserved 1EBh": ({"reserved_1eb": 1}, "CURRENT_MAJOR"),
    "reserved 1EFh": ({"reserved_1ef": 1}, "COMMITTED_MAJOR"),
    "mitigations before version 5": ({"launch_mit_vector": 1}, "1F8h"),
    "reported TCB byte 2": ({"reported_tcb": b"\0\0\1"}, "REPORTED_TCB"),
    "current TCB byte 5": ({"current_tcb": b"\0\0\0\0\0\1"}, "CURRENT_TCB"),
    "committed TCB byte 3": ({"committed_tcb": b"\0\0\0\1"}, "COMMITTED_TCB"),
    "launch TCB byte 4": ({"launch_tcb": b"\0\0\0\0\1"}, "LAUNCH_TCB"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_the_specification_reserves_is_refused(case: str) -> None:
    changes, message = REFUSED[case]
    body = MILAN.report_body(changes, version=3, signing_key=VCEK)
    raw = sign_report(body, MILAN.key())
    with pytest.raises(MalformedError, match=message):
        parse_report(raw)


def test_reserved_bytes_differ_by_version_and_product() -> None:
    raw = MILAN.report(version=2, cpuid=b"\x19\x01\x01")
    with pytest.raises(MalformedError, match="188h"):
        parse_report(raw)
    with pytest.raises(MalformedError, match="208h"):
        parse_report(MILAN.report(version=5, reserved_208=1))
    with pytest.raises(MalformedError, match="REPORTED_TCB of a Turin part"):
        parse_report(TURIN.report(reported_tcb=b"\0\0\0\0\1"))
    # Version 2 does not say its product, so that its TCBs stay raw until a root does.
    raw = MILAN.report(version=2, reported_tcb=b"\0\0\1")
    assert parse_report(raw).reported_tcb == b"\0\0\1\0\0\0\0\0"


@pytest.mark.parametrize("offset", [0x2A0 + 48, 0x2E8 - 1, 0x2E8 + 48, 0x330, 0x49F])
def test_signature_padding_must_be_zero(offset: int) -> None:
    raw = bytearray(MILAN.report())
    raw[offset] ^= 1
    with pytest.raises(MalformedError, match="signature"):
        parse_report(bytes(raw))


@pytest.mark.parametrize("size", [0, 1, 793, 1183, 1185, 4096])
def test_other_lengths_are_refused(size: int) -> None:
    with pytest.raises(MalformedError, match=f"got {size} bytes, expected 1184"):
        parse_report(MILAN.report().ljust(size, b"\0")[:size])


@pytest.mark.parametrize(
    ("family", "model", "line"),
    [
        (0x19, 0x00, ProductLine.MILAN),
        (0x19, 0x01, ProductLine.MILAN),
        (0x19, 0x0F, ProductLine.MILAN),
        (0x19, 0x11, ProductLine.GENOA),
        (0x19, 0x1F, ProductLine.GENOA),
        (0x19, 0xA0, ProductLine.GENOA),
        (0x19, 0xAF, ProductLine.GENOA),
        (0x1A, 0x02, ProductLine.TURIN),
        (0x1A, 0x11, ProductLine.TURIN),
        (0x19, 0x20, None),
        (0x19, 0x9F, None),
        (0x19, 0xB0, None),
        (0x1A, 0x20, None),
        (0x17, 0x31, None),
        (0x00, 0x00, None),
    ],
)
def test_cpuid_names_the_product_line(
    family: int, model: int, line: ProductLine | None
) -> None:
    assert product_of_cpuid(family, model) is line


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("Milan", ProductLine.MILAN),
        ("Milan-B0", ProductLine.MILAN),
        ("Genoa", ProductLine.GENOA),
        ("Turin", ProductLine.TURIN),
        ("Rome", None),
        ("milan", None),
        ("", None),
    ],
)
def test_certificate_names_the_product_line(
    name: str, line: ProductLine | None
) -> None:
    assert product_of_name(name) is line


def test_turin_orders_its_tcb_otherwise() -> None:
    raw = bytes((1, 2, 3, 4, 0, 0, 0, 8))
    assert parse_tcb(raw, ProductLine.TURIN, "T") == {
        "fmc": 1,
        "bootloader": 2,
        "tee": 3,
        "snp": 4,
        "microcode": 8,
    }
