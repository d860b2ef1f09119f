"""Which deny entries stand against a release."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

from kbs.core.encode import b64, canonical_json
from kbs.core.errors import MalformedError
from kbs.core.ids import ScopedName, parse_key_ref
from kbs.core.reader import Reader
from kbs.governance.attestation_key import spki_sha256
from kbs.governance.chain import replay
from kbs.governance.denials import ReleaseSubject, denials_against
from kbs.governance.statement import Action, Kind
from tests.fakes.governors import INSTANCE, Chain
from tests.fakes.tpm import FakeTpm

CHIP = "ab" * 64
HWID = "cd" * 8
GPU = "ab" * 32
LAUNCH = "ab" * 48
TPM = FakeTpm()
NAME = TPM.ak_name.hex()
SPKI = hashlib.sha256(TPM.ak_spki).hexdigest()
OTHER = "000b" + "cd" * 32
SUBJECT = ReleaseSubject(
    key=parse_key_ref("acme/model/chat@3"),
    policies=frozenset({ScopedName("acme", "chat")}),
    identities=frozenset(
        {
            f"chip:{CHIP}",
            f"chip:{HWID.ljust(128, '0')}",
            f"ak:{NAME}",
            f"spki:{SPKI}",
            f"gpu:{GPU}",
        }
    ),
    measurements=frozenset({LAUNCH}),
)


def stands(
    target: str,
    value: str,
    *,
    tenant: str = "acme",
    subject: ReleaseSubject = SUBJECT,
    enrolled: bytes | None = None,
) -> bool:
    chain = Chain()
    if enrolled is not None:
        area = Reader(enrolled, "x").sized(2, "area", limit=1024)
        name = "000b" + hashlib.sha256(area).hexdigest()
        ak = {
            "group": "hosts",
            "name": name,
            "public": b64(enrolled),
            "how": "activation",
            "ek": "ab" * 32,
        }
        chain.state(Kind.AK, Action.ADD, canonical_json(ak), name="beta/host")
    content = canonical_json({"target": target, "value": value, "reason": "r"})
    chain.state(Kind.DENY, Action.DENY, content, name=f"{tenant}/d")
    state = replay(
        chain.rows,
        genesis_digest=chain.genesis_digest,
        instance=INSTANCE,
        load=chain.load,
    )
    found = denials_against(state, subject)
    assert all(one.subject == ScopedName(tenant, "d") for one in found)
    return bool(found)


@pytest.mark.parametrize("tenant", ["acme", "*"])
@pytest.mark.parametrize(
    ("target", "value", "expected"),
    [
        ("policy", "acme/chat", True),
        ("policy", "acme/other", False),
        ("key", "acme/model/chat", True),
        ("key", "acme/model/chat@3", True),
        ("key", "acme/model/chat@2", False),
        ("key", "acme/model/other", False),
        ("chip", CHIP, True),
        ("chip", "cd" * 64, False),
        ("chip", HWID, True),
        ("chip", "ef" * 8, False),
        ("ak", NAME, True),
        ("ak", OTHER, False),
        ("ak", SPKI, True),
        ("ak", "cd" * 32, False),
        ("gpu", GPU, True),
        ("gpu", "cd" * 32, False),
        ("measurement", LAUNCH, True),
        ("measurement", "cd" * 48, False),
    ],
)
def test_an_entry_stands_against_what_it_names(
    tenant: str, target: str, value: str, *, expected: bool
) -> None:
    assert stands(target, value, tenant=tenant) is expected


def test_the_emergency_stop_stands_against_everything() -> None:
    assert stands("all", "", tenant="*")


def test_an_entry_of_another_tenant_does_not_count_here() -> None:
    assert not stands("chip", CHIP, tenant="rival")


def evidence(*identities: str) -> ReleaseSubject:
    return replace(SUBJECT, identities=frozenset(identities))


def test_a_name_stands_against_the_key_that_is_enrolled_under_it() -> None:
    """The host may write another area around the key, so that its name is not shown."""
    subject = evidence(f"spki:{SPKI}")
    assert stands("ak", NAME, subject=subject, enrolled=TPM.ak_public)
    assert not stands("ak", NAME, subject=subject)
    assert not stands("ak", OTHER, subject=subject, enrolled=TPM.ak_public)


def test_a_name_stands_against_the_primary_key_that_signed_the_quote() -> None:
    """Of a key that only a certificate makes trusted, nothing else gives the name."""
    subject = evidence("spki:" + "00" * 32, f"qn:{TPM.qualified_name.hex()}")
    assert stands("ak", NAME, subject=subject)
    assert not stands("ak", OTHER, subject=subject)


def test_an_enrolled_area_without_a_key_stands_against_nothing() -> None:
    area = TPM.ak_public[2:60]
    public = len(area).to_bytes(2, "big") + area
    name = "000b" + hashlib.sha256(area).hexdigest()
    assert not stands("ak", name, subject=evidence(f"spki:{SPKI}"), enrolled=public)


@pytest.mark.parametrize(
    ("scheme", "hash_name"),
    [("ecdsa", "sha256"), ("ecdsa", "sha384"), ("rsassa", "sha256")],
)
def test_the_key_in_an_area_is_the_one_the_verifier_finds(
    scheme: str, hash_name: str
) -> None:
    tpm = FakeTpm(scheme, hash_name)
    expected = hashlib.sha256(tpm.ak_spki).hexdigest()
    assert spki_sha256(tpm.ak_public) == expected


def test_the_key_in_an_endorsement_keys_area_is_found() -> None:
    for kind in ("ecc", "rsa"):
        tpm = FakeTpm(endorsement=kind)
        assert len(spki_sha256(tpm.ek_public)) == 64


@pytest.mark.parametrize("at", [2, -1])
def test_an_area_without_such_a_key_is_refused(at: int) -> None:
    """Its type is neither RSA nor ECC; its point is not on the curve."""
    data = bytearray(TPM.ak_public)
    data[at] ^= 0xFF
    with pytest.raises(MalformedError):
        spki_sha256(bytes(data))
