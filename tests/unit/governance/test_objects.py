"""Governed objects: each has one canonical content."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from kbs.core.encode import b64, canonical_json
from kbs.core.errors import MalformedError
from kbs.governance.attestation_key import parse_attestation_key, tpm_name
from kbs.governance.contents import (
    read_attestation_key,
    read_ca,
    read_deny,
    read_reference_set,
    read_release_policy,
)
from kbs.governance.objects import (
    measure_workload_policy,
    parse_ca,
    parse_deny,
    parse_reference_set,
)
from tests.fakes.governors import ed25519_key

NOW = datetime(2026, 11, 22, 8, 0, tzinfo=UTC)
NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "EK issuer")])
CERTIFICATE = (
    x509.CertificateBuilder()
    .subject_name(NAME)
    .issuer_name(NAME)
    .public_key(ed25519_key(1).public_key())
    .serial_number(1)
    .not_valid_before(NOW)
    .not_valid_after(NOW + timedelta(days=1))
    .sign(ed25519_key(1), None)
)
DER = CERTIFICATE.public_bytes(Encoding.DER)
PEM = CERTIFICATE.public_bytes(Encoding.PEM).decode()
# RFC 5280, section 4.1.2.1: [0] EXPLICIT INTEGER 2 is version 3; there is no version 8.
UNKNOWN_VERSION = DER.replace(
    bytes.fromhex("a003020102"), bytes.fromhex("a003020107"), 1
)


def public(algorithm: int = 0x000B) -> bytes:
    """A TPM2B_PUBLIC, as far as its name is concerned."""
    area = b"\x00\x23" + algorithm.to_bytes(2, "big") + bytes(range(40))
    return len(area).to_bytes(2, "big") + area


AREA = public()[2:]
AK: dict[str, Any] = {
    "group": "hosts",
    "name": "000b" + hashlib.sha256(AREA).hexdigest(),
    "public": b64(public()),
    "how": "activation",
    "ek": "ab" * 32,
}
MANUAL = {k: v for k, v in AK.items() if k != "ek"} | {"how": "manual"}
SET: dict[str, Any] = {"values": ["ab" * 48, 5], "expires": "2027-01-01T00:00:00Z"}
CA: dict[str, Any] = {"purpose": "ek", "certificate": b64(DER)}
DENY: dict[str, Any] = {"target": "chip", "value": "ab" * 64, "reason": "stolen"}


@pytest.mark.parametrize(
    ("read", "document"),
    [
        (read_reference_set, SET),
        (read_reference_set, {"values": ["x"]}),
        (read_attestation_key, AK),
        (read_attestation_key, MANUAL),
        (read_ca, CA),
        (read_deny, DENY),
        (read_deny, {"target": "all", "value": "", "reason": "incident 7"}),
        (read_deny, {"target": "policy", "value": "acme/chat", "reason": "r"}),
        (read_deny, {"target": "key", "value": "acme/model/chat@3", "reason": "r"}),
        (read_deny, {"target": "key", "value": "acme/model/chat", "reason": "r"}),
    ],
)
def test_a_content_is_read_in_its_canonical_spelling_only(
    read: Callable[[bytes], Any], document: dict[str, Any]
) -> None:
    content = canonical_json(document)
    assert read(content).canonical() == content
    for other in (b" " + content, content + b"\n", content[:-1]):
        with pytest.raises(MalformedError):
            read(other)


@pytest.mark.parametrize(
    "value",
    [
        None,
        {},
        {"values": []},
        {"values": ["a", "a"]},
        {"values": [True]},
        {"values": [None]},
        {"values": [["a"]]},
        {"values": ["a" * 2000]},
        {"values": [str(n) for n in range(10_001)]},
        {"values": ["a"], "expires": None},
        {"values": ["a"], "expires": "never"},
        {"values": ["a"], "note": "x"},
    ],
)
def test_other_reference_sets_are_refused(value: object) -> None:
    with pytest.raises(MalformedError):
        parse_reference_set(value)


@pytest.mark.parametrize(
    "value",
    [
        None,
        {k: v for k, v in AK.items() if k != "group"},
        {k: v for k, v in AK.items() if k != "ek"},
        {**AK, "name": "000b" + "00" * 32},
        {**AK, "name": "000c" + AK["name"][4:]},
        {**AK, "group": "A B"},
        {**AK, "how": "trust me"},
        {**AK, "how": None},
        {**AK, "ek": "ab"},
        {**AK, "ek": None},
        {**AK, "public": b64(public()[:-1])},
        {**AK, "public": b64(public() + b"\x00")},
        {**AK, "public": ""},
        {**AK, "public": b64(public(0x0004))},
        {**AK, "more": 1},
    ],
)
def test_other_attestation_keys_are_refused(value: object) -> None:
    with pytest.raises(MalformedError):
        parse_attestation_key(value)


@pytest.mark.parametrize(
    ("algorithm", "name"), [(0x000B, "sha256"), (0x000C, "sha384"), (0x000D, "sha512")]
)
def test_a_tpm_name_is_the_algorithm_and_the_digest(algorithm: int, name: str) -> None:
    data = public(algorithm)
    digest = hashlib.new(name, data[2:]).digest()
    assert tpm_name(data) == algorithm.to_bytes(2, "big") + digest


def test_a_ca_is_given_as_pem_or_der_and_kept_as_der() -> None:
    from_pem = parse_ca({**CA, "certificate": PEM})
    assert from_pem == parse_ca(CA)
    assert from_pem.certificate == CERTIFICATE


@pytest.mark.parametrize(
    "value",
    [
        None,
        {**CA, "purpose": "tls"},
        {**CA, "certificate": ""},
        {**CA, "certificate": b64(DER + b"\x00")},
        {**CA, "certificate": b64(b"x")},
        {**CA, "certificate": b64(UNKNOWN_VERSION)},
        {**CA, "certificate": PEM + PEM},
        {**CA, "certificate": "-----BEGIN CERTIFICATE-----\nAA==\n"},
        {**CA, "certificate": 1},
        {**CA, "name": "x"},
    ],
)
def test_other_cas_are_refused(value: object) -> None:
    with pytest.raises(MalformedError):
        parse_ca(value)


@pytest.mark.parametrize(
    "changes",
    [
        {"target": "person"},
        {"target": None},
        {"value": ""},
        {"value": "AB"},
        {"value": 1},
        {"target": "all"},
        {"target": "policy"},
        {"target": "key"},
        {"target": "ak", "value": "xyz"},
        {"target": "ak", "value": "ab" * 31},
        {"target": "ak", "value": "0004" + "ab" * 20},
        {"target": "ak", "value": "000b" + "ab" * 48},
        {"target": "ak", "value": "000c" + "ab" * 32},
        {"target": "ak", "value": "ab" * 34},
        {"target": "ak", "value": ""},
        {"target": "measurement", "value": "abc"},
        {"target": "measurement", "value": "ab" * 20},
        {"target": "measurement", "value": "ab" * 63},
        {"value": "ab" * 32},
        {"value": "ab" * 63},
        {"value": "00" * 64},
        {"value": "00" * 8},
        {"target": "gpu", "value": "ab" * 31},
        {"target": "gpu", "value": "ab" * 33},
        {"reason": ""},
        {"reason": "  "},
        {"reason": "x" * 501},
        {"until": "x"},
    ],
)
def test_other_deny_entries_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(MalformedError):
        parse_deny({**DENY, **changes})


@pytest.mark.parametrize(
    ("target", "value"),
    [
        ("ak", "ab" * 32),
        ("ak", "000b" + "ab" * 32),
        ("ak", "000c" + "ab" * 48),
        ("ak", "000d" + "ab" * 64),
        ("chip", "ab" * 64),
        ("chip", "ab" * 8),
        ("measurement", "ab" * 48),
        ("measurement", "ab" * 32),
        ("measurement", "ab" * 64),
        ("gpu", "ab" * 32),
        ("gpu", "ab" * 20),
        ("gpu", "0fa0"),
    ],
)
def test_a_deny_entry_names_what_evidence_can_carry(target: str, value: str) -> None:
    assert parse_deny({**DENY, "target": target, "value": value}).value == value


def test_a_deny_entry_of_another_form_says_which_it_wants() -> None:
    with pytest.raises(MalformedError, match="got 16 hex digits, expected the key's"):
        parse_deny({**DENY, "target": "ak", "value": "ab" * 8})


def test_a_certificate_is_ascii() -> None:
    text = "-----BEGIN CERTIFICATE-----\n\ud800"
    with pytest.raises(MalformedError, match="ca certificate"):
        parse_ca({"purpose": "ek", "certificate": text})


def test_a_workload_policy_is_measured_over_its_exact_bytes() -> None:
    data = b"allow: everything\n"
    measured = measure_workload_policy(data)
    assert measured.size == len(data)
    assert measured.sha256 == hashlib.sha256(data).hexdigest()
    assert measured.sha384 == hashlib.sha384(data).hexdigest()
    assert measured.sha512 == hashlib.sha512(data).hexdigest()


@pytest.mark.parametrize("read", [measure_workload_policy, read_release_policy])
def test_policies_have_a_size(read: Callable[[bytes], Any]) -> None:
    for data in (b"", bytes(1024 * 1024 + 1)):
        with pytest.raises(MalformedError):
            read(data)
