"""Tokens: one good case of each service, and a table of single changes."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from kbs.core.checks import Status
from kbs.core.encode import b64u
from kbs.core.errors import MalformedError
from kbs.evidence.model import (
    GivenCollateral,
    ItemResult,
    ParsedItem,
    Trust,
    TrustedIssuer,
)
from kbs.evidence.token.verify import TokenVerifier
from kbs.pki.issuers import Profile
from tests.fakes.amd import NOW
from tests.fakes.tokens import (
    EAR,
    GCS,
    ITA,
    MAA,
    NRAS,
    FakeGooglePKI,
    FakeIssuer,
    FakeSet,
    ear_claims,
    gcs_claims,
    gpu_claims,
    ita_claims,
    maa_claims,
    unsigned,
)

VERIFIER = TokenVerifier()
NONCE = "ab" * 32
ISSUERS = tuple(one.trusted() for one in (MAA, ITA, NRAS, GCS, EAR))
GOOD: Mapping[str, dict[str, object]] = {
    "maa": MAA.item(maa_claims()),
    "ita": ITA.item(ita_claims()),
    "nras": FakeSet(nonce=NONCE, count=2).item(),
    "gcs": GCS.item(gcs_claims()),
    "ear": EAR.item(ear_claims()),
}


def trust(*issuers: TrustedIssuer, **changes: Any) -> Trust:
    options: dict[str, Any] = {"now": NOW, "issuers": issuers or ISSUERS, **changes}
    return Trust(**options)


def verify(item: Mapping[str, object], given: Trust | None = None) -> ItemResult:
    return VERIFIER.verify(VERIFIER.parse(item, 3), given or trust())


def stopping(result: ItemResult) -> dict[str, str]:
    ended = {Status.FAIL, Status.UNCHECKED}
    return {one.id: one.status.value for one in result.checks if one.status in ended}


@pytest.mark.parametrize("profile", GOOD)
def test_a_token_of_each_service_is_verified(profile: str) -> None:
    result = verify(GOOD[profile])
    assert stopping(result) == {}
    assert result.authenticated
    assert result.claims is not None
    assert (result.claims.family, result.claims.item) == (profile, 3)
    assert result.claims.trusted_in == frozenset({"acme"})
    assert {check.item for check in result.checks} == {3}


@pytest.mark.parametrize("profile", GOOD)
def test_without_its_issuer_a_token_could_not_be_checked(profile: str) -> None:
    others = tuple(one for one in ISSUERS if one.profile.value != profile)
    result = verify(GOOD[profile], trust(*others))
    found = stopping(result)
    assert found["token.issuer"] == found["token.signature"] == "unchecked"
    assert "fail" not in found.values()
    assert not result.authenticated
    assert result.claims is None
    (told,) = (one for one in result.checks if one.id == "token.signature")
    assert "kbs ref add issuer" in told.detail


def test_what_an_unknown_signer_says_of_times_is_nobodys_word() -> None:
    late = trust(GCS.trusted(), now=NOW + timedelta(days=9))
    found = stopping(verify(GOOD["maa"], late))
    assert found["token.validity"] == "unchecked"


@pytest.mark.parametrize(
    ("issuer", "found"),
    [
        # The same service under another name, and another profile under the same name.
        (MAA.trusted(issuer="https://other.attest.azure.net"), "unchecked"),
        (MAA.trusted(profile=Profile.EAR), "unchecked"),
        # The key of somebody else under the id that the token names.
        (FakeIssuer(profile=Profile.MAA, number=1).trusted(), "fail"),
        # Its own key under another id.
        (FakeIssuer(profile=Profile.MAA, kid="key-2").trusted(), "unchecked"),
    ],
)
def test_profile_name_and_key_must_all_be_registered(
    issuer: TrustedIssuer, found: str
) -> None:
    result = verify(GOOD["maa"], trust(issuer))
    assert stopping(result)["token.signature"] == found
    assert result.claims is None


def test_a_key_of_one_issuer_says_nothing_under_anothers_name() -> None:
    """Two services are registered; the second signs in the first one's name."""
    second = FakeIssuer(profile=Profile.EAR, issuer="https://b.example.org", number=1)
    forged = replace(second, issuer=EAR.iss).item(ear_claims())
    result = verify(forged, trust(EAR.trusted(), second.trusted()))
    assert stopping(result) == {"token.signature": "fail"}


