"""The layout of quotes and PCK certificates: what is read, and what is refused."""

from __future__ import annotations

from typing import Any

import dcap_qvl
import pytest

from kbs.core.errors import MalformedError
from kbs.evidence.dcap.pck import is_pck, parse_pck
from kbs.evidence.dcap.quote import (
    MAX_QUOTE_BYTES,
    looks_like_quote,
    parse_quote,
    serialize_quote,
    tee_type_of,
)
from kbs.evidence.dcap.reports import EnclaveReport, TdReport
from kbs.pki import der
from tests.fakes.intel import PLATFORM_SVNS, FakeIntel, pair, sgx_extension, tlv

INTEL = FakeIntel()
ARC = "1.2.840.113741.1.13.1"


@pytest.mark.parametrize(
    ("shape", "signed_bytes"),
    [
        ({"version": 4}, 632),
        ({"version": 5}, 638),
        ({"version": 5, "version_15": True}, 702),
        ({"version": 5, "extended": True}, 939),
        ({"tee": "sgx", "version": 3}, 432),
        ({"tee": "sgx", "version": 4}, 432),
        ({"tee": "sgx", "version": 5}, 438),
    ],
)
@pytest.mark.parametrize("padding", [b"", b"\0" * 70, b"rest"])
def test_what_parses_serializes_to_the_same_bytes(
    shape: dict[str, Any], signed_bytes: int, padding: bytes
) -> None:
    raw = INTEL.quote(**shape, padding=padding, report_data=b"bound")
    assert looks_like_quote(raw)
    assert tee_type_of(raw) == (0 if shape.get("tee") == "sgx" else 0x81)
    quote = parse_quote(raw)
    assert quote.header.version == shape["version"]
    assert quote.signed_bytes == signed_bytes
    assert quote.padding == padding
    assert quote.report.report_data == b"bound".ljust(64, b"\0")
    assert serialize_quote(quote) == raw


def test_the_fields_of_a_td_report_stand_where_they_should() -> None:
    sizes = {
        "tee_tcb_svn": 16,
        "mr_seam": 48,
        "mr_signer_seam": 48,
        "seam_attributes": 8,
        "td_attributes": 8,
        "xfam": 8,
        "mr_td": 48,
        "mr_config_id": 48,
        "mr_owner": 48,
        "mr_owner_config": 48,
        "rtmr0": 48,
        "rtmr1": 48,
        "rtmr2": 48,
        "rtmr3": 48,
        "report_data": 64,
        "tee_tcb_svn2": 16,
        "mr_service_td": 48,
        "vmid": 1,
        "td_id": 32,
        "dev_info": 48,
        "init_service_td_hash": 48,
        "init_service_td_attributes": 8,
        "init_cpu_svn": 16,
        "init_tee_tcb_svn": 16,
        "init_tee_fmspc": 12,
        "cur_service_td_hash": 48,
        "cur_service_td_attributes": 8,
    }
    values: dict[str, Any] = {
        name: bytes([i]) * size for i, (name, size) in enumerate(sizes.items(), 1)
    }
    raw = INTEL.quote(version=5, extended=True, **values)
    report = parse_quote(raw).report
    assert isinstance(report, TdReport)
    assert {name: getattr(report, name) for name in sizes} == values
    # Another implementation reads the same there.
    theirs = dcap_qvl.parse_quote(raw).report
    assert theirs.vmid == values.pop("vmid")[0]
    names = {f"rtmr{number}": f"rt_mr{number}" for number in range(4)}
    assert {name: getattr(theirs, names.get(name, name)) for name in values} == values


def test_the_fields_of_an_enclave_report_stand_where_they_should() -> None:
    sizes = {
        "cpu_svn": 16,
        "misc_select": 4,
        "isv_ext_prod_id": 16,
        "attributes": 16,
        "mr_enclave": 32,
        "mr_signer": 32,
        "config_id": 64,
        "isv_family_id": 16,
        "report_data": 64,
    }
    values: dict[str, Any] = {
        name: bytes([i]) * size for i, (name, size) in enumerate(sizes.items(), 1)
    }
    values |= {"isv_prod_id": 0x1234, "isv_svn": 0x5678, "config_svn": 0x9ABC}
    report = parse_quote(INTEL.quote(tee="sgx", version=3, **values)).report
    assert isinstance(report, EnclaveReport)
    assert {name: getattr(report, name) for name in values} == values


def at(offset: int, data: bytes, **shape: Any) -> bytes:
    raw = bytearray(INTEL.quote(**shape))
    raw[offset : offset + len(data)] = data
    return bytes(raw)


