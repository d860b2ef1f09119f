"""A good quote passes; each single change fails the one check that is about it."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest

from kbs.core.checks import Status
from kbs.core.encode import b64
from kbs.core.errors import MalformedError
from kbs.evidence.model import EnrolledKey, ItemResult, ParsedItem, Trust, Verifier
from kbs.evidence.vtpm.abi import parse_signature, serialize_signature
from kbs.evidence.vtpm.algorithms import Algorithm
from kbs.evidence.vtpm.public import ObjectAttributes, Scheme, serialize_public
from kbs.evidence.vtpm.verify import VtpmVerifier
from tests.fakes.tpm import AK_ATTRIBUTES, FakeTpm
from tests.fakes.tpm_ca import NOW

BINDING = bytes(range(48))
BOUND = BINDING[:32]
VERIFIER: Verifier = VtpmVerifier()
Item = dict[str, object]


def enrolled(tpm: FakeTpm, tenant: str = "acme", group: str = "hosts") -> Trust:
    key = EnrolledKey(
        tenant=tenant, group=group, name=tpm.ak_name, public=tpm.ak_public
    )
    return Trust(now=NOW, enrolled_keys={tpm.ak_name: (key,)})


def verify(item: Mapping[str, object], trust: Trust) -> ItemResult:
    return VERIFIER.verify(VERIFIER.parse(item, 4), trust)


def statuses(result: ItemResult) -> dict[str, Status]:
    return {check.id: check.status for check in result.checks}


def failed(result: ItemResult) -> set[str]:
    return {check.id for check in result.checks if check.status is Status.FAIL}


@pytest.mark.parametrize(
    ("scheme", "hash_name"),
    [
        ("ecdsa", "sha256"),
        ("ecdsa", "sha384"),
        ("rsassa", "sha256"),
        ("rsapss", "sha256"),
        ("rsapss", "sha384"),
    ],
)
def test_a_good_quote_of_every_scheme_is_verified(scheme: str, hash_name: str) -> None:
    tpm = FakeTpm(scheme, hash_name)
    result = verify(tpm.quote_item(BOUND), enrolled(tpm))
    assert statuses(result) == {
        "vtpm.quote.signature": Status.PASS,
        "vtpm.quote.pcr_selection": Status.PASS,
        "vtpm.quote.pcr_digest": Status.PASS,
        "vtpm.chain": Status.SKIPPED,
        "vtpm.validity": Status.SKIPPED,
        "vtpm.revocation": Status.SKIPPED,
        "vtpm.ak.trust": Status.PASS,
        "vtpm.ak.attributes": Status.PASS,
        "vtpm.quote.qualified_signer": Status.PASS,
        "vtpm.eventlog.replay": Status.SKIPPED,
    }
    assert result.authenticated
    assert all(check.item == 4 for check in result.checks)


def test_claims_are_those_of_the_quote(ecc_tpm: FakeTpm) -> None:
    result = verify(ecc_tpm.quote_item(BOUND, (0, 15)), enrolled(ecc_tpm))
    assert result.claims is not None
    assert result.claims.values == {
        "vtpm.extra_data": BOUND.hex(),
        "vtpm.clock": "000000000000176a",
        "vtpm.reset_count": 3,
        "vtpm.restart_count": 1,
        "vtpm.safe": True,
        "vtpm.firmware_version": "2016051100162800",
        "vtpm.pcr.sha256.0": "00" * 32,
        "vtpm.pcr.sha256.15": "00" * 32,
        "vtpm.ak.name": ecc_tpm.ak_name.hex(),
    }
    assert result.claims.scoped == {"acme": {"vtpm.ak.group": "hosts"}}
    assert result.claims.trusted_in == frozenset({"acme"})
    assert result.claims.family == "vtpm"
    assert result.claims.item == 4
    names = {spec.name for spec in VERIFIER.vocabulary}
    assert result.claims.values.keys() <= names


def test_two_banks_give_claims_and_sha1_gives_none(ecc_tpm: FakeTpm) -> None:
    item = ecc_tpm.quote_item(BOUND, (15,), ("sha1", "sha256", "sha384"))
    result = verify(item, enrolled(ecc_tpm))
    assert result.claims is not None
    pcrs = {name for name in result.claims.values if ".pcr." in name}
    assert pcrs == {"vtpm.pcr.sha256.15", "vtpm.pcr.sha384.15"}


def test_the_device_is_named_by_name_and_key(ecc_tpm: FakeTpm) -> None:
    parsed = VERIFIER.parse(ecc_tpm.quote_item(BOUND), 0)
    result = VERIFIER.verify(parsed, enrolled(ecc_tpm))
    spki = parsed.core[-32:].hex()
    assert result.identities == (
        f"ak:{ecc_tpm.ak_name.hex()}",
        f"spki:{spki}",
        f"qn:{ecc_tpm.qualified_name.hex()}",
    )


def test_the_core_is_length_message_and_key(ecc_tpm: FakeTpm) -> None:
    item = ecc_tpm.quote_item(BOUND)
    parsed = VERIFIER.parse(item, 0)
    message = base64.b64decode(quote_of(item)["message"])
    assert parsed.core[:4] == len(message).to_bytes(4, "big")
    assert parsed.core[4:-32] == message
    assert parsed.kind == "vtpm"
    assert VERIFIER.primary is False


@pytest.mark.parametrize(
    ("extra_data", "binding", "matches"),
    [
        (BOUND, BINDING, True),
        (BOUND + b"\0", BINDING, False),
        (BOUND[:-1], BINDING, False),
        (BINDING, BINDING, False),
        (BOUND, BINDING[:32], False),
        (BOUND, BINDING + b"\0", False),
        (BOUND, bytes(48), False),
        (b"", BINDING, False),
    ],
)
def test_the_whole_of_extra_data_is_the_binding(
    ecc_tpm: FakeTpm, extra_data: bytes, binding: bytes, *, matches: bool
) -> None:
    parsed = VERIFIER.parse(ecc_tpm.quote_item(extra_data), 0)
    assert VERIFIER.bound_matches(parsed, binding) is matches


def quote_of(item: Mapping[str, object]) -> dict[str, str]:
    quote = item["quote"]
    assert isinstance(quote, dict)
    return quote


def pcrs_of(item: Mapping[str, object]) -> dict[str, dict[str, str]]:
    pcrs = item["pcrs"]
    assert isinstance(pcrs, dict)
    return pcrs


def flip_clock(item: Item) -> None:
    message = bytearray(base64.b64decode(quote_of(item)["message"]))
    message[4 + 2 + 36 + 34 + 7] ^= 1
    quote_of(item)["message"] = b64(bytes(message))


def flip_signature(item: Item) -> None:
    signature = bytearray(base64.b64decode(quote_of(item)["signature"]))
    signature[-1] ^= 1
    quote_of(item)["signature"] = b64(bytes(signature))


def zero_signature(item: Item) -> None:
    signature = parse_signature(base64.b64decode(quote_of(item)["signature"]))
    empty = replace(signature, values=tuple(b"" for _ in signature.values))
    quote_of(item)["signature"] = b64(serialize_signature(empty))


def other_scheme(item: Item) -> None:
    signature = parse_signature(base64.b64decode(quote_of(item)["signature"]))
    changed = replace(signature, scheme=Algorithm.RSASSA, values=(bytes(256),))
    quote_of(item)["signature"] = b64(serialize_signature(changed))


def other_hash(item: Item) -> None:
    signature = parse_signature(base64.b64decode(quote_of(item)["signature"]))
    changed = replace(signature, hash=Algorithm.SHA384)
    quote_of(item)["signature"] = b64(serialize_signature(changed))


def weak_hash(item: Item) -> None:
    signature = parse_signature(base64.b64decode(quote_of(item)["signature"]))
    changed = replace(signature, hash=Algorithm.SHA1)
    quote_of(item)["signature"] = b64(serialize_signature(changed))


def change_pcr(item: Item) -> None:
    pcrs_of(item)["sha256"]["15"] = "11" * 32


def add_pcr(item: Item) -> None:
    pcrs_of(item)["sha256"]["16"] = "00" * 32


def add_bank(item: Item) -> None:
    pcrs_of(item)["sha384"] = {"0": "00" * 48}


def drop_pcr(item: Item) -> None:
    del pcrs_of(item)["sha256"]["0"]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (flip_clock, {"vtpm.quote.signature"}),
        (flip_signature, {"vtpm.quote.signature"}),
        (zero_signature, {"vtpm.quote.signature"}),
        (other_scheme, {"vtpm.quote.signature"}),
        (other_hash, {"vtpm.quote.signature", "vtpm.quote.pcr_digest"}),
        (weak_hash, {"vtpm.quote.signature", "vtpm.quote.pcr_digest"}),
        (change_pcr, {"vtpm.quote.pcr_digest"}),
        (add_pcr, {"vtpm.quote.pcr_selection"}),
        (add_bank, {"vtpm.quote.pcr_selection"}),
        (drop_pcr, {"vtpm.quote.pcr_selection", "vtpm.quote.pcr_digest"}),
    ],
)
def test_each_single_change_fails_its_check(
    ecc_tpm: FakeTpm, change: Callable[[Item], None], expected: set[str]
) -> None:
    item = ecc_tpm.quote_item(BOUND)
    change(item)
    result = verify(item, enrolled(ecc_tpm))
    assert failed(result) == expected
    assert result.claims is None
    assert result.authenticated is ("vtpm.quote.signature" not in expected)


def test_a_quote_of_nothing_is_refused(ecc_tpm: FakeTpm) -> None:
    result = verify(ecc_tpm.quote_item(BOUND, (), ()), enrolled(ecc_tpm))
    assert failed(result) == {"vtpm.quote.pcr_selection"}


def test_an_rsa_key_with_an_ecdsa_signature_is_refused(
    ecc_tpm: FakeTpm, rsa_tpm: FakeTpm
) -> None:
    item = rsa_tpm.quote_item(BOUND)
    quote_of(item)["signature"] = quote_of(ecc_tpm.quote_item(BOUND))["signature"]
    assert failed(verify(item, enrolled(rsa_tpm))) == {"vtpm.quote.signature"}


def test_a_scheme_that_the_key_does_not_allow_is_refused(rsa_tpm: FakeTpm) -> None:
    """The same RSA key could make RSASSA and RSAPSS signatures; its area says which."""
    tpm = FakeTpm("rsapss")
    tpm.scheme = Algorithm.RSASSA
    result = verify(tpm.quote_item(BOUND), enrolled(tpm))
    check = next(check for check in result.checks if check.status is Status.FAIL)
    assert (check.id, check.got, check.expected) == (
        "vtpm.quote.signature",
        "rsassa sha256",
        "rsapss sha256",
    )


@pytest.mark.parametrize(
    "attributes",
    [
        AK_ATTRIBUTES & ~ObjectAttributes.RESTRICTED,
        AK_ATTRIBUTES & ~ObjectAttributes.SIGN,
        AK_ATTRIBUTES & ~ObjectAttributes.FIXED_TPM,
        AK_ATTRIBUTES & ~ObjectAttributes.FIXED_PARENT,
        AK_ATTRIBUTES & ~ObjectAttributes.SENSITIVE_DATA_ORIGIN,
        AK_ATTRIBUTES | ObjectAttributes.DECRYPT,
    ],
)
def test_a_key_that_could_sign_a_forged_quote_is_refused(
    attributes: ObjectAttributes,
) -> None:
    tpm = FakeTpm(attributes=attributes)
    result = verify(tpm.quote_item(BOUND), enrolled(tpm))
    assert failed(result) == {"vtpm.ak.attributes"}
    assert result.claims is None


def test_a_key_without_a_scheme_of_its_own_is_held_to_its_kind(
    ecc_tpm: FakeTpm,
) -> None:
    tpm = FakeTpm()
    tpm.public = replace(tpm.public, scheme=Scheme(Algorithm.NULL))
    result = verify(tpm.quote_item(BOUND), enrolled(tpm))
    assert result.claims is not None


def test_the_signer_of_a_child_key_cannot_be_told(ecc_tpm: FakeTpm) -> None:
    tpm = FakeTpm()
    tpm.parent_name = ecc_tpm.ak_name
    result = verify(tpm.quote_item(BOUND), enrolled(tpm))
    assert statuses(result)["vtpm.quote.qualified_signer"] is Status.SKIPPED
    assert result.claims is not None


def test_everything_parsed_is_shown(ecc_tpm: FakeTpm) -> None:
    shown = VERIFIER.inspect(VERIFIER.parse(ecc_tpm.quote_item(BOUND, (15,)), 0))
    attest, ak = shown["attest"], shown["ak"]
    assert isinstance(attest, dict)
    assert isinstance(ak, dict)
    assert attest["pcr_select"] == [{"alg": "sha256", "pcrs": [15]}]
    assert attest["magic"] == "ff544347"
    assert ak["name"] == ecc_tpm.ak_name.hex()
    assert "restricted" in ak["attributes"]
    assert shown["event_log"] is None


def test_a_bare_key_is_shown_without_a_name(ecc_tpm: FakeTpm) -> None:
    item = {**ecc_tpm.quote_item(BOUND), "ak": b64(ecc_tpm.ak_spki)}
    ak = VERIFIER.inspect(VERIFIER.parse(item, 0))["ak"]
    assert isinstance(ak, dict)
    assert ak.keys() == {"spki_sha256", "certificates"}


def test_an_item_of_another_family_is_a_bug_of_the_caller() -> None:
    parsed = ParsedItem(kind="snp", index=0, core=b"", bound=b"", body=None)
    with pytest.raises(TypeError):
        VERIFIER.inspect(parsed)
    assert VERIFIER.kind == "vtpm"


def set_kind(item: Item) -> None:
    item["kind"] = "snp"


def add_member(item: Item) -> None:
    item["nonce"] = ""


def drop_quote(item: Item) -> None:
    del item["quote"]


def unpadded(item: Item) -> None:
    quote_of(item)["message"] = quote_of(item)["message"].rstrip("=") + "A"


def number_as_ak(item: Item) -> None:
    item["ak"] = 7


def bad_log(item: Item) -> None:
    item["event_log"] = b64(b"bogus event log that is none at all")


def bad_certificate(item: Item) -> None:
    item["ak_certificates"] = [b64(b"no certificate")]


def private_pem(item: Item) -> None:
    item["ak"] = "-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n"


def empty_pem(item: Item) -> None:
    item["ak"] = "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"


def surrogate_in_pem(item: Item) -> None:
    item["ak"] = "-----BEGIN PUBLIC KEY-----\n\ud800"


def surrogate_in_certificate(item: Item) -> None:
    item["ak_certificates"] = ["-----BEGIN CERTIFICATE-----\n\ud800"]


def bad_der(item: Item) -> None:
    item["ak"] = b64(b"\x30\x03\x02\x01\x00")


@pytest.mark.parametrize(
    "change",
    [
        set_kind,
        add_member,
        drop_quote,
        unpadded,
        number_as_ak,
        bad_log,
        bad_certificate,
        private_pem,
        empty_pem,
        surrogate_in_pem,
        surrogate_in_certificate,
        bad_der,
    ],
)
def test_an_item_of_another_shape_does_not_parse(
    ecc_tpm: FakeTpm, change: Callable[[Item], None]
) -> None:
    item = ecc_tpm.quote_item(BOUND)
    change(item)
    with pytest.raises(MalformedError):
        VERIFIER.parse(item, 0)


def test_serialized_public_is_what_the_item_carries(ecc_tpm: FakeTpm) -> None:
    assert ecc_tpm.quote_item(BOUND)["ak"] == b64(serialize_public(ecc_tpm.public))