# --- algorithms -----------------------------------------------------------------------


def test_an_hmac_with_the_public_key_is_no_signature() -> None:
    """The classic confusion: HS256 keyed with the bytes of the RSA public key."""
    pem = MAA.key.public_key().public_bytes(
        Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
    )
    claims = {"iss": MAA.iss, "exp": int(NOW.timestamp()) + 60}
    signed = unsigned({"alg": "HS256", "kid": "key-1"}, claims).rstrip(".")
    token = f"{signed}.{b64u(hmac.digest(pem, signed.encode(), 'sha256'))}"
    result = verify({"kind": "token", "jwt": token})
    assert stopping(result) == {"token.algorithm": "fail", "token.signature": "fail"}


@pytest.mark.parametrize("algorithm", ["none", "None", "HS384", "RS512", "PS256", "x"])
@pytest.mark.parametrize("registered", [True, False])
def test_only_the_registered_algorithm_counts(
    algorithm: str, *, registered: bool
) -> None:
    token = unsigned({"alg": algorithm, "kid": "key-1"}, {"iss": MAA.iss})
    issuers = (MAA.trusted(),) if registered else (GCS.trusted(),)
    found = stopping(verify({"kind": "token", "jwt": token}, trust(*issuers)))
    assert found["token.algorithm"] == found["token.signature"] == "fail"


def test_a_key_is_used_with_its_own_algorithm_only() -> None:
    """Both are Intel's, and the same RSA key could make both."""
    other = replace(ITA, algorithm="RS256")
    token = jwt.encode(
        {"iss": ITA.iss, **ita_claims(), "exp": int(NOW.timestamp()) + 60},
        ITA.key,
        algorithm="RS256",
        headers={"kid": "key-1"},
    )
    result = verify({"kind": "token", "jwt": token}, trust(ITA.trusted()))
    assert stopping(result)["token.algorithm"] == "fail"
    assert stopping(verify(other.item(ita_claims()), trust(other.trusted()))) == {}


@pytest.mark.parametrize("alg", ["ES256", "ES384", "ES512", "EdDSA", "RS384", "PS512"])
def test_an_ear_is_by_what_its_key_says(alg: str) -> None:
    issuer = replace(EAR, algorithm=alg)
    assert stopping(verify(issuer.item(ear_claims()), trust(issuer.trusted()))) == {}


# --- what a token says about keys -----------------------------------------------------


@pytest.mark.parametrize("name", ["jwk", "jku", "x5u", "x5c"])
def test_keys_in_or_behind_a_token_are_not_believed(name: str) -> None:
    """Somebody signs with a key of their own and brings it along."""
    stranger = replace(EAR, number=9, kid=None)
    pki = FakeGooglePKI()
    header = {
        "jwk": stranger.jwk(),
        "jku": "https://127.0.0.1:1/keys",
        "x5u": "https://127.0.0.1:1/chain",
        "x5c": pki.x5c(),
    }
    token = stranger.item(ear_claims(), header={name: header[name]})
    assert stopping(verify(token)) == {"token.signature": "fail"}
    shown = VERIFIER.inspect(VERIFIER.parse(token, 0))
    assert ("not_believed" in shown) is (name != "x5c")


def test_a_token_without_a_key_id_is_tried_with_each_key() -> None:
    anonymous = replace(EAR, kid=None)
    result = verify(anonymous.item(ear_claims()), trust(EAR.trusted()))
    assert stopping(result) == {}
    other = replace(anonymous, number=5).item(ear_claims())
    assert stopping(verify(other, trust(EAR.trusted()))) == {"token.signature": "fail"}


# --- times and audience ---------------------------------------------------------------

_NOW = int(NOW.timestamp())


