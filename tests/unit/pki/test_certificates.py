"""Certificates and revocation lists are read strictly, or not at all."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from kbs.core.errors import MalformedError
from kbs.pki.certificates import (
    MAX_CERTIFICATE_BYTES,
    MAX_CRL_BYTES,
    der,
    describe,
    load_certificates,
    load_crls,
    load_der_certificate,
    load_der_crl,
    spki_sha256,
    without_remarks,
)
from tests.fakes.amd import FakeAmd, pem
from tests.fakes.intel import FakeIntel

AMD = FakeAmd()
ARK = AMD.ark
ASK = AMD.ask
PEM = pem(ARK)
CRL = AMD.crl()
CRL_PEM = CRL.public_bytes(Encoding.PEM)
# RFC 5280, section 4.1.2.1: [0] EXPLICIT INTEGER 2 is version 3; there is no version 8.
UNKNOWN_VERSION = der(ARK).replace(
    bytes.fromhex("a003020102"), bytes.fromhex("a003020107"), 1
)


def test_der_and_pem_give_the_same_certificate() -> None:
    assert load_certificates(der(ARK), "x") == (ARK,)
    assert load_certificates(PEM.encode(), "x") == (ARK,)
    assert der(load_der_certificate(der(ARK), "x")) == der(ARK)


def test_pem_may_hold_several_and_blank_lines() -> None:
    text = f"\n{PEM}\r\n\n{pem(ASK)}\n"
    assert load_certificates(text.encode(), "x") == (ARK, ASK)
    crlf = PEM.replace("\n", "\r\n").encode()
    assert load_certificates(crlf, "x") == (ARK,)


def test_a_signature_has_no_second_spelling() -> None:
    """Where its last bits are 0, the count of those that mean nothing could be any."""
    intel = FakeIntel()
    certificates = (intel.make_pck() for _ in range(99))
    lists = (intel.crl() for _ in range(99))
    certificate = next(one for one in certificates if one.signature[-1] % 2 == 0)
    crl = next(one for one in lists if one.signature[-1] % 2 == 0)
    for one, load in ((certificate, load_der_certificate), (crl, load_der_crl)):
        changed = bytearray(der(one))
        changed[-len(one.signature) - 1] = 1
        with pytest.raises(MalformedError, match="broken octets"):
            load(bytes(changed), "x")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "DER"),
        (b"\x30\x03\x02\x01\x00", "DER"),
        (der(ARK) + b"\0", "DER"),
        (der(ARK)[:-1], "DER"),
        (der(CRL), "DER"),
        (UNKNOWN_VERSION, "not a valid X509 version"),
        (bytes(MAX_CERTIFICATE_BYTES + 1), "at most"),
        (PEM.encode() + b"note", "text outside"),
        (b"-----BEGIN note\n" + PEM.encode(), "text outside"),
        (b"-----BEGIN CERTIFICATE-----\n", "text outside"),
        (PEM.encode() + "ü".encode(), "not ASCII"),
        (PEM.replace("MII", "M I").encode(), "text outside"),
        (PEM.encode() + b"-----", "text outside"),
        (CRL_PEM, "expected CERTIFICATE"),
        (PEM.encode() * 3, "at most 2"),
        (b"-----BEGIN CERTIFICATE-----\nMII\n-----END CERTIFICATE-----\n", "base64"),
        (b"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n", "DER"),
        (b"-----BEGIN" + bytes(4 * MAX_CERTIFICATE_BYTES), "at most"),
    ],
)
def test_other_bytes_are_no_certificate(data: bytes, message: str) -> None:
    with pytest.raises(MalformedError, match=message):
        load_certificates(data, "file", most=2)


REMARK = b"# https://example.com/ca.cer\n# The maker's CA [.cer]:\n\n"


def test_files_of_vendors_have_remarks_above_their_blocks() -> None:
    data = REMARK + PEM.encode() + b"# Next:\r\n" + pem(ASK).encode()
    assert load_certificates(without_remarks(data), "x") == (ARK, ASK)
    assert load_certificates(without_remarks(der(ARK)), "x") == (ARK,)
    assert load_crls(without_remarks(REMARK + CRL_PEM), "x") == (CRL,)
    for load in (load_certificates, load_crls):
        with pytest.raises(MalformedError):
            load(REMARK + PEM.encode(), "x")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (PEM.encode() + b"note\n", "text outside"),
        (REMARK + b"-----BEGIN note\n" + PEM.encode(), "text outside"),
        (b"note " + PEM.encode(), "DER"),
        (REMARK, "DER"),
        (REMARK + PEM.replace("MII", "M I").encode(), "text outside"),
        (REMARK + CRL_PEM, "expected CERTIFICATE"),
        ("# Zürich\n".encode() + PEM.encode(), "DER"),
    ],
)
def test_remarks_hide_no_block_that_is_broken(data: bytes, message: str) -> None:
    with pytest.raises(MalformedError, match=message):
        load_certificates(without_remarks(data), "x")


@pytest.mark.vectors
def test_files_that_vendors_published_are_read(vectors: Path) -> None:
    data = (vectors / "vtpm-azure" / "azure-vtpm-intermediate-03.pem").read_bytes()
    (certificate,) = load_certificates(without_remarks(data), "x")
    assert describe(certificate.subject) == "Global Virtual TPM CA - 03"


@pytest.mark.vectors
def test_a_name_that_is_too_long_prints_no_warning(vectors: Path) -> None:
    """In a process of its own: here, the filters are those of the test runner."""
    path = vectors / "vtpm-gcp" / "tpm-ek-root-1.cer"
    program = (
        "import pathlib, sys, warnings; warnings.simplefilter('error')\n"
        "from kbs.pki.certificates import describe, load_certificates\n"
        "data = pathlib.Path(sys.argv[1]).read_bytes()\n"
        "(one,) = load_certificates(data, 'x')\n"
        "print(describe(one.subject)[:24])"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program, str(path)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert (ran.stdout, ran.stderr) == ("tpm_ek_v1_cloud_host_roo\n", "")


def test_der_and_pem_give_the_same_revocation_list() -> None:
    assert load_crls(der(CRL), "x") == (CRL,)
    assert load_crls(CRL_PEM, "x") == (CRL,)
    assert load_crls(CRL_PEM * 2, "x") == (CRL, CRL)


@pytest.mark.parametrize(
    ("load", "data", "message"),
    [
        (load_crls, PEM.encode(), "expected X509 CRL"),
        (load_crls, der(ARK), "CRL in DER"),
        (load_crls, b"-----BEGIN" + bytes(2 * MAX_CRL_BYTES), "at most"),
        (load_der_crl, der(CRL) + b"\0", "CRL in DER"),
        (load_der_crl, bytes(MAX_CRL_BYTES + 1), "at most"),
    ],
)
def test_other_bytes_are_no_revocation_list(
    load: Callable[[bytes, str], object], data: bytes, message: str
) -> None:
    with pytest.raises(MalformedError, match=message):
        load(data, "file")


def test_key_of_an_unknown_algorithm_has_no_digest() -> None:
    """A certificate may be in a pool although its key cannot be read."""
    # The object identifier of rsaEncryption, one digit changed.
    known = bytes.fromhex("06092a864886f70d010101")
    changed = der(ARK).replace(known, known[:-1] + b"\x70")
    certificate = load_der_certificate(changed, "x")
    with pytest.raises(MalformedError, match="public key"):
        spki_sha256(certificate)


def test_a_name_is_described_by_its_common_name() -> None:
    assert describe(ARK.subject) == "ARK-Milan"
    nameless = type(ARK.subject)([])
    assert describe(nameless) == ""
