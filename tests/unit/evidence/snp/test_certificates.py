"""The extensions of VCEK and VLEK, in strict DER."""

from __future__ import annotations

import pytest

from kbs.core.errors import MalformedError
from kbs.evidence.snp.certificates import is_endorsement_key, parse_endorsement_key
from kbs.evidence.snp.products import ProductLine
from kbs.evidence.snp.report import SigningKey
from kbs.pki.certificates import spki_sha256
from tests.fakes.amd import VCEK, FakeAmd, der_integer, der_text

ARC = "1.3.6.1.4.1.3704.1."
MILAN = FakeAmd()
TURIN = FakeAmd(product="Turin")
GOOD = MILAN.extensions() | {ARC + "4": MILAN.hwid}


def test_vcek_names_chip_and_tcb() -> None:
    certificate = MILAN.vcek()
    key = parse_endorsement_key(certificate)
    assert is_endorsement_key(certificate)
    assert key.kind is SigningKey.VCEK
    assert key.hwid == MILAN.hwid
    assert key.csp_id is None
    assert key.tcb == MILAN.tcb
    assert key.product_name == "Milan-B0"
    assert key.product is ProductLine.MILAN
    assert key.struct_version == 0
    assert key.subject == "SEV-VCEK"
    assert key.spki_sha256 == spki_sha256(certificate)


def test_vlek_names_the_provider() -> None:
    key = parse_endorsement_key(MILAN.vlek(csp_id="CN=somebody"))
    assert key.kind is SigningKey.VLEK
    assert key.hwid is None
    assert key.csp_id == "CN=somebody"


def test_turin_has_an_fmc_and_a_short_hardware_id() -> None:
    key = parse_endorsement_key(TURIN.vcek())
    assert key.tcb == TURIN.tcb
    assert key.tcb["fmc"] == 1
    assert key.hwid is not None
    assert len(key.hwid) == 8


@pytest.mark.parametrize("amd", [MILAN, TURIN])
def test_hardware_id_may_stand_in_an_octet_string(amd: FakeAmd) -> None:
    wrapped = bytes((0x04, len(amd.hwid))) + amd.hwid
    assert parse_endorsement_key(amd.vcek(hwid=wrapped)).hwid == amd.hwid


def test_authorities_are_no_endorsement_keys() -> None:
    assert not is_endorsement_key(MILAN.ask)
    assert not is_endorsement_key(MILAN.ark)


BAD: dict[str, tuple[dict[str, bytes | None], str]] = {
    "no struct version": ({"1": None}, "1.3.6.1.4.1.3704.1.1"),
    "no product name": ({"2": None}, "1.3.6.1.4.1.3704.1.2"),
    "no bootloader SPL": ({"3.1": None}, "3.1"),
    "no microcode SPL": ({"3.8": None}, "3.8"),
    "neither HWID nor CSP id": ({"4": None}, "neither"),
    "HWID and CSP id": ({"5": der_text("CN=x")}, "both"),
    "HWID of 63 bytes": ({"4": bytes(63)}, "HWID"),
    "HWID of 9 bytes in an OCTET STRING": ({"4": b"\x04\x09" + bytes(9)}, "9 bytes"),
    "empty HWID": ({"4": b""}, "HWID"),
    "SPL of 256": ({"3.8": b"\x02\x02\x01\x00"}, "microcode SPL"),
    "negative SPL": ({"3.8": b"\x02\x01\xdb"}, "microcode SPL"),
    "SPL with a leading zero": ({"3.8": b"\x02\x02\x00\x01"}, "microcode SPL"),
    "SPL without content": ({"3.8": b"\x02\x00"}, "microcode SPL"),
    "SPL with a long length": ({"3.8": b"\x02\x81\x01\x05"}, "microcode SPL"),
    "SPL with bytes after it": ({"3.8": b"\x02\x01\x05\x00"}, "microcode SPL"),
    "SPL cut short": ({"3.8": b"\x02"}, "microcode SPL"),
    "SPL of another type": ({"3.8": b"\x04\x01\x05"}, "microcode SPL"),
    "reserved SPL not zero": ({"3.5": der_integer(1)}, "reserves"),
    "FMC SPL of another type": ({"3.9": b"\x04\x01\x05"}, "FMC SPL"),
    "product name of another type": ({"2": b"\x0c\x05Milan"}, "product name"),
    "product name that is empty": ({"2": b"\x16\x00"}, "product name"),
    "product name with a high byte": ({"2": b"\x16\x01\xe9"}, "product name"),
    "product name with a control byte": ({"2": b"\x16\x01\x07"}, "product name"),
}


@pytest.mark.parametrize("case", BAD)
def test_other_extensions_are_malformed(case: str) -> None:
    changes, message = BAD[case]
    extensions: dict[str, bytes | None] = {**GOOD}
    extensions |= {ARC + oid: value for oid, value in changes.items()}
    kept = {oid: value for oid, value in extensions.items() if value is not None}
    with pytest.raises(MalformedError, match=message):
        parse_endorsement_key(MILAN.leaf(VCEK, kept))


def test_the_largest_spl_is_read() -> None:
    extensions = GOOD | {ARC + "3.8": der_integer(255)}
    key = parse_endorsement_key(MILAN.leaf(VCEK, extensions))
    assert key.tcb["microcode"] == 255