@pytest.mark.parametrize(
    ("claims", "found"),
    [
        ({}, None),
        ({"exp": _NOW + 1}, None),
        ({"exp": _NOW}, "fail"),
        ({"exp": None}, "fail"),
        ({"nbf": _NOW + 1}, "fail"),
        ({"nbf": None, "iat": None}, None),
        ({"iat": _NOW + 1}, "fail"),
    ],
)
def test_a_token_counts_between_its_times(
    claims: dict[str, Any], found: str | None
) -> None:
    result = verify(EAR.item(ear_claims(**claims)))
    assert stopping(result).get("token.validity") == found
    assert (result.claims is None) is (found is not None)


def test_recorded_evidence_without_an_end_is_only_told_of() -> None:
    item = EAR.item(ear_claims(exp=None))
    result = verify(item, trust(recorded=True))
    assert stopping(result) == {}
    (told,) = (one for one in result.checks if one.id == "token.validity")
    assert told.status is Status.SKIPPED


@pytest.mark.parametrize(
    ("registered", "audience", "found"),
    [
        ("kbs", "kbs", None),
        ("kbs", "other", "fail"),
        ("kbs", ["kbs"], "fail"),
        ("kbs", ["kbs", "other"], "fail"),
        ("kbs", None, "fail"),
        (None, "kbs", "fail"),
        (None, None, None),
    ],
)
def test_the_audience_is_exactly_the_registered_one(
    registered: str | None, audience: object, found: str | None
) -> None:
    item = GCS.item(gcs_claims(aud=audience))
    result = verify(item, trust(GCS.trusted(audience=registered)))
    assert stopping(result).get("token.audience") == found


def test_a_token_counts_in_the_tenants_whose_issuer_and_audience_it_is() -> None:
    issuers = (
        GCS.trusted(tenant="acme"),
        GCS.trusted(tenant="rival", audience="rival"),
        GCS.trusted(tenant="shared"),
    )
    result = verify(GOOD["gcs"], trust(*issuers))
    assert result.claims is not None
    assert result.claims.trusted_in == frozenset({"acme", "shared"})


def test_keys_of_the_command_line_count_everywhere_and_say_so() -> None:
    given = MAA.trusted(tenant=None, issuer=None)
    result = verify(GOOD["maa"], trust(given))
    assert result.claims is not None
    assert result.claims.trusted_in is None
    (told,) = (one for one in result.checks if one.id == "token.issuer")
    assert told.status is Status.SKIPPED


def test_a_brokers_own_token_is_never_evidence() -> None:
    """Even when somebody registered the broker's key as an issuer."""
    identity: Any = {"ear.verifier-id": {"developer": "kbs", "build": "kbs 1"}}
    own = ear_claims(**identity)
    assert stopping(verify(EAR.item(own))) == {"token.verifier": "fail"}


# --- sets of NVIDIA -------------------------------------------------------------------


def test_each_device_of_a_set_has_claims_of_its_own() -> None:
    result = verify(FakeSet(nonce=NONCE, count=3).item())
    assert result.claims is not None
    devices = (result.claims, *result.further_claims)
    names = [one.values["nras.submodule"] for one in devices]
    assert names == ["GPU-0", "GPU-1", "GPU-2"]
    assert all(one.values["nras.x_nvidia_overall_att_result"] for one in devices)
    assert len({one.values["nras.ueid"] for one in devices}) == 3
    assert "gpu:0fa0" in result.identities


def changed_set(**changes: Any) -> dict[str, object]:
    item: dict[str, Any] = FakeSet(nonce=NONCE, count=2).item()
    for name, token in changes.items():
        key = name.replace("_", "-")
        if token is None:
            del item["submodules"][key]
        else:
            item["submodules"][key] = token
    return item


def same_token_twice() -> dict[str, object]:
    """A set with one token, that names no device, under two names."""
    token = NRAS.sign({**gpu_claims(NONCE), "ueid": None})
    entry = ["DIGEST", ["SHA-256", hashlib.sha256(token.encode()).hexdigest()]]
    overall = {"submods": {"GPU-0": entry, "GPU-1": entry}}
    item = FakeSet(nonce=NONCE, overall=overall).item()
    return {**item, "submodules": {"GPU-0": token, "GPU-1": token}}


STRANGER = replace(NRAS, number=4)


