"""Releases by tokens and by CCA tokens: what is registered decides, for each tenant."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from kbs.core.encode import b64, b64u, canonical_json
from kbs.governance.statement import Action, Kind
from tests.fakes.answers import releases, see
from tests.fakes.cca import FakeCca
from tests.fakes.tokens import (
    EAR,
    MAA,
    FakeIssuer,
    ear_claims,
    maa_claims,
)
from tests.fakes.world import Request, World

KEY = "acme/model/chat"
CCA = FakeCca()

RIM, LAUNCH = "ab" * 32, "ab" * 48
_CCA_RULE = f'{{claim: cca.realm.initial_measurement, equals: "{RIM}"}}'
_EAR_RULE = (
    "{every: ear, all: [{claim: ear.trustworthiness_vector.hardware, equals: 2}]}"
)
_MAA_RULE = f'{{claim: maa.x_ms_sevsnpvm_launchmeasurement, equals: "{LAUNCH}"}}'


def policy(*leaves: str) -> str:
    rule = "".join(f"      - {leaf}\n" for leaf in ("{safe: true}", *leaves))
    return (
        'kind: ReleasePolicy\nname: chat\nreleases: ["acme/model/*"]\n'
        f"allow:\n  - rule: only\n    all:\n{rule}"
    )


def issuer(fake: FakeIssuer) -> bytes:
    return canonical_json(
        {"profile": fake.profile.value, "issuer": fake.iss, "keys": [fake.jwk()]}
    )


def register(
    world: World, document: bytes, tenant: str = "acme", name: str = "service"
) -> dict[str, object]:
    return world.govern(Action.ADD, Kind.TOKEN_ISSUER, tenant, name, document)


def by_ear(world: World, **claims: Any) -> Request:
    now = world.clock.now()

    def make(primary: bytes) -> dict[str, object]:
        return EAR.item(ear_claims(b64u(primary), **claims), now=now)

    return world.request_by("token", make, [KEY])


def by_cca(world: World, fake: FakeCca = CCA) -> Request:
    return world.request_by("cca", lambda p: fake.item(p.ljust(64, b"\0")), [KEY])


def by_maa(world: World) -> Request:
    """The guest hands the primary object itself to the service."""
    data, _ = world.runtime_data([KEY])
    runtime: Mapping[str, object] = {
        "typ": "primary",
        "kind": "token",
        "runtime_data": data.to_json(),
        "devices": [],
    }
    item = MAA.item(maa_claims(runtime), now=world.clock.now())
    request = world.request_by("token", lambda _: item, [KEY])
    body = {
        "format": "kbs.evidence/1",
        "runtime_data": data.to_json(),
        "items": [item],
    }
    return Request(canonical_json(body), data, request.primary, request.private_key)


CASES: Mapping[str, tuple[bytes, str, Callable[[World], Request]]] = {
    "ear": (issuer(EAR), _EAR_RULE, by_ear),
    "maa": (issuer(MAA), _MAA_RULE, by_maa),
    "cca": (canonical_json(CCA.document()), _CCA_RULE, by_cca),
}


@pytest.mark.parametrize("family", CASES)
def test_a_key_is_released_while_the_issuer_is_registered(
    world: World, family: str
) -> None:
    document, rule, ask = CASES[family]
    world.activate_policy(policy(rule))
    world.create_key(KEY, b"the model key")
    seen = see(world, ask(world))
    assert (seen.status, seen.code) == (503, "evidence.unchecked")
    stored = register(world, document)
    assert see(world, ask(world)).status == 200
    (entry,) = releases(world)
    assert entry["outcome"] == "granted"
    answer = world.sign(Action.REMOVE, Kind.TOKEN_ISSUER, "acme", "service", stored)
    assert answer.status_code == 201
    assert see(world, ask(world)).status == 503
    listed = world.must("GET", "/admin/v1/objects?kind=token-issuer")
    assert "service" in str(listed)


@pytest.mark.parametrize("family", ["ear", "cca"])
def test_an_issuer_of_another_tenant_says_nothing_here(
    world: World, family: str
) -> None:
    document, rule, ask = CASES[family]
    world.activate_policy(policy(rule))
    world.create_key(KEY, b"the model key")
    register(world, document, tenant="rival")
    assert see(world, ask(world)).status == 403
    register(world, document, tenant="shared")
    assert see(world, ask(world)).status == 200


def test_a_released_key_can_be_opened_by_who_attested(world: World) -> None:
    world.activate_policy(policy(_EAR_RULE))
    world.create_key(KEY, b"the model key")
    register(world, issuer(EAR))
    assert world.released(by_ear(world)) == {f"{KEY}@1": b"the model key"}


@pytest.mark.parametrize("status", ["warning", "contraindicated", "none"])
def test_what_the_verifier_did_not_affirm_is_denied(world: World, status: str) -> None:
    world.activate_policy(policy(_EAR_RULE))
    world.create_key(KEY, b"the model key")
    register(world, issuer(EAR))
    assert see(world, by_ear(world, status=status)).status == 403


def test_a_platform_in_debug_is_denied(world: World) -> None:
    world.activate_policy(policy(_CCA_RULE))
    world.create_key(KEY, b"the model key")
    register(world, canonical_json(CCA.document()))
    debug = FakeCca(platform={2395: 0x4000})
    assert see(world, by_cca(world, debug)).status == 403
    assert see(world, by_cca(world)).status == 200


def test_a_measurement_can_be_denied(world: World) -> None:
    world.activate_policy(policy(_CCA_RULE))
    world.create_key(KEY, b"the model key")
    register(world, canonical_json(CCA.document()))
    deny = {"target": "measurement", "value": "ab" * 32, "reason": "broken"}
    world.govern(Action.DENY, Kind.DENY, "acme", "d1", canonical_json(deny))
    assert see(world, by_cca(world)).status == 403


def test_a_token_bound_to_another_request_is_refused(world: World) -> None:
    world.activate_policy(policy(_EAR_RULE))
    world.create_key(KEY, b"the model key")
    register(world, issuer(EAR))
    item = EAR.item(ear_claims(b64u(bytes(48))), now=world.clock.now())
    seen = see(world, world.request_by("token", lambda _: item, [KEY]))
    assert (seen.status, seen.checks) == (403, ["binding.primary"])


# --- policies -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("leaf", "claim"),
    [
        (_EAR_RULE, "ear.status"),
        (_MAA_RULE, "maa.debug"),
        (_CCA_RULE, "cca.platform.lifecycle"),
        ("{claim: gcs.hwmodel, equals: GCP_INTEL_TDX}", "gcs.swname"),
        ("{claim: ita.attester_type, equals: TDX}", "ita.attester_tcb_status"),
        ("{count: nras, at_least: 1}", "nras.x_nvidia_overall_att_result"),
    ],
)
def test_what_is_dangerous_to_leave_open_must_be_said(
    world: World, leaf: str, claim: str
) -> None:
    source = policy(leaf).replace("      - {safe: true}\n", "")
    answer = world.call(
        "POST",
        "/admin/v1/objects",
        {
            "kind": "release-policy",
            "tenant": "acme",
            "name": "chat",
            "source": b64(source.encode()),
        },
    )
    assert answer.status_code == 400
    assert claim in answer.get_data(as_text=True)
    world.activate_policy(policy(leaf))
