"""The binding of v1, row by row: fixed vectors, signed by our own fakes.

The literals were computed once by `independent`, which knows nothing of the code under
test: JCS of these ASCII objects is what `json.dumps` writes with sorted names and no
spaces.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cache
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from kbs.channel.binding import (
    RuntimeBinding,
    device_binding,
    parse_runtime_data,
    primary_binding,
)
from kbs.core.checks import Verdict
from kbs.core.encode import b64, parse_b64
from kbs.evidence.bundle import Bundle, BundleResult, verify_bundle
from kbs.evidence.model import EnrolledKey, Trust
from kbs.evidence.registry import VERIFIERS
from kbs.evidence.vtpm.public import Scheme
from tests.fakes.amd import NOW, FakeAmd
from tests.fakes.tpm import AK_ATTRIBUTES, FakeTpm, public_of

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
DATA = parse_runtime_data(RUNTIME_DATA)
BINDING = RuntimeBinding(DATA)

P_SNP = (
    "da4d48c33e90ea1d1f461f62f182ccbea99b7a5f35d1866e"
    "d41d95d1b3ade3410cc01bcab08a3f804ec54b364e62408a"
)
P_VTPM = (
    "e82f09969a6403a4949dcc1c337a20da2cb0b440cc52f1f2"
    "7f0ca8ec75a76d4dcdbd872f4bb07403c3db5aaac77901dd"
)
P_SAMPLE = (
    "fd6c175b0264aad0531d821f8ce0e204d53d976c683500c8"
    "12d3979cda1225916c84ef7ee6b1f3d6b1b6c250c0d1d31e"
)
D_VTPM = (
    "8473216736cccf952facb0a07f90d26b060b1c429f51179a"
    "0573aa0b1e7b5044eaf4795e58867e67f9e7322d8c9757ce"
)
D_SAMPLE = (
    "f6075034d73385b0ddafec01d13191a9f2f2f4c39f74fe50"
    "94f05335e4b4aedfeb1f8940e82799b8fc4a075cdb93f3ef"
)
# The quote of `tpm()` over D("vtpm"), and the P("snp") that covers it.
CORE_VTPM = (
    "6b240f4b9cd78d9c5fff43d9cf8b4cb965fabb945d9b01c7"
    "7649d401daa1923c23da6c13dc6930bf967fff39df1a2243"
)
P_SNP_WITH_VTPM = (
    "e41fa93773d521b43b6116d6c2bc800ca2d85937510bf9c4"
    "72b106d40394116a4284ca62ca731b77eee91fc5f2c0dcd2"
)


def independent(value: Mapping[str, object]) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha384(b"kbs.binding/1\x00" + text.encode("ascii")).hexdigest()


def p(kind: str, *devices: tuple[str, str]) -> str:
    return independent(
        {
            "typ": "primary",
            "kind": kind,
            "runtime_data": RUNTIME_DATA,
            "devices": [{"kind": kind, "sha384": digest} for kind, digest in devices],
        }
    )


def d(kind: str) -> str:
    return independent({"typ": "device", "kind": kind, "runtime_data": RUNTIME_DATA})


AMD = FakeAmd()


@cache
def tpm(scalar: int = 7) -> FakeTpm:
    """A TPM with a fixed key, so that what it signs is the same each time."""
    fake = FakeTpm()
    fake.key = ec.derive_private_key(scalar, ec.SECP256R1())
    fake.public = public_of(
        fake.key, attributes=AK_ATTRIBUTES, scheme=Scheme(fake.scheme, fake.hash)
    )
    return fake


def trust() -> Trust:
    enrolled = {
        one.ak_name: (
            EnrolledKey(
                tenant="acme", group="hosts", name=one.ak_name, public=one.ak_public
            ),
        )
        for one in (tpm(), tpm(8))
    }
    return Trust(
        now=NOW,
        collateral=AMD.collateral(),
        enrolled_keys=enrolled,
        development=True,
        pinned_roots=AMD.pins(),
    )


def snp(bound: bytes) -> dict[str, object]:
    return AMD.bundle_item(bound)


def vtpm(bound: bytes, scalar: int = 7) -> dict[str, object]:
    return tpm(scalar).quote_item(bound)


def sample(bound: bytes) -> dict[str, object]:
    return {"kind": "sample", "report_data": b64(bound)}


def vtpm_core(item: Mapping[str, Any], scalar: int = 7) -> str:
    message = parse_b64(item["quote"]["message"], "message", limit=4096)
    spki = hashlib.sha256(tpm(scalar).ak_spki).digest()
    core = len(message).to_bytes(4, "big") + message + spki
    return hashlib.sha384(core).hexdigest()


def verify(*items: Mapping[str, object]) -> BundleResult:
    return verify_bundle(
        Bundle(tuple(items)), trust=trust(), verifiers=VERIFIERS, binding=BINDING
    )


def failed(result: BundleResult) -> list[str]:
    return [check.id for check in result.failed()]


def test_the_literals_are_what_the_formulas_give() -> None:
    assert (p("snp"), p("vtpm"), p("sample")) == (P_SNP, P_VTPM, P_SAMPLE)
    assert (d("vtpm"), d("sample")) == (D_VTPM, D_SAMPLE)
    assert vtpm_core(vtpm(bytes.fromhex(D_VTPM)[:32])) == CORE_VTPM
    assert p("snp", ("vtpm", CORE_VTPM)) == P_SNP_WITH_VTPM


def test_the_code_gives_the_literals() -> None:
    assert primary_binding("snp", DATA, []).hex() == P_SNP
    assert primary_binding("vtpm", DATA, []).hex() == P_VTPM
    assert primary_binding("sample", DATA, []).hex() == P_SAMPLE
    assert device_binding("vtpm", DATA).hex() == D_VTPM
    assert device_binding("sample", DATA).hex() == D_SAMPLE
    assert BINDING.primary("snp", [("vtpm", CORE_VTPM)]).hex() == P_SNP_WITH_VTPM


# --- row snp: REPORT_DATA[0:48] = P, [48:64] = 0 --------------------------------------


def test_row_snp() -> None:
    result = verify(snp(bytes.fromhex(P_SNP)))
    assert result.verdict is Verdict.VERIFIED, failed(result)
    assert result.authenticated
    assert result.binding == bytes.fromhex(P_SNP)


@pytest.mark.parametrize(
    "bound",
    [
        bytes(64),
        bytes.fromhex(P_SNP)[:32],
        bytes.fromhex(P_SNP)[:47],
        bytes.fromhex(P_SNP) + b"\x01",
        bytes.fromhex(P_SNP) + bytes(15) + b"\x80",
        b"\x00" + bytes.fromhex(P_SNP),
        bytes.fromhex(P_VTPM),
        bytes.fromhex(P_SAMPLE),
        bytes.fromhex(D_VTPM),
        bytes.fromhex(d("snp")),
        bytes.fromhex(P_SNP_WITH_VTPM),
    ],
)
def test_row_snp_refuses_any_other_field(bound: bytes) -> None:
    result = verify(snp(bound))
    assert failed(result) == ["binding.primary"]
    assert not result.authenticated


# --- row vtpm alone: extraData = P("vtpm")[0:32] --------------------------------------


def test_row_vtpm_alone() -> None:
    result = verify(vtpm(bytes.fromhex(P_VTPM)[:32]))
    assert result.verdict is Verdict.VERIFIED, failed(result)
    assert result.authenticated


@pytest.mark.parametrize(
    "bound",
    [
        b"",
        bytes(32),
        bytes.fromhex(P_VTPM),
        bytes.fromhex(P_VTPM)[:31],
        bytes.fromhex(P_VTPM)[:32] + b"\x00",
        bytes.fromhex(P_VTPM)[16:],
        bytes.fromhex(D_VTPM)[:32],
        bytes.fromhex(P_SNP)[:32],
        bytes.fromhex(P_SAMPLE)[:32],
    ],
)
def test_row_vtpm_alone_refuses_any_other_field(bound: bytes) -> None:
    result = verify(vtpm(bound))
    assert failed(result) == ["binding.primary"]
    assert not result.authenticated


# --- row vtpm beside a CPU report: extraData = D("vtpm")[0:32], and in M --------------


def beside(
    device: dict[str, Any], *, in_m: tuple[tuple[str, str], ...]
) -> BundleResult:
    return verify(snp(bytes.fromhex(p("snp", *in_m))), device)


def test_row_vtpm_beside_a_cpu_report() -> None:
    device = vtpm(bytes.fromhex(D_VTPM)[:32])
    result = verify(snp(bytes.fromhex(P_SNP_WITH_VTPM)), device)
    assert result.verdict is Verdict.VERIFIED, failed(result)
    assert result.authenticated
    assert result.devices == (("vtpm", CORE_VTPM),)


@pytest.mark.parametrize(
    "bound",
    [
        b"",
        bytes(32),
        bytes.fromhex(D_VTPM),
        bytes.fromhex(D_VTPM)[:31],
        bytes.fromhex(D_VTPM)[:32] + b"\x00",
        bytes.fromhex(P_VTPM)[:32],
        bytes.fromhex(D_SAMPLE)[:32],
    ],
)
def test_row_vtpm_beside_refuses_any_other_field(bound: bytes) -> None:
    device = vtpm(bound)
    result = beside(device, in_m=(("vtpm", vtpm_core(device)),))
    assert failed(result) == ["binding.devices"]


def test_a_device_of_another_machine_swapped_in_is_found() -> None:
    """Another enrolled TPM quoted the same D for the same challenge."""
    theirs = vtpm(bytes.fromhex(D_VTPM)[:32], scalar=8)
    result = beside(theirs, in_m=(("vtpm", CORE_VTPM),))
    assert "binding.devices" in failed(result)
    assert result.verdict is Verdict.REFUSED
    assert not result.authenticated
    honest = beside(theirs, in_m=(("vtpm", vtpm_core(theirs, scalar=8)),))
    assert honest.verdict is Verdict.VERIFIED


def test_a_device_that_the_primary_does_not_cover_is_found() -> None:
    device = vtpm(bytes.fromhex(D_VTPM)[:32])
    result = beside(device, in_m=())
    assert failed(result) == ["binding.primary", "binding.devices"]


def test_a_device_left_out_is_found() -> None:
    assert failed(verify(snp(bytes.fromhex(P_SNP_WITH_VTPM)))) == ["binding.primary"]


def test_two_quotes_of_one_ak_are_one_device_twice() -> None:
    device = vtpm(bytes.fromhex(D_VTPM)[:32])
    tpm().clock += 1
    again = vtpm(bytes.fromhex(D_VTPM)[:32])
    tpm().clock -= 1
    covered = (("vtpm", vtpm_core(device)), ("vtpm", vtpm_core(again)))
    result = verify(snp(bytes.fromhex(p("snp", *covered))), device, again)
    assert failed(result) == ["binding.duplicate"]


# --- row sample: report_data = P (or D) -----------------------------------------------


def test_row_sample_as_primary() -> None:
    result = verify(sample(bytes.fromhex(P_SAMPLE)))
    assert result.verdict is Verdict.VERIFIED, failed(result)


def test_row_sample_as_device() -> None:
    device = sample(bytes.fromhex(D_SAMPLE))
    text = json.dumps(device, sort_keys=True, separators=(",", ":"))
    core = hashlib.sha384(text.encode()).hexdigest()
    result = beside(device, in_m=(("sample", core),))
    assert result.verdict is Verdict.VERIFIED, failed(result)
    wrong = sample(bytes.fromhex(P_SAMPLE))
    text = json.dumps(wrong, sort_keys=True, separators=(",", ":"))
    core = hashlib.sha384(text.encode()).hexdigest()
    assert failed(beside(wrong, in_m=(("sample", core),))) == ["binding.devices"]


@pytest.mark.parametrize(
    ("bound", "check"),
    [
        (bytes(48), "binding.primary"),
        (bytes.fromhex(D_SAMPLE), "binding.primary"),
        (bytes.fromhex(P_SNP), "binding.primary"),
        (bytes.fromhex(P_SAMPLE)[:47], "sample.parse"),
        (bytes.fromhex(P_SAMPLE) + b"\x00", "sample.parse"),
    ],
)
def test_row_sample_refuses_any_other_field(bound: bytes, check: str) -> None:
    assert failed(verify(sample(bound))) == [check]


def test_another_request_has_another_binding() -> None:
    """Each member of the runtime data counts."""
    request = RUNTIME_DATA["request"]
    for changes in (
        {"audience": "kbs.example.com/log"},
        {"nonce": RUNTIME_DATA["nonce"][:-1] + "A"},
        {"request": {**request, "keys": request["keys"][::-1]}},
        {"request": {**request, "mode": "check"}},
        {"request": {**request, "partial": True}},
        {
            "recipient": {
                **RUNTIME_DATA["recipient"],
                # RFC 7748, section 6.1, Alice's public key.
                "x": "hSDwCYkwp1R0i33ctD73Wg2_Og0mOBr066SpjqqbTmo",
            }
        },
    ):
        other = RuntimeBinding(parse_runtime_data({**RUNTIME_DATA, **changes}))
        result = verify_bundle(
            Bundle((snp(bytes.fromhex(P_SNP)),)),
            trust=trust(),
            verifiers=VERIFIERS,
            binding=other,
        )
        assert failed(result) == ["binding.primary"]
