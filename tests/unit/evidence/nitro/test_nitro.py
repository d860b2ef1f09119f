"""Nitro documents: one good case, and tables of single changes."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import cbor2
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding

from kbs.core.checks import Status, Verdict, verdict
from kbs.core.errors import MalformedError
from kbs.evidence.model import GivenCollateral, ItemResult, Trust
from kbs.evidence.nitro.document import kind_of, parse_document
from kbs.evidence.nitro.verify import NitroVerifier
from kbs.evidence.snp.verify import SnpVerifier
from tests.fakes.amd import FakeAmd
from tests.fakes.amd import item as snp_item
from tests.fakes.nitro import MODULE_ID, NOW, PCRS, item, nitro

AWS = nitro()
VERIFIER = NitroVerifier()
TPM_VERIFIER = NitroVerifier("nitrotpm")
OTHER_KEY = ec.generate_private_key(ec.SECP384R1())


def trust(**changes: Any) -> Trust:
    return Trust(**{"now": NOW, "pinned_roots": AWS.pins, **changes})


def verify(document: bytes, **changes: Any) -> ItemResult:
    return VERIFIER.verify(VERIFIER.parse(item(document), 3), trust(**changes))


def statuses(result: ItemResult) -> dict[str, str]:
    return {check.id: check.status.value for check in result.checks}


def failed(result: ItemResult) -> set[str]:
    return {one.id for one in result.checks if one.status is Status.FAIL}


def der(certificate: Any) -> bytes:
    data: bytes = certificate.public_bytes(Encoding.DER)
    return data


def test_a_good_document_is_verified() -> None:
    result = verify(AWS.document(user_data=b"u" * 48, nonce=b"n", public_key=b"k"))
    assert statuses(result) == {
        "nitro.document.signature": "pass",
        "nitro.certificate": "pass",
        "nitro.chain": "pass",
        "nitro.validity": "pass",
        "nitro.revocation": "skipped",
    }
    assert {check.item for check in result.checks} == {3}
    assert result.authenticated
    assert result.claims is not None
    assert result.claims.family == "nitro"
    values = dict(result.claims.values)
    for index, register in PCRS.items():
        assert values.pop(f"nitro.pcrs.{index}") == register.hex()
    assert values == {
        "nitro.module_id": MODULE_ID,
        "nitro.timestamp": "2026-11-22T08:00:00Z",
        "nitro.user_data": (b"u" * 48).hex(),
        "nitro.nonce": b"n".hex(),
        "nitro.public_key": b"k".hex(),
        "nitro.debug": False,
    }


def test_every_claim_is_in_the_vocabulary() -> None:
    for verifier, document in (
        (VERIFIER, AWS.document(user_data=b"", nonce=b"", public_key=b"k")),
        (TPM_VERIFIER, AWS.tpm_document(user_data=b"", nonce=b"", public_key=b"k")),
    ):
        parsed = verifier.parse(item(document, verifier.kind), 0)
        claims = verifier.verify(parsed, trust()).claims
        assert claims is not None
        assert set(claims.values) <= {spec.name for spec in verifier.vocabulary}


def test_debug_mode_is_a_claim() -> None:
    zero = {**PCRS, 0: bytes(48), 1: bytes(48), 2: bytes(48)}
    result = verify(AWS.document(pcrs=zero))
    assert verdict(result.checks) is Verdict.VERIFIED
    assert result.claims is not None
    assert result.claims.values["nitro.debug"] is True
    # Without PCR 0 nobody knows, and what nobody knows grants nothing.
    result = verify(AWS.document(pcrs={1: bytes(48)}))
    assert result.claims is not None
    assert "nitro.debug" not in result.claims.values


def test_a_tagged_document_and_one_without_optional_members_are_read() -> None:
    members = AWS.members(public_key=..., user_data=..., nonce=...)
    parsed = parse_document(AWS.sign(cbor2.dumps(members), tagged=True))
    assert parse_document(with_unprotected(None)).module_id == MODULE_ID
    assert (parsed.public_key, parsed.user_data, parsed.nonce) == (None, None, None)


def test_an_indefinite_map_is_read() -> None:
    members = AWS.members()
    payload = b"\xbf" + b"".join(
        cbor2.dumps(name) + cbor2.dumps(value) for name, value in members.items()
    )
    assert verdict(verify(AWS.sign(payload + b"\xff")).checks) is Verdict.VERIFIED


def test_a_nitrotpm_document_has_its_own_family() -> None:
    parsed = TPM_VERIFIER.parse(item(AWS.tpm_document(), "nitrotpm"), 0)
    result = TPM_VERIFIER.verify(parsed, trust())
    assert result.claims is not None
    assert result.claims.family == "nitrotpm"
    assert result.claims.values["nitrotpm.pcrs.4"] == (b"\x05" * 48).hex()
    assert all(name.startswith("nitrotpm.") for name in statuses(result))


def test_a_tpm_has_no_more_than_24_registers_to_claim() -> None:
    document = AWS.tpm_document(nitrotpm_pcrs={4: bytes(48), 24: bytes(48)})
    parsed = TPM_VERIFIER.parse(item(document, "nitrotpm"), 0)
    claims = TPM_VERIFIER.verify(parsed, trust()).claims
    assert claims is not None
    named = [name for name in claims.values if ".pcrs." in name]
    assert named == ["nitrotpm.pcrs.4"]


@pytest.mark.parametrize(
    ("verifier", "kind", "document"),
    [
        (VERIFIER, "nitro", AWS.tpm_document()),
        (TPM_VERIFIER, "nitrotpm", AWS.document()),
        (VERIFIER, "nitrotpm", AWS.document()),
    ],
)
def test_one_kind_of_document_is_not_the_other(
    verifier: NitroVerifier, kind: str, document: bytes
) -> None:
    with pytest.raises(MalformedError, match="item kind"):
        verifier.parse(item(document, kind), 0)


# --- what does not hold ---------------------------------------------------------------


def test_another_key_did_not_sign_it() -> None:
    document = AWS.sign(cbor2.dumps(AWS.members()), key=OTHER_KEY)
    result = verify(document)
    assert failed(result) == {"nitro.document.signature"}
    assert not result.authenticated
    assert result.claims is None


@pytest.mark.parametrize(
    "leaf",
    [
        AWS.certify(OTHER_KEY.public_key(), "ca", ca=True, path_length=0),
        AWS.certify(OTHER_KEY.public_key(), "no usage", usage=False),
        AWS.certify(OTHER_KEY.public_key(), "other usage", signs=False),
    ],
    ids=["ca", "without usage", "another usage"],
)
def test_a_certificate_that_is_not_for_signing_is_refused(leaf: Any) -> None:
    payload = cbor2.dumps(AWS.members(certificate=der(leaf)))
    result = verify(AWS.sign(payload, key=OTHER_KEY))
    assert "nitro.certificate" in failed(result)
    assert not result.authenticated


def test_an_end_entity_may_come_without_basic_constraints() -> None:
    leaf = AWS.certify(OTHER_KEY.public_key(), "plain", constraints=False)
    payload = cbor2.dumps(AWS.members(certificate=der(leaf)))
    assert verify(AWS.sign(payload, key=OTHER_KEY)).authenticated


def test_an_authority_of_aws_signs_no_documents() -> None:
    """Whoever has an instance's key must not pass for its enclave."""
    payload = cbor2.dumps(AWS.members(certificate=der(AWS.authorities[-1])))
    result = verify(AWS.sign(payload, key=AWS.keys[-1]))
    assert failed(result) == {"nitro.certificate"}
    assert not result.authenticated