@pytest.mark.parametrize(
    ("item", "found"),
    [
        (changed_set(GPU_1=None), {"token.submodules": "unchecked"}),
        (
            changed_set(GPU_0=None, GPU_1=None),
            {
                "token.submodules": "unchecked",
                "token.submodules.signature": "unchecked",
            },
        ),
        (
            changed_set(GPU_1=FakeSet(nonce=NONCE).tokens()["GPU-0"]),
            {"token.submodules": "fail"},
        ),
        (
            changed_set(GPU_7=FakeSet(nonce=NONCE).tokens()["GPU-0"]),
            {"token.submodules": "fail"},
        ),
        (
            FakeSet(nonce=NONCE, device={"eat_nonce": "cd" * 32}).item(),
            {"token.submodules": "fail"},
        ),
        (
            FakeSet(nonce=NONCE, device={"iss": "https://other"}).item(),
            {"token.submodules": "fail"},
        ),
        (
            FakeSet(nonce=NONCE, signers={"GPU-0": STRANGER}).item(),
            {"token.submodules.signature": "fail"},
        ),
        # One GPU's report, sent to the service twice, is one GPU: in any spelling.
        (
            FakeSet(nonce=NONCE, count=2, device={"ueid": "4001"}).item(),
            {"token.submodules": "fail"},
        ),
        (
            FakeSet(
                nonce=NONCE, count=2, ueids={"GPU-0": "4001", "GPU-1": "04001"}
            ).item(),
            {"token.submodules": "fail"},
        ),
        (same_token_twice(), {"token.submodules": "fail"}),
        (
            FakeSet(nonce=NONCE, device={"exp": _NOW}).item(),
            {"token.validity": "fail"},
        ),
        (
            FakeSet(nonce=NONCE, overall={"submods": {"GPU-0": "x"}}).item(),
            {"token.submodules": "fail"},
        ),
        (
            FakeSet(
                nonce=NONCE, overall={"submods": {"GPU-0": ["DIGEST", ["MD5", ""]]}}
            ).item(),
            {"token.submodules": "fail"},
        ),
        (
            FakeSet(nonce=NONCE, overall={"submods": {"GPU-0": ["DIGEST", 1]}}).item(),
            {"token.submodules": "fail"},
        ),
    ],
)
def test_a_set_holds_together(item: dict[str, object], found: dict[str, str]) -> None:
    assert stopping(verify(item)) == found


def test_a_bad_result_is_a_claim_for_policy() -> None:
    overall = {"x-nvidia-overall-att-result": False}
    result = verify(FakeSet(nonce=NONCE, overall=overall).item())
    assert result.claims is not None
    assert result.claims.values["nras.x_nvidia_overall_att_result"] is False


# --- PKI tokens -----------------------------------------------------------------------


PKI = FakeGooglePKI()


def test_a_chain_in_a_token_leads_to_the_pinned_root() -> None:
    item = PKI.sign(gcs_claims())
    result = verify(item, trust(PKI.trusted(), require_revocation=False))
    assert stopping(result) == {}
    assert result.authenticated
    # As for every chain: on the release path a list must be to hand.
    found = stopping(verify(item, trust(PKI.trusted())))
    assert found == {"token.revocation": "unchecked"}
    # Without a pinned root the same chain is nothing.
    result = verify(item, trust(GCS.trusted(), require_revocation=False))
    assert stopping(result) == {"token.signature": "fail"}


@pytest.mark.parametrize(
    ("chain", "check"),
    [
        (PKI.x5c(PKI.leaf), "token.chain"),
        (PKI.x5c(PKI.leaf, PKI.root), "token.chain"),
        (PKI.x5c(PKI.middle, PKI.root), "token.signature"),
        (PKI.x5c(PKI.root), "token.chain"),
    ],
)
def test_another_chain_is_refused(chain: list[str], check: str) -> None:
    item = PKI.sign(gcs_claims(), chain)
    found = stopping(verify(item, trust(PKI.trusted(), require_revocation=False)))
    assert found[check] == "fail"


