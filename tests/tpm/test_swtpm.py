"""Our pure parsers, verifier and MakeCredential against a real TPM implementation."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from kbs.core.checks import Status
from kbs.core.encode import canonical_json
from kbs.evidence.model import EnrolledKey, Trust
from kbs.evidence.vtpm.abi import parse_attest, parse_signature, serialize_attest
from kbs.evidence.vtpm.algorithms import Algorithm
from kbs.evidence.vtpm.credential import check_endorsement_key, make_credential
from kbs.evidence.vtpm.item import item_from_files
from kbs.evidence.vtpm.public import ObjectAttributes, parse_public, serialize_public
from kbs.evidence.vtpm.verify import VtpmVerifier
from tests.fakes.swtpm import software_tpm
from tests.fakes.tpm_ca import NOW

tss = pytest.importorskip("tpm2_pytss")
pytestmark = pytest.mark.tpm

BINDING = bytes(range(48))
BOUND = BINDING[:32]
VERIFIER = VtpmVerifier()
SELECTION = (0, 1, 2, 3, 4, 5, 6, 7, 15)
KEYS = {
    "ecc": "ecc:ecdsa-sha256:null",
    "ecc384": "ecc384:ecdsa-sha384:null",
    "rsassa": "rsa2048:rsassa-sha256:null",
    "rsapss": "rsa2048:rsapss-sha256:null",
}
AK_ATTRIBUTES = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|restricted|sign"
EK_ATTRIBUTES = (
    "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|restricted|decrypt"
)


@dataclass
class Key:
    """A key that the TPM made."""

    handle: Any
    public: bytes


@pytest.fixture(scope="module")
def tpm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A software TPM with one session of the enhanced system API."""
    with ExitStack() as stack:
        yield opened(stack, tmp_path_factory)


def opened(stack: ExitStack, factory: pytest.TempPathFactory) -> Any:
    # Between choosing a port and swtpm's taking it, another process can take it.
    for _ in range(3):
        running = stack.enter_context(software_tpm(factory.mktemp("swtpm")))
        try:
            return stack.enter_context(tss.ESAPI(running.tcti))
        except tss.TSS2_Exception:
            continue
    pytest.fail("no software TPM answered")


@contextmanager
def primary(
    tpm: Any, template: str, attributes: str, hierarchy: Any, name: str = "SHA256"
) -> Iterator[Key]:
    """Make a primary key, and flush it: a TPM has three slots for transient ones."""
    public = tss.TPM2B_PUBLIC.parse(
        template, objectAttributes=attributes, nameAlg=getattr(tss.TPM2_ALG, name)
    )
    handle, made, *_ = tpm.create_primary(None, public, hierarchy)
    try:
        yield Key(handle, made.marshal())
    finally:
        tpm.flush_context(handle)


def attestation_key(tpm: Any, kind: str) -> Any:
    return primary(tpm, KEYS[kind], AK_ATTRIBUTES, tss.ESYS_TR.ENDORSEMENT)


def selection_text(bank: str, pcrs: tuple[int, ...]) -> Any:
    return tss.TPML_PCR_SELECTION.parse(f"{bank}:{','.join(str(pcr) for pcr in pcrs)}")


def read_pcrs(tpm: Any, bank: str, pcrs: tuple[int, ...]) -> dict[str, str]:
    # One at a time: TPM2_PCR_Read returns eight at most.
    values = {}
    for pcr in pcrs:
        _, _, digests = tpm.pcr_read(selection_text(bank, (pcr,)))
        values[str(pcr)] = bytes(digests[0]).hex()
    return values


def quote(
    tpm: Any, key: Key, bank: str = "sha256", pcrs: tuple[int, ...] = SELECTION
) -> tuple[bytes, bytes, bytes]:
    """Return message, TPMT_SIGNATURE, and the PCRs as JSON."""
    attest, signature = tpm.quote(
        key.handle, selection_text(bank, pcrs), qualifying_data=BOUND
    )
    values = canonical_json({bank: read_pcrs(tpm, bank, pcrs)})
    return bytes(attest), signature.marshal(), values


def enrolled(key: Key) -> Trust:
    name = parse_public(key.public).name
    entry = EnrolledKey(tenant="acme", group="hosts", name=name, public=key.public)
    return Trust(now=NOW, enrolled_keys={name: (entry,)})