def test_another_root_is_refused_whatever_it_calls_itself() -> None:
    imitation = type(AWS)()
    result = verify(imitation.document())
    assert failed(result) == {"nitro.chain"}
    assert not result.authenticated
    assert verify(imitation.document(), pinned_roots=imitation.pins).authenticated


def test_a_document_without_its_issuers_is_unchecked() -> None:
    result = verify(AWS.document(cabundle=[]))
    assert statuses(result) == {
        "nitro.document.signature": "pass",
        "nitro.certificate": "pass",
        "nitro.chain": "unchecked",
        "nitro.validity": "unchecked",
        "nitro.revocation": "unchecked",
    }
    assert verdict(result.checks) is Verdict.UNCHECKED
    collateral = GivenCollateral(tuple(AWS.authorities))
    assert verify(AWS.document(cabundle=None), collateral=collateral).authenticated


def test_the_roots_of_other_makers_do_not_count() -> None:
    pins = dict.fromkeys(AWS.pins, "AMD ARK Milan")
    assert failed(verify(AWS.document(), pinned_roots=pins)) == {"nitro.chain"}
    amd = FakeAmd()
    parsed = SnpVerifier().parse(
        snp_item(amd.report(), amd.vcek(), amd.ask, amd.ark, crl=amd.crl()), 0
    )
    named = dict.fromkeys(amd.pins(), "AWS Nitro, not AMD")
    result = SnpVerifier().verify(parsed, Trust(now=amd.now, pinned_roots=named))
    assert "snp.chain" in failed(result)


@pytest.mark.parametrize("by", [timedelta(seconds=-4), timedelta(hours=3, seconds=1)])
def test_outside_of_its_hours_it_is_refused(by: timedelta) -> None:
    result = verify(AWS.document(), now=NOW + by)
    assert failed(result) == {"nitro.validity"}
    assert result.authenticated
    assert result.claims is None


@pytest.mark.parametrize("issuer", range(4))
def test_a_list_of_any_issuer_revokes(issuer: int) -> None:
    issued = (*AWS.authorities, AWS.leaf)[issuer + 1]
    crl = AWS.revocation_list(issuer, issued.serial_number)
    result = verify(AWS.document(), collateral=GivenCollateral((), (crl,)))
    assert failed(result) == {"nitro.revocation"}
    clean = AWS.revocation_list(issuer, 1)
    result = verify(AWS.document(), collateral=GivenCollateral((), (clean,)))
    assert statuses(result)["nitro.revocation"] == "skipped"