def test_the_root_may_come_as_collateral() -> None:
    item = PKI.sign(gcs_claims(), PKI.x5c(PKI.leaf, PKI.middle))
    given = trust(
        PKI.trusted(),
        require_revocation=False,
        collateral=GivenCollateral((PKI.root,)),
    )
    assert stopping(verify(item, given)) == {}


def test_a_chain_of_another_root_is_refused() -> None:
    stranger = replace(PKI.trusted(), roots=frozenset({"00" * 32}))
    item = PKI.sign(gcs_claims())
    result = verify(item, trust(stranger, require_revocation=False))
    assert stopping(result)["token.chain"] == "fail"
    assert not result.authenticated


def test_a_chain_that_ran_out_is_refused() -> None:
    old = FakeGooglePKI(NOW - timedelta(days=2), leaf_days=1)
    item = old.sign(gcs_claims())
    given = trust(old.trusted(), require_revocation=False)
    assert stopping(verify(item, given)) == {"token.validity": "fail"}


@pytest.mark.parametrize("revoked", ["leaf", "middle", None])
def test_a_chain_is_held_against_the_lists_of_its_issuers(revoked: str | None) -> None:
    lists = PKI.lists(*([getattr(PKI, revoked)] if revoked else []))
    given = trust(PKI.trusted(), collateral=GivenCollateral((), lists))
    found = stopping(verify(PKI.sign(gcs_claims()), given))
    assert found == ({"token.revocation": "fail"} if revoked else {})


def test_a_leaf_with_a_weak_key_signs_nothing() -> None:
    small = rsa.generate_private_key(65537, 1024)  # noqa: S505 - on purpose
    weak = FakeGooglePKI(leaf_key=small)
    item = {
        "kind": "token",
        "jwt": unsigned(
            {"alg": "RS256", "x5c": weak.x5c()},
            {"iss": GCS.iss, "aud": "kbs", "exp": _NOW + 60},
        ),
    }
    given = trust(weak.trusted(), require_revocation=False)
    assert stopping(verify(item, given))["token.signature"] == "fail"


def test_only_issuers_with_a_root_vouch_for_a_chain() -> None:
    given = trust(PKI.trusted(), GCS.trusted(tenant="rival"), require_revocation=False)
    result = verify(PKI.sign(gcs_claims()), given)
    assert result.claims is not None
    assert result.claims.trusted_in == frozenset({"acme"})


def test_the_chain_fixes_the_algorithm_too() -> None:
    token = unsigned({"alg": "none", "x5c": PKI.x5c()}, {"iss": GCS.iss, "aud": "kbs"})
    given = trust(PKI.trusted(), require_revocation=False)
    found = stopping(verify({"kind": "token", "jwt": token}, given))
    assert found["token.algorithm"] == found["token.signature"] == "fail"


# --- claims ---------------------------------------------------------------------------


def claims_of(item: Mapping[str, object]) -> Mapping[str, object]:
    result = verify(item)
    assert result.claims is not None, stopping(result)
    return result.claims.values


@pytest.mark.parametrize(
    ("changes", "debug"),
    [
        ({}, False),
        ({"x-ms-sevsnpvm-is-debuggable": True}, True),
        ({"x-ms-sevsnpvm-is-debuggable": "no"}, True),
        ({"x-ms-sevsnpvm-is-debuggable": None}, None),
        ({"tdx_td_attributes_debug": True}, True),
        ({"dbgstat": "enabled"}, True),
    ],
)
def test_debug_is_true_when_any_flag_is(
    changes: dict[str, object], *, debug: bool | None
) -> None:
    values = claims_of(MAA.item(maa_claims(**changes)))
    assert values.get("maa.debug") is debug


TD = {
    "tdx_mrtd": "ab" * 48,
    "tdx_mrsignerseam": "0" * 96,
    "tdx_seam_attributes": "0" * 16,
    "tdx_td_attributes": "0000001000000000",
    "tdx_is_debuggable": False,
}
ENCLAVE = {"sgx_mrenclave": "ab" * 32, "sgx_is_debuggable": False}
SERVICES: Mapping[str, Callable[..., dict[str, object]]] = {
    "maa": lambda **tee: MAA.item({"x-ms-attestation-type": "tdxvm", **tee}),
    "ita": lambda **tee: ITA.item({"attester_type": "TDX", "ver": "1", **tee}),
}