@pytest.mark.parametrize("kind", KEYS)
def test_a_real_quote_is_verified(tpm: Any, kind: str) -> None:
    bank = "sha384" if kind == "ecc384" else "sha256"
    with attestation_key(tpm, kind) as key:
        message, signature, pcrs = quote(tpm, key, bank)
    item = item_from_files(message, signature, pcrs, key.public)
    parsed = VERIFIER.parse(item, 0)
    result = VERIFIER.verify(parsed, enrolled(key))
    found = {check.id: check.status for check in result.checks}
    assert result.claims is not None
    assert result.authenticated
    assert found["vtpm.quote.qualified_signer"] is Status.PASS
    assert VERIFIER.bound_matches(parsed, BINDING)


def test_one_changed_byte_of_a_real_quote_is_refused(tpm: Any) -> None:
    with attestation_key(tpm, "ecc") as key:
        message, signature, pcrs = quote(tpm, key)
    changed = bytearray(message)
    changed[-1] ^= 1
    item = item_from_files(bytes(changed), signature, pcrs, key.public)
    result = VERIFIER.verify(VERIFIER.parse(item, 0), enrolled(key))
    failed = {check.id for check in result.checks if check.status is Status.FAIL}
    assert failed == {"vtpm.quote.signature", "vtpm.quote.pcr_digest"}


@pytest.mark.parametrize("kind", KEYS)
def test_both_parsers_read_the_same_quote(tpm: Any, kind: str) -> None:
    with attestation_key(tpm, kind) as key:
        message, signature, _ = quote(tpm, key)
    ours = parse_attest(message)
    theirs, _ = tss.TPMS_ATTEST.unmarshal(message)
    assert serialize_attest(ours) == message
    assert ours.qualified_signer == bytes(theirs.qualifiedSigner)
    assert ours.extra_data == bytes(theirs.extraData) == BOUND
    assert ours.clock == theirs.clockInfo.clock
    assert ours.reset_count == theirs.clockInfo.resetCount
    assert ours.restart_count == theirs.clockInfo.restartCount
    assert ours.safe == bool(theirs.clockInfo.safe)
    assert ours.firmware_version == theirs.firmwareVersion
    assert ours.pcr_digest == bytes(theirs.attested.quote.pcrDigest)
    assert ours.pcr_select[0].pcrs == SELECTION
    read, _ = tss.TPMT_SIGNATURE.unmarshal(signature)
    assert parse_signature(signature).scheme == read.sigAlg


@pytest.mark.parametrize("kind", KEYS)
def test_both_parsers_read_the_same_key(tpm: Any, kind: str) -> None:
    with attestation_key(tpm, kind) as key:
        name = bytes(key.handle.get_name(tpm))
    ours = parse_public(key.public)
    theirs, _ = tss.TPM2B_PUBLIC.unmarshal(key.public)
    assert serialize_public(ours) == key.public
    assert ours.name == name == bytes(theirs.get_name())
    assert int(ours.attributes) == int(theirs.publicArea.objectAttributes)
    assert ours.spki == theirs.to_der()
    assert ours.has(ObjectAttributes.RESTRICTED, ObjectAttributes.SIGN)


def test_an_extended_pcr_replays(tpm: Any) -> None:
    """What `measures` relies on: zeros extended once by the policy's digest."""
    digest = hashlib.sha256(b"workload policy").digest()
    before = bytes.fromhex(read_pcrs(tpm, "sha256", (15,))["15"])
    values = tss.TPML_DIGEST_VALUES(
        [tss.TPMT_HA(hashAlg=tss.TPM2_ALG.SHA256, digest=tss.TPMU_HA(sha256=digest))]
    )
    tpm.pcr_extend(tss.ESYS_TR.PCR15, values)
    with attestation_key(tpm, "ecc") as key:
        message, signature, pcrs = quote(tpm, key)
    item = item_from_files(message, signature, pcrs, key.public)
    claims = VERIFIER.verify(VERIFIER.parse(item, 0), enrolled(key)).claims
    assert before == bytes(32)
    assert claims is not None
    expected = hashlib.sha256(before + digest).hexdigest()
    assert claims.values["vtpm.pcr.sha256.15"] == expected


