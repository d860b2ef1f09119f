"""The binding of v1 for documents of Nitro and VMs of Azure.

The literals were computed once by `independent`, which knows nothing of the code under
test: JCS of these ASCII objects is what `json.dumps` writes with sorted names and no
spaces.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from kbs.channel.binding import RuntimeBinding, parse_runtime_data
from kbs.channel.rcar_binding import RcarBinding
from kbs.channel.tee_key import parse_tee_key
from kbs.core.checks import Status, Verdict
from kbs.core.encode import parse_b64u
from kbs.evidence.bundle import Bundle, BundleResult, verify_bundle
from kbs.evidence.joining import BundleBinding
from kbs.evidence.model import Trust
from kbs.evidence.registry import VERIFIERS
from tests.fakes.azure import FakeAzure, azure
from tests.fakes.nitro import NOW, item, nitro

AWS = nitro()
VM = azure()

# A challenge has 59 bytes.
CHALLENGE = bytes([1, 7, 1]) + bytes(range(56))
RUNTIME_DATA: dict[str, Any] = {
    "audience": "kbs.example.org/log",
    "nonce": (
        "AQcBAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4vMDEyMzQ1Njc"
    ),
    "recipient": {
        "crv": "X25519",
        "kty": "OKP",
        # RFC 7748, section 6.1, Bob's public key.
        "x": "3p7bfXt9wbTTW2HC7OQ1Nz-DQ8hbeGdNrfx-FG-IK08",
    },
    "request": {
        "keys": ["acme/model/chat"],
        "mode": "release",
        "partial": False,
        "suite": "0020-0001-0002",
    },
}
# The key of the RCAR reference, d = 0xA11CE.
TEE_KEY = {
    "kty": "EC",
    "crv": "P-256",
    "alg": "ECDH-ES+A256KW",
    "x": "cmiHbhnbfXplHVXV880IsPFPDy2ZrDg9VucFzFiy3gk",
    "y": "Jy80YNEIRNnYp3wPb1dUyOHH-jpYxmcfkZnYcQr0OHg",
}
# RFC 8410, section 4: the key of an X25519 SubjectPublicKeyInfo follows this.
SPKI = bytes.fromhex("302a300506032b656e032100") + parse_b64u(
    RUNTIME_DATA["recipient"]["x"], "x", limit=32
)
P_NITRO = (
    "aeff6a2abad6a7b403dc0866718f4b651714317c47a5d50f"
    "98a859a93851537cc3d7182d9400e66b821bf31f7d88a787"
)
P_NITROTPM = (
    "35505c9b7ccdd93b5927eb2776a4b28a532a873140762af7"
    "4903a216726b14e0dc918e6ee764dafa21ba95e02e631c16"
)
P_AZURE = (
    "251366628b8447a7513961c21abc409d2b199f211cb5081c"
    "487a061706a6f8de3ef4bf2964087c507b066fa68e838e50"
)
BINDING = RuntimeBinding(parse_runtime_data(RUNTIME_DATA))


def independent(kind: str) -> str:
    value = {
        "typ": "primary",
        "kind": kind,
        "runtime_data": RUNTIME_DATA,
        "devices": [],
    }
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha384(b"kbs.binding/1\x00" + text.encode("ascii")).hexdigest()


def verify(*items: dict[str, object], binding: BundleBinding = BINDING) -> BundleResult:
    return verify_bundle(
        Bundle(items),
        trust=Trust(now=NOW, pinned_roots={**AWS.pins, **VM.amd.pins()}),
        verifiers=VERIFIERS,
        binding=binding,
    )


def failed(result: BundleResult) -> list[str]:
    return [check.id for check in result.checks if check.status is Status.FAIL]


def bound(text: str, **changes: Any) -> dict[str, object]:
    return item(AWS.document(user_data=bytes.fromhex(text), **changes))


def test_the_literals_are_the_formulas() -> None:
    assert independent("nitro") == P_NITRO
    assert independent("nitrotpm") == P_NITROTPM
    assert independent("azure") == P_AZURE
    assert parse_b64u(RUNTIME_DATA["nonce"], "nonce", limit=80) == CHALLENGE


@pytest.mark.parametrize(
    "beside",
    [
        {},
        {"nonce": CHALLENGE},
        {"public_key": SPKI},
        {"nonce": CHALLENGE, "public_key": SPKI},
    ],
    ids=["nothing beside", "challenge", "recipient", "both"],
)
def test_row_nitro(beside: dict[str, bytes]) -> None:
    result = verify(bound(P_NITRO, **beside))
    assert result.verdict is Verdict.VERIFIED, failed(result)
    assert result.authenticated
    assert result.binding == bytes.fromhex(P_NITRO)


def test_row_nitrotpm() -> None:
    document = AWS.tpm_document(user_data=bytes.fromhex(P_NITROTPM))
    result = verify(item(document, "nitrotpm"))
    assert result.verdict is Verdict.VERIFIED, failed(result)
    other = AWS.tpm_document(user_data=bytes.fromhex(P_NITRO))
    assert failed(verify(item(other, "nitrotpm"))) == ["binding.primary"]


@pytest.mark.parametrize(
    "user_data",
    [
        None,
        b"",
        bytes(48),
        bytes.fromhex(P_NITRO)[:47],
        bytes.fromhex(P_NITRO)[:32],
        bytes.fromhex(P_NITRO) + b"\x00",
        bytes.fromhex(P_NITRO).ljust(64, b"\x00"),
        bytes.fromhex(P_NITROTPM),
        P_NITRO.encode(),
    ],
)
def test_row_nitro_refuses_any_other_field(user_data: bytes | None) -> None:
    result = verify(item(AWS.document(user_data=user_data)))
    assert failed(result) == ["binding.primary"]
    assert not result.authenticated


@pytest.mark.parametrize(
    "beside",
    [
        {"nonce": b""},
        {"nonce": CHALLENGE[:-1]},
        {"nonce": CHALLENGE + b"\x00"},
        {"nonce": RUNTIME_DATA["nonce"].encode()},
        {"nonce": SPKI},
        {"public_key": SPKI[:-1]},
        {"public_key": SPKI + b"\x00"},
        {"public_key": SPKI[12:]},
        {"public_key": CHALLENGE},
        {"nonce": CHALLENGE, "public_key": b"\x00"},
        {"nonce": b"\x00", "public_key": SPKI},
    ],
)
def test_what_stands_beside_p_must_fit_the_request(beside: dict[str, bytes]) -> None:
    result = verify(bound(P_NITRO, **beside))
    assert failed(result) == ["binding.primary"]
    assert not result.authenticated


def test_a_nonce_that_is_no_challenge_fits_nothing() -> None:
    data = {**RUNTIME_DATA, "nonce": "A"}
    assert "challenge" not in RuntimeBinding(parse_runtime_data(data)).beside()


def test_two_documents_are_two_primaries() -> None:
    result = verify(bound(P_NITRO), bound(P_NITRO, nonce=CHALLENGE))
    assert "bundle.primary" in failed(result)
    assert "binding.duplicate" in failed(result)


# --- row azure: extraData = P("azure")[0:32] ------------------------------------------


def test_row_azure() -> None:
    result = verify(VM.item(bytes.fromhex(P_AZURE)[:32]))
    assert result.verdict is Verdict.VERIFIED, failed(result)
    assert result.authenticated


@pytest.mark.parametrize(
    "extra_data",
    [
        b"",
        bytes(32),
        bytes.fromhex(P_AZURE),
        bytes.fromhex(P_AZURE)[:31],
        bytes.fromhex(P_AZURE)[:32] + b"\x00",
        bytes.fromhex(P_AZURE)[16:],
        bytes.fromhex(P_NITRO)[:32],
    ],
)
def test_row_azure_refuses_any_other_field(extra_data: bytes) -> None:
    result = verify(VM.item(extra_data))
    assert failed(result) == ["binding.primary"]
    assert not result.authenticated


def test_p_in_the_user_data_of_the_claims_binds_nothing() -> None:
    hcl = VM.hcl(VM.claims(**{"user-data": P_AZURE}))
    assert failed(verify(VM.item(hcl=hcl))) == ["binding.primary"]


def test_the_digest_of_rcar_is_carried_whole_and_by_its_own_door_only() -> None:
    rcar = RcarBinding("nonce", parse_tee_key(TEE_KEY), "")
    digest = rcar.primary("azure", ())
    whole = verify(VM.item(digest), binding=rcar)
    assert whole.verdict is Verdict.VERIFIED, failed(whole)
    assert failed(verify(VM.item(digest[:32]), binding=rcar)) == ["binding.primary"]
    assert failed(verify(VM.item(digest))) == ["binding.primary"]
    assert rcar.beside() == {}


def test_the_report_of_one_vm_and_the_quote_of_another() -> None:
    other = FakeAzure()
    other.tpm.key = rsa.generate_private_key(65537, 2048)
    quoted = other.item(bytes.fromhex(P_AZURE)[:32])
    result = verify({**VM.item(), "vtpm": quoted["vtpm"]})
    assert failed(result) == ["vtpm.quote.signature"]
    assert not result.authenticated