@pytest.mark.parametrize("family", SERVICES)
@pytest.mark.parametrize(
    ("tee", "allowed"),
    [
        (TD, False),
        ({**TD, "tdx_is_migratable": True}, True),
        ({**TD, "tdx_td_attributes": "0000002000000000"}, True),
        ({**TD, "tdx_td_attributes": "0000"}, True),
        ({**TD, "tdx_td_attributes": "zz"}, True),
        ({**TD, "tdx_td_attributes": 0}, True),
        # A TD of which the token does not say; an enclave, which cannot be moved.
        ({**TD, "tdx_td_attributes": None}, None),
        ({**TD, "tdx_td_attributes": None, "tdx_is_migratable": False}, False),
        (ENCLAVE, False),
    ],
)
def test_migration_is_read_from_flags_and_attributes(
    family: str, tee: dict[str, object], *, allowed: bool | None
) -> None:
    values = claims_of(SERVICES[family](**tee))
    assert values.get(f"{family}.migration_allowed") is allowed


@pytest.mark.parametrize(
    ("given", "allowed"), [(False, False), (True, True), ("no", True), (None, None)]
)
def test_migration_of_snp_is_what_its_policy_says(
    given: object, *, allowed: bool | None
) -> None:
    changes = {"x-ms-sevsnpvm-migration-allowed": given}
    values = claims_of(MAA.item(maa_claims(**changes)))
    assert values.get("maa.migration_allowed") is allowed


@pytest.mark.parametrize("family", SERVICES)
@pytest.mark.parametrize(
    ("tee", "other"),
    [
        (TD, False),
        ({**TD, "tdx_mrsignerseam": "0" * 95 + "1"}, True),
        ({**TD, "tdx_mrsignerseam": "0" * 94}, True),
        ({**TD, "tdx_seam_attributes": "01" + "0" * 14}, True),
        ({**TD, "tdx_seam_attributes": 0}, True),
        ({**TD, "tdx_mrsignerseam": None}, None),
        ({**TD, "tdx_mrsignerseam": None, "tdx_seam_attributes": "1" * 16}, True),
        (ENCLAVE, False),
    ],
)
def test_only_intels_tdx_module_is_no_other(
    family: str, tee: dict[str, object], *, other: bool | None
) -> None:
    values = claims_of(SERVICES[family](**tee))
    assert values.get(f"{family}.other_tdx_module") is other


def test_a_td_has_no_vmpl_above_zero() -> None:
    td = {"x-ms-attestation-type": "tdxvm", "x-ms-ver": "1.0", "tdx_mrtd": "AB" * 48}
    values = claims_of(MAA.item({**td, "tdx_td_attributes_debug": False}))
    assert (values["maa.vmpl"], values["maa.debug"]) == (0, False)
    assert values["maa.tdx_mrtd"] == "ab" * 48
    low = claims_of(MAA.item(maa_claims(**{"x-ms-sevsnpvm-vmpl": 2})))
    assert low["maa.vmpl"] == 2
    odd = claims_of(MAA.item(maa_claims(**{"x-ms-sevsnpvm-vmpl": "0"})))
    assert "maa.vmpl" not in odd


def test_claims_of_another_type_are_left_out() -> None:
    odd = {
        "x-ms-sevsnpvm-launchmeasurement": "abc",
        "x-ms-sevsnpvm-hostdata": "cd" * 31,
        "x-ms-sevsnpvm-guestsvn": True,
        "x-ms-policy-hash": 7,
        "secureboot": "yes",
    }
    values = claims_of(MAA.item(maa_claims(**odd)))
    assert not any("measurement" in name or "hostdata" in name for name in values)
    assert "maa.x_ms_policy_hash" not in values
    assert "maa.secureboot" not in values
    assert "maa.x_ms_sevsnpvm_guestsvn" not in values
    mixed = claims_of(GCS.item(gcs_claims(swversion=["1", 2], submods=7)))
    assert "gcs.swversion" not in mixed
    assert not any(name.startswith("gcs.submods") for name in mixed)