def test_a_key_below_another_key_has_a_signer_that_cannot_be_told(tpm: Any) -> None:
    with primary(tpm, "ecc:null:aes128cfb", EK_ATTRIBUTES, tss.ESYS_TR.OWNER) as parent:
        template = tss.TPM2B_PUBLIC.parse(KEYS["ecc"], objectAttributes=AK_ATTRIBUTES)
        private, made, *_ = tpm.create(parent.handle, None, template)
        key = Key(tpm.load(parent.handle, private, made), made.marshal())
        message, signature, pcrs = quote(tpm, key)
        tpm.flush_context(key.handle)
    item = item_from_files(message, signature, pcrs, key.public)
    result = VERIFIER.verify(VERIFIER.parse(item, 0), enrolled(key))
    found = {check.id: check.status for check in result.checks}
    assert found["vtpm.quote.qualified_signer"] is Status.SKIPPED
    assert result.claims is not None


@pytest.mark.parametrize(
    ("template", "name"),
    [
        ("rsa2048:null:aes128cfb", "SHA256"),
        ("ecc:null:aes128cfb", "SHA256"),
        ("ecc384:null:aes256cfb", "SHA256"),
        ("ecc384:null:aes256cfb", "SHA384"),
        ("rsa2048:null:aes256cfb", "SHA384"),
    ],
)
def test_the_tpm_activates_what_we_make(tpm: Any, template: str, name: str) -> None:
    secret = bytes(range(32))
    hierarchy = tss.ESYS_TR.ENDORSEMENT
    with (
        primary(tpm, template, EK_ATTRIBUTES, hierarchy, name) as endorsement,
        attestation_key(tpm, "ecc") as key,
    ):
        area = parse_public(endorsement.public)
        check_endorsement_key(area)
        made = make_credential(area, parse_public(key.public).name, secret)
        blob, _ = tss.TPM2B_ID_OBJECT.unmarshal(made.credential_blob)
        wrapped, _ = tss.TPM2B_ENCRYPTED_SECRET.unmarshal(made.secret)
        opened = tpm.activate_credential(
            key.handle,
            endorsement.handle,
            blob,
            wrapped,
            session1=tss.ESYS_TR.PASSWORD,
            session2=tss.ESYS_TR.PASSWORD,
        )
    assert bytes(opened) == secret


def test_the_tpm_refuses_a_credential_for_another_key(tpm: Any) -> None:
    with (
        primary(
            tpm, "ecc:null:aes128cfb", EK_ATTRIBUTES, tss.ESYS_TR.ENDORSEMENT
        ) as endorsement,
        attestation_key(tpm, "ecc") as key,
    ):
        area = parse_public(endorsement.public)
        made = make_credential(area, area.name, bytes(32))
        blob, _ = tss.TPM2B_ID_OBJECT.unmarshal(made.credential_blob)
        wrapped, _ = tss.TPM2B_ENCRYPTED_SECRET.unmarshal(made.secret)
        with pytest.raises(tss.TSS2_Exception):
            tpm.activate_credential(
                key.handle,
                endorsement.handle,
                blob,
                wrapped,
                session1=tss.ESYS_TR.PASSWORD,
                session2=tss.ESYS_TR.PASSWORD,
            )


def test_an_unrestricted_key_can_sign_a_forged_quote_and_is_refused(tpm: Any) -> None:
    """Why `restricted` is required: this TPM signs whatever it is given."""
    attributes = AK_ATTRIBUTES.replace("|restricted", "")
    with primary(tpm, KEYS["ecc"], attributes, tss.ESYS_TR.OWNER) as key:
        with attestation_key(tpm, "ecc") as honest:
            message, _, pcrs = quote(tpm, honest)
        forged = serialize_attest(parse_attest(message))
        signed = tpm.sign(
            key.handle,
            tss.TPM2B_DIGEST(hashlib.sha256(forged).digest()),
            tss.TPMT_SIG_SCHEME(scheme=tss.TPM2_ALG.NULL),
            tss.TPMT_TK_HASHCHECK(
                tag=tss.TPM2_ST.HASHCHECK, hierarchy=tss.TPM2_RH.NULL
            ),
        )
    item = item_from_files(forged, signed.marshal(), pcrs, key.public)
    result = VERIFIER.verify(VERIFIER.parse(item, 0), enrolled(key))
    found = {check.id: check.status for check in result.checks}
    assert found["vtpm.quote.signature"] is Status.PASS
    assert found["vtpm.ak.attributes"] is Status.FAIL
    assert result.claims is None


def test_algorithm_numbers_are_the_tpms() -> None:
    for algorithm in Algorithm:
        name = "ECC" if algorithm is Algorithm.ECC else algorithm.name
        assert int(getattr(tss.TPM2_ALG, name)) == algorithm