BAD_QUOTES = {
    "nothing": b"",
    "version 2": at(0, b"\x02"),
    "version 6": at(0, b"\x06"),
    "ECDSA P-384": at(2, b"\x03"),
    "an unknown TEE": at(4, b"\x82"),
    "a TD in version 3": at(0, b"\x03"),
    "another QE vendor": at(12, b"\0"),
    "body type 2 with the size of 3": at(50, b"\x88\x02", version=5),
    "body type 3 with the size of 2": at(48, b"\x03", version=5),
    "body type 1 for a TD": at(48, b"\x01\0\x80\x01\0\0", version=5),
    "body type 4 with the size of 3": at(48, b"\x04\0\x88\x02", version=5),
    "body type 5": at(48, b"\x05", version=5),
    "more signature data than bytes": at(632, b"\xff\xff"),
    "less signature data than fields": at(632, b"\x10\0\0\0"),
    "one byte more of signature data": at(
        632, (len(INTEL.quote()) - 635).to_bytes(4, "little"), padding=b"\0"
    ),
    "no QE report inside": at(636 + 128, b"\x05"),
    "reserved bytes of the QE report": at(636 + 134 + 20, b"\x01"),
    "reserved bytes of an enclave": at(48 + 20, b"\x01", tee="sgx", version=3),
    "more than a quote can be": INTEL.quote(padding=bytes(MAX_QUOTE_BYTES)),
}


@pytest.mark.parametrize("name", BAD_QUOTES)
def test_what_is_no_quote_is_malformed(name: str) -> None:
    with pytest.raises(MalformedError):
        parse_quote(BAD_QUOTES[name])


def test_every_length_but_the_right_one_is_malformed() -> None:
    raw = INTEL.quote()
    for size in range(0, len(raw), 7):
        with pytest.raises(MalformedError):
            parse_quote(raw[:size])


# --- PCK certificates -----------------------------------------------------------------


def test_a_pck_is_read() -> None:
    extension = sgx_extension(
        ppid=b"\x01" * 16,
        svns=tuple(range(16)),
        pce_svn=0x1234,
        pce_id=b"\x05\x06",
        fmspc=b"\x07" * 6,
        piid=b"\x08" * 16,
        flags=(True, False, True),
    )
    pck = parse_pck(INTEL.make_pck(extension=extension))
    assert is_pck(pck.certificate)
    assert not is_pck(INTEL.pck_ca)
    assert pck.ppid == b"\x01" * 16
    assert pck.component_svns == tuple(range(16))
    assert pck.cpu_svn == bytes(range(16))
    assert pck.pce_svn == 0x1234
    assert pck.pce_id == b"\x05\x06"
    assert pck.fmspc == b"\x07" * 6
    assert pck.piid == b"\x08" * 16
    assert pck.platform == {
        "dynamic_platform": True,
        "cached_keys": False,
        "smt_enabled": True,
    }


def test_a_processors_pck_has_no_configuration() -> None:
    pck = parse_pck(INTEL.make_pck(extension=sgx_extension(piid=None, flags=())))
    assert (pck.piid, pck.platform) == (None, {})


def without(*oids: str) -> bytes:
    """The usual extension without these values, which stand for themselves."""
    content = der.element(sgx_extension(), der.SEQUENCE, "test")
    kept = b""
    for tag, value in der.elements(content, "test"):
        dotted = der.object_identifier(der.elements(value, "test")[0][1], "test")
        if dotted not in oids:
            kept += tlv(tag, value)
    return tlv(der.SEQUENCE, kept)


def also(*values: bytes) -> bytes:
    content = der.element(sgx_extension(), der.SEQUENCE, "test")
    return tlv(der.SEQUENCE, content + b"".join(values))


BAD_EXTENSIONS = {
    "no PPID": without(f"{ARC}.1"),
    "no TCB": without(f"{ARC}.2"),
    "no PCE id": without(f"{ARC}.3"),
    "no FMSPC": without(f"{ARC}.4"),
    "FMSPC twice": also(pair(f"{ARC}.4", tlv(4, bytes(6)))),
    "something that is no pair": also(tlv(0x30, tlv(5, b""))),
    "something that is no sequence": also(tlv(5, b"")),
    "FMSPC too short": sgx_extension(fmspc=bytes(5)),
    "PPID too long": sgx_extension(ppid=bytes(17)),
    "PIID too short": sgx_extension(piid=bytes(15)),
    "PIID of another type": tlv(
        der.SEQUENCE,
        der.element(without(f"{ARC}.6"), der.SEQUENCE, "test")
        + pair(f"{ARC}.6", tlv(0x0C, bytes(16))),
    ),
    "fifteen components": sgx_extension(svns=PLATFORM_SVNS[:15]),
    "bytes behind it": sgx_extension() + b"\0",
    "an SVN of two bytes": sgx_extension(pce_svn=0x10000),
}


@pytest.mark.parametrize("name", BAD_EXTENSIONS)
def test_other_extensions_are_malformed(name: str) -> None:
    with pytest.raises(MalformedError):
        parse_pck(INTEL.make_pck(extension=BAD_EXTENSIONS[name]))


def test_a_certificate_without_the_extension_is_no_pck() -> None:
    with pytest.raises(MalformedError, match="no extension"):
        parse_pck(INTEL.pck_ca)