@pytest.mark.parametrize(
    ("changes", "debug"),
    [
        ({}, False),
        ({"dbgstat": "enabled"}, True),
        ({"dbgstat": "x"}, True),
        ({"dbgstat": None}, False),
        ({"dbgstat": None, "tdx_is_debuggable": None}, None),
        ({"tdx_is_debuggable": True}, True),
    ],
)
def test_intels_debug_state(changes: dict[str, Any], *, debug: bool | None) -> None:
    values = claims_of(ITA.item(ita_claims(**changes)))
    assert values.get("ita.debug") is debug


def test_version_2_of_intels_tokens_has_the_same_claims() -> None:
    first = ita_claims()
    common = ("ver", "verifier_instance_ids", "policy_ids_matched")
    inner = {name: value for name, value in first.items() if name not in common}
    del inner["attester_type"]
    second = {name: first[name] for name in common} | {"tdx": inner, "ver": "2.0.0"}
    values = claims_of(ITA.item(second))
    assert values["ita.tdx_mrtd"] == "ab" * 48
    assert values["ita.attester_type"] == "TDX"
    assert values["ita.policy_ids_matched"] == ("p1",)
    assert values["ita.debug"] is False


def test_policies_of_another_form_are_no_claim() -> None:
    values = claims_of(ITA.item(ita_claims(policy_ids_matched={"id": "x"})))
    assert "ita.policy_ids_matched" not in values
    mixed = claims_of(ITA.item(ita_claims(policy_ids_matched=["x", {"id": 7}])))
    assert mixed["ita.policy_ids_matched"] == ()


@pytest.mark.parametrize(
    ("device", "kind"),
    [
        ({}, "gpu"),
        (
            {
                "x-nvidia-gpu-driver-version": None,
                "x-nvidia-gpu-attestation-report-signature-verified": None,
                "x-nvidia-switch-bios-version": "96.10",
            },
            "switch",
        ),
        (
            {
                "x-nvidia-gpu-driver-version": None,
                "x-nvidia-gpu-attestation-report-signature-verified": None,
            },
            None,
        ),
    ],
)
def test_a_device_is_a_gpu_or_a_switch(
    device: dict[str, object], kind: str | None
) -> None:
    values = claims_of(FakeSet(nonce=NONCE, device=device).item())
    assert values.get("nras.device_type") == kind


@pytest.mark.parametrize("ueid", [None, "0x10", "", "１", 7, "1" * 5000])
def test_a_device_without_a_plain_identity_has_none(ueid: object) -> None:
    result = verify(FakeSet(nonce=NONCE, device={"ueid": ueid}).item())
    assert result.identities == ()


def test_variables_that_the_host_set_are_told_sorted() -> None:
    values = claims_of(GOOD["gcs"])
    assert values["gcs.submods.container.env_override"] == ("A=1", "B=2")
    assert values["gcs.submods.confidential_space.support_attributes"] == (
        *("STABLE", "USABLE"),
    )


@pytest.mark.parametrize("variables", [[], {"A": 1}, {"A=1": "2"}, {"A": None}])
def test_variables_of_another_form_are_no_claim(variables: object) -> None:
    changed = {"container": {"env_override": variables}}
    values = claims_of(GCS.item(gcs_claims(submods=changed)))
    assert "gcs.submods.container.env_override" not in values


def test_submodules_of_a_result_are_judged_one_by_one() -> None:
    good = ear_claims()["submods"]
    assert isinstance(good, dict)
    both = {**good, "gpu0": {"ear.status": "contraindicated"}}
    result = verify(EAR.item(ear_claims(submods=both)))
    assert result.claims is not None
    (second,) = result.further_claims
    assert result.claims.values["ear.status"] == "affirming"
    assert second.values["ear.status"] == "contraindicated"
    assert second.values["ear.submodule"] == "gpu0"


@pytest.mark.parametrize("submods", [{}, {"cpu0": 7}, {"cpu0": {}, "x": 1}, None])
def test_a_result_that_cannot_be_read_has_no_status(submods: object) -> None:
    result = verify(EAR.item(ear_claims(submods=submods)))
    assert result.claims is not None
    assert result.further_claims == ()
    assert "ear.status" not in result.claims.values


