"""The rows of the binding for tokens and CCA: fixed vectors, signed by our own fakes.

The literals were computed once by `independent`, which knows nothing of the code under
test: JCS of these ASCII objects is what `json.dumps` writes with sorted names and no
spaces.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from typing import Any

import pytest

from kbs.channel.binding import RuntimeBinding, parse_runtime_data
from kbs.core.checks import Verdict
from kbs.evidence.bundle import Bundle, BundleResult, verify_bundle
from kbs.evidence.model import Trust
from kbs.evidence.registry import VERIFIERS
from tests.fakes.amd import NOW, FakeAmd
from tests.fakes.cca import FakeCca
from tests.fakes.tokens import (
    EAR,
    GCS,
    ITA,
    MAA,
    NRAS,
    FakeSet,
    ear_claims,
    gcs_claims,
    ita_claims,
    maa_claims,
)

RUNTIME_DATA: dict[str, Any] = {
    "audience": "kbs.example.org/log",
    "nonce": "AQcBAAAAAGkhZQAAAQIDBAUGBwgJCgsMDQ4P",
    "recipient": {
        "crv": "X25519",
        "kty": "OKP",
        # RFC 7748, section 6.1, Bob's public key.
        "x": "3p7bfXt9wbTTW2HC7OQ1Nz-DQ8hbeGdNrfx-FG-IK08",
    },
    "request": {
        "keys": ["acme/model/chat", "acme/prompt/front@7"],
        "mode": "release",
        "partial": False,
        "suite": "0020-0001-0002",
    },
}
BINDING = RuntimeBinding(parse_runtime_data(RUNTIME_DATA))

P_TOKEN = (
    "b2805c0ee519d98e3292ad975a0c767d073552c644cf74c6"
    "87efba3477417e7bc1fde3c37d014ffb1f6de11e06652226"
)
P_CCA = (
    "095d507f3acf95889da924cc81acd775455239efe81ab0c6"
    "0ee9bb09040160d5ea6d4c944ff790cbb791277e52a4c94e"
)
D_NVGPU = (
    "b0506198369d7cbcec19f84d0757ec4a4867d748ceff092d"
    "b50f3aa1d440bd185dfe6c77a23d6be87ca4d83b1f9df488"
)
AMD = FakeAmd()
CCA = FakeCca()
# What an Azure TD's runtime data are, as Intel's service repeats them.
PARAVISOR = {"keys": [{"kid": "HCLAkPub", "kty": "RSA"}], "user-data": "00" * 64}


def independent(value: Mapping[str, object]) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha384(b"kbs.binding/1\x00" + text.encode("ascii")).hexdigest()


def primary(kind: str, *devices: Mapping[str, str]) -> dict[str, object]:
    return {
        "typ": "primary",
        "kind": kind,
        "runtime_data": RUNTIME_DATA,
        "devices": list(devices),
    }


def device(kind: str) -> str:
    return independent({"typ": "device", "kind": kind, "runtime_data": RUNTIME_DATA})


def text(digest: str) -> str:
    encoded = base64.urlsafe_b64encode(bytes.fromhex(digest)).decode()
    return encoded.rstrip("=")


def of_token(item: Mapping[str, object]) -> dict[str, str]:
    """The element of M for a token: its text."""
    core = str(item["jwt"]).encode("ascii")
    return {"kind": "token", "sha384": hashlib.sha384(core).hexdigest()}


def verify(*items: Mapping[str, object]) -> BundleResult:
    trust = Trust(
        now=NOW,
        collateral=AMD.collateral(),
        issuers=(
            *(one.trusted() for one in (MAA, ITA, NRAS, GCS, EAR)),
            CCA.trusted(),
        ),
        pinned_roots=AMD.pins(),
    )
    return verify_bundle(
        Bundle(tuple(items)), trust=trust, verifiers=VERIFIERS, binding=BINDING
    )


def failed(result: BundleResult) -> list[str]:
    return [check.id for check in result.failed()]


def test_the_literals_are_what_the_formulas_give() -> None:
    assert independent(primary("token")) == P_TOKEN
    assert independent(primary("cca")) == P_CCA
    assert device("nvgpu") == D_NVGPU
    assert BINDING.primary("token", []).hex() == P_TOKEN
    assert BINDING.primary("cca", []).hex() == P_CCA
    assert BINDING.device("nvgpu").hex() == D_NVGPU


# --- token of a CPU verifier ----------------------------------------------------------


def held(digest: str) -> bytes:
    return text(digest).encode()


@pytest.mark.parametrize(
    "item",
    [
        MAA.item(maa_claims(primary("token"))),
        MAA.item(
            {
                "x-ms-ver": "1.0",
                "x-ms-attestation-type": "tdxvm",
                "x-ms-runtime": primary("token"),
            }
        ),
        ITA.item(ita_claims(held(P_TOKEN))),
        ITA.item({"tdx": ita_claims(held(P_TOKEN)), "ver": "2.0.0"}),
        GCS.item(gcs_claims(text(P_TOKEN))),
        EAR.item(ear_claims(text(P_TOKEN))),
    ],
)
def test_row_token_of_a_cpu_verifier(item: dict[str, object]) -> None:
    result = verify(item)
    assert result.verdict is Verdict.VERIFIED, failed(result)
    assert result.authenticated
    assert result.binding == bytes.fromhex(P_TOKEN)


def without(name: str) -> dict[str, object]:
    return {key: value for key, value in primary("token").items() if key != name}


OTHER = primary("token")
OTHER["runtime_data"] = {**RUNTIME_DATA, "audience": "kbs.example.com/log"}
# What rcar binds, and a primary of another kind.
RCAR = {"nonce": RUNTIME_DATA["nonce"], "tee-pubkey": RUNTIME_DATA["recipient"]}


@pytest.mark.parametrize(
    "item",
    [
        MAA.item(maa_claims()),
        MAA.item(maa_claims(primary("cca"))),
        MAA.item(maa_claims(primary("maa"))),
        MAA.item(maa_claims(RCAR)),
        MAA.item(maa_claims(OTHER)),
        MAA.item(maa_claims(without("devices"))),
        MAA.item(maa_claims({**primary("token"), "more": 1})),
        MAA.item(maa_claims({**primary("token"), "typ": "device"})),
        MAA.item(maa_claims({"claims": primary("token")})),
        MAA.item(maa_claims(text(P_TOKEN))),
        # Tokens of guest attestation are not for v1, whatever they carry.
        MAA.item(maa_claims(primary("token"), **{"x-ms-attestation-type": "azurevm"})),
        MAA.item(maa_claims(primary("token"), **{"x-ms-attestation-type": "sgx"})),
        MAA.item(maa_claims(eat_nonce=text(P_TOKEN))),
        ITA.item(ita_claims()),
        ITA.item(ita_claims(bytes.fromhex(P_TOKEN))),
        ITA.item(ita_claims(held(P_TOKEN)[:-1])),
        ITA.item(ita_claims(held(P_TOKEN) + b"=")),
        ITA.item(ita_claims(held(P_TOKEN) + b"\n")),
        ITA.item(ita_claims(held(P_CCA))),
        ITA.item(ita_claims(eat_nonce=text(P_TOKEN))),
        ITA.item(ita_claims(held(P_TOKEN), attester_type="TPM")),
        ITA.item(ita_claims(held(P_TOKEN), attester_type="NVGPU")),
        ITA.item(ita_claims(held(P_TOKEN), attester_type="AMD SEV-SNP")),
        # A TD of Azure, where the paravisor speaks for every guest.
        ITA.item(ita_claims(held(P_TOKEN), attester_runtime_data=PARAVISOR)),
        ITA.item(
            {
                "tdx": ita_claims(held(P_TOKEN), attester_runtime_data=PARAVISOR),
                "ver": "2.0.0",
            }
        ),
        ITA.item({"tpm": ita_claims(held(P_TOKEN)), "verifier_instance_ids": []}),
        GCS.item(gcs_claims(text(P_CCA))),
        GCS.item(gcs_claims(text(P_TOKEN)[:-1])),
        GCS.item(gcs_claims(text(P_TOKEN) + "=")),
        GCS.item(gcs_claims(text(P_TOKEN) + "A")),
        GCS.item(gcs_claims(P_TOKEN)),
        GCS.item(gcs_claims([text(P_TOKEN)])),
        GCS.item(gcs_claims([text(P_TOKEN), "another"])),
        GCS.item(gcs_claims(text(P_TOKEN[:64]))),
        GCS.item(gcs_claims(None)),
        EAR.item(ear_claims(text(D_NVGPU))),
        EAR.item(ear_claims(P_TOKEN)),
        EAR.item(ear_claims(None)),
    ],
)
def test_row_token_refuses_any_other_field(item: dict[str, object]) -> None:
    result = verify(item)
    assert failed(result) == ["binding.primary"]
    assert not result.authenticated


def test_two_cpu_tokens_are_two_primaries() -> None:
    items = [one.item(ear_claims(text(P_TOKEN))) for one in (EAR, EAR)]
    items[1] = EAR.item(ear_claims(text(P_TOKEN), jti="other"))
    assert "bundle.primary" in failed(verify(*items))


# --- token of a GPU verifier: overall and every submodule eat_nonce = hex(D[0:32]) ----


def beside(gpus: Mapping[str, object], *, covered: bool = True) -> BundleResult:
    """The set beside an SNP report that covers it, or covers nothing."""
    m = (of_token(gpus),) if covered else ()
    bound = bytes.fromhex(independent(primary("snp", *m)))
    return verify(AMD.bundle_item(bound), gpus)


def test_row_token_of_a_gpu_verifier() -> None:
    result = beside(FakeSet(nonce=D_NVGPU[:64], count=2).item())
    assert result.verdict is Verdict.VERIFIED, failed(result)
    assert result.authenticated
    assert result.claims is not None
    families = [item.family for item in result.claims.items]
    assert sorted(families) == ["nras", "nras", "snp"]


@pytest.mark.parametrize(
    "nonce",
    [
        "",
        "00" * 32,
        D_NVGPU,
        D_NVGPU[:62],
        D_NVGPU[:64].upper(),
        D_NVGPU[32:],
        device("token")[:64],
        P_TOKEN[:64],
        text(D_NVGPU[:64]),
    ],
)
def test_row_token_of_a_gpu_verifier_refuses_any_other_nonce(nonce: str) -> None:
    assert failed(beside(FakeSet(nonce=nonce).item())) == ["binding.devices"]


def test_a_device_with_another_nonce_is_found() -> None:
    gpus = FakeSet(nonce=D_NVGPU[:64], device={"eat_nonce": "00" * 32}).item()
    assert failed(beside(gpus)) == ["token.submodules", "binding.devices"]


def test_a_set_of_another_machine_swapped_in_is_found() -> None:
    """NVIDIA attested to other GPUs for the same nonce."""
    mine = FakeSet(nonce=D_NVGPU[:64]).item()
    theirs = FakeSet(nonce=D_NVGPU[:64], device={"ueid": "77"}).item()
    bound = bytes.fromhex(independent(primary("snp", of_token(mine))))
    result = verify(AMD.bundle_item(bound), theirs)
    assert failed(result) == ["binding.primary", "binding.devices"]
    uncovered = beside(mine, covered=False)
    assert failed(uncovered) == ["binding.primary", "binding.devices"]


def test_a_set_is_no_primary() -> None:
    result = verify(FakeSet(nonce=P_TOKEN[:64]).item())
    assert failed(result) == ["bundle.primary"]
    assert not result.authenticated


def test_one_gpu_in_two_sets_is_one_device_twice() -> None:
    sets = [FakeSet(nonce=D_NVGPU[:64], overall={"jti": name}).item() for name in "ab"]
    m = [of_token(one) for one in sets]
    bound = bytes.fromhex(independent(primary("snp", *m)))
    assert failed(verify(AMD.bundle_item(bound), *sets)) == ["binding.duplicate"]


def test_a_cpu_token_covers_a_set_of_gpus() -> None:
    gpus = FakeSet(nonce=D_NVGPU[:64]).item()
    covering = primary("token", of_token(gpus))
    result = verify(MAA.item(maa_claims(covering)), gpus)
    assert result.verdict is Verdict.VERIFIED, failed(result)
    other = EAR.item(ear_claims(text(independent(covering))))
    assert verify(other, gpus).verdict is Verdict.VERIFIED


# --- cca: realm challenge = P and 16 zero bytes ---------------------------------------


def test_row_cca() -> None:
    result = verify(CCA.item(bytes.fromhex(P_CCA) + bytes(16)))
    assert result.verdict is Verdict.VERIFIED, failed(result)
    assert result.authenticated
    assert result.binding == bytes.fromhex(P_CCA)


@pytest.mark.parametrize(
    "challenge",
    [
        bytes(64),
        bytes.fromhex(P_CCA) + bytes(15) + b"\x01",
        bytes.fromhex(P_CCA) + b"\x01" + bytes(15),
        bytes(16) + bytes.fromhex(P_CCA),
        bytes.fromhex(P_CCA) + bytes.fromhex(P_CCA)[:16],
        bytes.fromhex(P_CCA)[:32] + bytes(32),
        bytes.fromhex(P_TOKEN) + bytes(16),
        bytes.fromhex(device("cca")) + bytes(16),
    ],
)
def test_row_cca_refuses_any_other_challenge(challenge: bytes) -> None:
    result = verify(CCA.item(challenge))
    assert failed(result) == ["binding.primary"]
    assert not result.authenticated


@pytest.mark.parametrize("size", [32, 48, 63, 65])
def test_a_challenge_of_another_length_is_malformed(size: int) -> None:
    challenge = bytes.fromhex(P_CCA).ljust(65, b"\0")[:size]
    assert failed(verify(CCA.item(challenge))) == ["cca.parse"]


def test_a_realm_and_a_token_are_two_primaries() -> None:
    result = verify(CCA.item(bytes(64)), EAR.item(ear_claims(text(P_TOKEN))))
    assert failed(result) == ["bundle.primary"]