# --- what is not a document -----------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"module_id": ""}, "module_id"),
        ({"module_id": b"i-0"}, "module_id"),
        ({"module_id": "i-0\n"}, "module_id"),
        ({"module_id": ...}, "missing module_id"),
        ({"digest": "SHA256"}, "digest"),
        ({"timestamp": 0}, "timestamp"),
        ({"timestamp": -1}, "timestamp"),
        ({"timestamp": True}, "timestamp"),
        ({"timestamp": "1"}, "timestamp"),
        ({"timestamp": 2**63}, "timestamp"),
        ({"pcrs": {}}, "registers"),
        ({"pcrs": []}, "registers"),
        ({"pcrs": ...}, "registers: got none"),
        ({"nitrotpm_pcrs": PCRS}, "registers: got nitrotpm_pcrs, pcrs"),
        ({"pcrs": {32: bytes(48)}}, "register index"),
        ({"pcrs": {-1: bytes(48)}}, "register index"),
        ({"pcrs": {"0": bytes(48)}}, "register index"),
        ({"pcrs": {0: bytes(32)}}, "register 0"),
        ({"pcrs": {0: bytes(64)}}, "register 0"),
        ({"pcrs": {0: "text"}}, "register 0"),
        ({"certificate": b""}, "certificate"),
        ({"certificate": None}, "certificate"),
        ({"certificate": b"\x30\x00"}, "certificate"),
        ({"certificate": bytes(1025)}, "certificate"),
        ({"certificate": der(AWS.leaf) + b"\0"}, "certificate"),
        ({"cabundle": b""}, "cabundle"),
        ({"cabundle": [None]}, "cabundle"),
        ({"cabundle": [b"\x30\x00"]}, "cabundle"),
        ({"cabundle": [der(AWS.leaf)] * 9}, "cabundle"),
        ({"public_key": b""}, "public_key"),
        ({"public_key": bytes(1025)}, "public_key"),
        ({"user_data": bytes(1025)}, "user_data"),
        ({"user_data": "text"}, "user_data"),
        ({"nonce": bytes(1025)}, "nonce"),
        ({"other": 1}, "unknown other"),
    ],
)
def test_a_member_out_of_shape_is_malformed(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(MalformedError, match=why):
        parse_document(AWS.document(**changes))


@pytest.mark.parametrize(
    "key",
    [ec.generate_private_key(ec.SECP256R1()), ed25519.Ed25519PrivateKey.generate()],
    ids=["P-256", "Ed25519"],
)
def test_a_certificate_of_another_kind_of_key_is_malformed(key: Any) -> None:
    leaf = AWS.certify(key.public_key(), "leaf")
    with pytest.raises(MalformedError, match="a P-384 key"):
        parse_document(AWS.document(certificate=der(leaf)))


def with_unprotected(header: object) -> bytes:
    message = cbor2.loads(AWS.document())
    message[1] = header
    return cbor2.dumps(message)


@pytest.mark.parametrize(
    ("document", "why"),
    [
        (with_unprotected({4: b"anybody's"}), "unprotected header: got 4"),
        (AWS.sign(cbor2.dumps([1])), "payload: got list"),
        (AWS.document() + b"\0", "after its end"),
        (AWS.sign(cbor2.dumps(AWS.members()) + b"\0"), "after its end"),
        (AWS.document()[:-1], "string"),
        (
            AWS.document().replace(bytes.fromhex("a1013822"), b"\xa1\x01\x38\x23"),
            "ES512",
        ),
        (b"", "head"),
        (bytes(20000), "at most"),
    ],
)
def test_another_shape_is_malformed(document: bytes, why: str) -> None:
    with pytest.raises(MalformedError, match=why):
        parse_document(document)


@pytest.mark.parametrize(
    "document",
    [{"kind": "nitro"}, {"kind": "nitro", "document": "?"}, {**item(b""), "more": 1}],
)
def test_an_item_of_another_shape_is_malformed(document: dict[str, object]) -> None:
    with pytest.raises(MalformedError):
        VERIFIER.parse(document, 0)


def test_a_file_is_known_by_what_is_in_it() -> None:
    assert kind_of(AWS.document()) == "nitro"
    assert kind_of(AWS.tpm_document()) == "nitrotpm"
    assert kind_of(AWS.document()[:-5]) == "nitro"
    assert kind_of(b"something else") is None


def test_fields_are_shown_without_proof() -> None:
    parsed = VERIFIER.parse(item(AWS.document(nonce=b"n")), 0)
    shown = VERIFIER.inspect(parsed)
    assert shown["module_id"] == MODULE_ID
    assert shown["nonce"] == "6e"
    assert shown["user_data"] is None
    bundle = shown["cabundle"]
    assert isinstance(bundle, list)
    assert len(bundle) == 4


def test_an_item_of_another_family_is_a_mistake_in_the_program() -> None:
    amd = FakeAmd()
    parsed = SnpVerifier().parse(snp_item(amd.report()), 0)
    with pytest.raises(TypeError, match="nitro"):
        VERIFIER.verify(parsed, trust())