# --- the item -------------------------------------------------------------------------


def test_the_item_says_what_it_is_about() -> None:
    for profile, item in GOOD.items():
        parsed = VERIFIER.parse(item, 0)
        assert parsed.core == str(item["jwt"]).encode()
        assert parsed.primary is (profile != "nras")
        assert parsed.bound_as == ("nvgpu" if profile == "nras" else None)
        assert VERIFIER.inspect(parsed)["profile"] == profile


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "snp"},
        {"jwt": 7},
        {"jwt": "a.b"},
        {"jwt": "a.b.c.d"},
        {"jwt": "e30.e30.e30="},
        {"jwt": "e30.e30.e30 "},
        {"more": 1},
        {"submodules": {"GPU-0": "e30.e30."}},
        {"submodules": []},
    ],
)
def test_other_items_are_malformed(changes: dict[str, object]) -> None:
    with pytest.raises(MalformedError):
        VERIFIER.parse({**GOOD["ear"], **changes}, 0)


@pytest.mark.parametrize(
    "header",
    [
        {},
        {"alg": 7},
        {"alg": "ES256", "crit": ["b64"]},
        {"alg": "ES256", "crit": []},
        {"alg": "ES256", "b64": False},
        {"alg": "ES256", "b64": True},
        {"alg": "ES256", "kid": 7},
        {"alg": "ES256", "kid": None},
        {"alg": "ES256", "x5c": "text"},
        {"alg": "ES256", "x5c": ["AA=="]},
    ],
)
def test_other_headers_are_malformed(header: dict[str, object]) -> None:
    with pytest.raises(MalformedError):
        VERIFIER.parse({"kind": "token", "jwt": unsigned(header, {})}, 0)


@pytest.mark.parametrize("name", ["nbf", "iat", "exp"])
@pytest.mark.parametrize("value", ["1", True, -1, 2**52, []])
def test_other_times_are_malformed(name: str, value: object) -> None:
    item = {"kind": "token", "jwt": unsigned({"alg": "ES256"}, {name: value})}
    with pytest.raises(MalformedError):
        VERIFIER.parse(item, 0)


@pytest.mark.parametrize("claims", ['{"a":1,"a":2}', '{"a":1.5}', "[]", "7", "{"])
def test_claims_are_one_strict_object(claims: str) -> None:
    header = b64u(b'{"alg":"ES256"}')
    item = {"kind": "token", "jwt": f"{header}.{b64u(claims.encode())}."}
    with pytest.raises(MalformedError):
        VERIFIER.parse(item, 0)


@pytest.mark.parametrize("count", [33, 34])
def test_a_set_has_a_most_of_devices(count: int) -> None:
    item: dict[str, Any] = dict(GOOD["nras"])
    one = item["submodules"]["GPU-0"]
    item["submodules"] = {f"GPU-{index}": one for index in range(count)}
    with pytest.raises(MalformedError):
        VERIFIER.parse(item, 0)


def test_only_nvidias_tokens_come_in_sets() -> None:
    item: dict[str, Any] = dict(GOOD["nras"])
    with pytest.raises(MalformedError):
        VERIFIER.parse({**GOOD["ear"], "submodules": item["submodules"]}, 0)
    assert not VERIFIER.bound_matches(VERIFIER.parse(item, 0), bytes(47))


@pytest.mark.parametrize("name", ["", "../x", "a b", "x" * 65, "-"])
def test_names_in_a_set_are_plain(name: str) -> None:
    item: dict[str, Any] = dict(GOOD["nras"])
    with pytest.raises(MalformedError):
        VERIFIER.parse({**item, "submodules": {name: item["submodules"]["GPU-0"]}}, 0)


def test_an_item_of_another_family_is_a_mistake_of_the_program() -> None:
    foreign = ParsedItem(kind="snp", index=0, core=b"", bound=b"", body=object())
    with pytest.raises(TypeError):
        VERIFIER.verify(foreign, trust())
