"""What names mean: a tenant's own, those of `shared/`, and when they may go away."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

import pytest

from kbs.core.encode import b64
from kbs.governance.statement import Action, Kind
from tests.fakes.tpm_ca import FakeTpmCA, certificate_b64
from tests.fakes.world import WORKLOAD, World

KEY = "acme/model/chat"
PCR0 = hashlib.sha256(bytes(32) + hashlib.sha256(b"firmware").digest()).hexdigest()


def _policy(*leaves: str) -> str:
    rule = "".join(
        f"      - {leaf}\n"
        for leaf in (
            "{safe: true}",
            f'{{claim: vtpm.pcr.sha256.0, equals: "{PCR0}"}}',
            *leaves,
        )
    )
    return (
        'kind: ReleasePolicy\nname: chat\nreleases: ["acme/model/*"]\n'
        "revocation: {tolerate_missing: true}\n"
        f"allow:\n  - rule: only\n    all:\n{rule}"
    )


HOSTS = "{claim: vtpm.ak.group, equals: hosts}"


def _store(world: World, kind: Kind, name: str, source: bytes) -> dict[str, object]:
    return world.store(kind, "acme", name, source)


# -- whose group, whose CA ---------------------------------------------------------


def test_shared_puts_no_key_into_a_group_of_a_tenant(any_world: World) -> None:
    world = any_world
    own = world.standard()
    stranger = world.booted_tpm()
    world.enrol(stranger, "hosts", "shared")
    assert world.send(world.request(own)).status_code == 200
    answer = world.send(world.request(stranger))
    assert answer.status_code == 403
    # A policy that means the group of `shared/` says so.
    world.activate_policy(_policy("{claim: vtpm.ak.group, equals: shared/hosts}"))
    assert world.send(world.request(stranger)).status_code == 200
    assert world.send(world.request(own)).status_code == 403
    # And one that takes both names both.
    world.activate_policy(_policy("{claim: vtpm.ak.group, in: [hosts, shared/hosts]}"))
    assert world.send(world.request(stranger)).status_code == 200
    assert world.send(world.request(own)).status_code == 200


def test_a_ca_of_shared_is_named_as_such(world: World) -> None:
    ca, tpm = FakeTpmCA(), world.booted_tpm()
    content = {"purpose": "ak", "certificate": certificate_b64(ca.root)}
    world.govern(Action.ADD, Kind.CA, "shared", "maker", json.dumps(content).encode())
    world.create_key(KEY, b"key")
    stored = _store(
        world,
        Kind.RELEASE_POLICY,
        "chat",
        _policy("{claim: vtpm.ak.ca, equals: maker}").encode(),
    )
    answer = world.sign(Action.ACTIVATE, Kind.RELEASE_POLICY, "acme", "chat", stored)
    assert (answer.status_code, answer.get_json()["code"]) == (
        *(409, "policy.dependencies"),
    )
    world.activate_policy(_policy("{claim: vtpm.ak.ca, equals: shared/maker}"))

    def item(primary: bytes) -> dict[str, object]:
        return {
            **tpm.quote_item(primary[:32]),
            "ak": b64(tpm.ak_public),
            "ak_certificates": [
                certificate_b64(ca.certify(tpm.key.public_key())),
                certificate_b64(ca.intermediate),
            ],
        }

    answer = world.send(world.request_by("vtpm", item, [KEY]))
    assert answer.status_code == 200, answer.get_data(as_text=True)


# -- what is named stays -----------------------------------------------------------

CONTENT: Mapping[Kind, tuple[str, str, bytes]] = {
    Kind.REFERENCE_SET: (
        "{claim: vtpm.pcr.sha256.1, in: {reference: NAME}}",
        "remove",
        json.dumps({"values": ["00" * 32]}).encode(),
    ),
    Kind.WORKLOAD_POLICY: (
        "{claim: vtpm.pcr.sha256.15, measures: {workload_policy: NAME, version: 1}}",
        "deactivate",
        WORKLOAD,
    ),
    Kind.CA: (
        "{claim: vtpm.ak.ca, equals: NAME}",
        "remove",
        b"",
    ),
}


@pytest.fixture(scope="module")
def ca_content() -> bytes:
    document = {"purpose": "ak", "certificate": certificate_b64(FakeTpmCA().root)}
    return json.dumps(document).encode()


@pytest.mark.parametrize("name", ["thing", "acme/thing"])
@pytest.mark.parametrize("kind", list(CONTENT))
def test_what_an_active_policy_names_is_not_taken_away(
    any_world: World, kind: Kind, name: str, ca_content: bytes
) -> None:
    world = any_world
    leaf, action, content = CONTENT[kind]
    content = content or ca_content
    brings = Action.ADD if action == "remove" else Action.ACTIVATE
    stored = world.govern(brings, kind, "acme", "thing", content)
    same = world.govern(brings, kind, "shared", "thing", content)
    # A CA of the tenant's own has its bare name in claims, and so in rules.
    named = leaf.replace("NAME", "thing" if kind is Kind.CA else name)
    policy = world.activate_policy(_policy(HOSTS, named))
    answer = world.sign(Action(action), kind, "acme", "thing", stored)
    problem = answer.get_json()
    assert (answer.status_code, problem["code"]) == (409, "object.in_use")
    assert "acme/chat" in problem["detail"]
    # What is called the same elsewhere, and what nobody names, may go.
    assert world.sign(Action(action), kind, "shared", "thing", same).status_code == 201
    other = world.govern(brings, kind, "acme", "other", content)
    assert world.sign(Action(action), kind, "acme", "other", other).status_code == 201
    # So may this one when the policy is gone.
    gone = world.sign(Action.DEACTIVATE, Kind.RELEASE_POLICY, "acme", "chat", policy)
    assert gone.status_code == 201
    assert world.sign(Action(action), kind, "acme", "thing", stored).status_code == 201


def test_another_version_of_a_workload_policy_may_go(world: World) -> None:
    world.govern_workload()
    second = world.govern_workload(source=WORKLOAD + b"# 2\n")
    leaf = CONTENT[Kind.WORKLOAD_POLICY][0].replace("NAME", "runtime")
    world.activate_policy(_policy(HOSTS, leaf))
    answer = world.sign(
        Action.DEACTIVATE, Kind.WORKLOAD_POLICY, "acme", "runtime", second
    )
    assert answer.status_code == 201


def test_a_key_that_went_bad_is_removed_whatever_names_its_group(world: World) -> None:
    tpm = world.standard()
    name = f"hosts-{tpm.ak_name.hex()[4:16]}"
    stored = world.must("GET", f"/admin/v1/objects/ak/acme/{name}/1")
    assert world.sign(Action.REMOVE, Kind.AK, "acme", name, stored).status_code == 201
    assert world.send(world.request(tpm)).status_code == 403


# -- values have the type of their claim -------------------------------------------

NOT_IN = "{claim: vtpm.pcr.sha256.0, not_in: {reference: banned}}"


def _values(*values: object) -> bytes:
    return json.dumps({"values": list(values)}).encode()


def test_a_policy_is_not_activated_over_values_that_it_cannot_compare(
    world: World,
) -> None:
    world.govern(Action.ADD, Kind.REFERENCE_SET, "acme", "banned", _values("AB" * 32))
    stored = _store(world, Kind.RELEASE_POLICY, "chat", _policy(HOSTS, NOT_IN).encode())
    answer = world.sign(Action.ACTIVATE, Kind.RELEASE_POLICY, "acme", "chat", stored)
    assert (answer.status_code, answer.get_json()["code"]) == (409, "reference.type")
    world.govern(Action.ADD, Kind.REFERENCE_SET, "acme", "banned", _values("ab" * 32))
    answer = world.sign(Action.ACTIVATE, Kind.RELEASE_POLICY, "acme", "chat", stored)
    assert answer.status_code == 201


@pytest.mark.parametrize("tenant", ["acme", "shared"])
@pytest.mark.parametrize("value", ["AB" * 32, "ab" * 31, "0x" + "ab" * 32, 7])
def test_a_set_in_use_takes_no_value_that_its_policies_cannot_compare(
    world: World, tenant: str, value: object
) -> None:
    world.govern(Action.ADD, Kind.REFERENCE_SET, tenant, "banned", _values("ab" * 32))
    world.activate_policy(_policy(HOSTS, NOT_IN))
    stored = world.store(Kind.REFERENCE_SET, tenant, "banned", _values(value))
    answer = world.sign(Action.ADD, Kind.REFERENCE_SET, tenant, "banned", stored)
    assert (answer.status_code, answer.get_json()["code"]) == (409, "reference.type")
    # A set of the tenant's own would take the place of that of `shared/`.
    stored = world.store(Kind.REFERENCE_SET, "acme", "banned", _values(value))
    answer = world.sign(Action.ADD, Kind.REFERENCE_SET, "acme", "banned", stored)
    assert (answer.status_code, answer.get_json()["code"]) == (409, "reference.type")
    # Sets that no policy names are not judged.
    world.govern(Action.ADD, Kind.REFERENCE_SET, "acme", "free", _values(value))
    stored = world.store(Kind.REFERENCE_SET, tenant, "banned", _values("cd" * 32))
    answer = world.sign(Action.ADD, Kind.REFERENCE_SET, tenant, "banned", stored)
    assert answer.status_code == 201


BOOT = "{claim: vtpm.pcr.sha256.4, in: {reference: loaders}}"
MEASURED = CONTENT[Kind.WORKLOAD_POLICY][0].replace("NAME", "runtime")


def _booted(*leaves: str) -> str:
    return _policy(HOSTS, *leaves).replace(
        f'      - {{claim: vtpm.pcr.sha256.0, equals: "{PCR0}"}}\n', ""
    )


def test_a_set_of_zeros_does_not_say_what_boots(world: World) -> None:
    """A literal list with zeros would not do: every register is zero at first."""
    world.govern_workload()
    zeros, loader = "00" * 32, "4e" * 32
    world.govern(Action.ADD, Kind.REFERENCE_SET, "acme", "loaders", _values(zeros))
    policy = _booted(BOOT, MEASURED).encode()
    stored = _store(world, Kind.RELEASE_POLICY, "chat", policy)
    refused = world.sign(Action.ACTIVATE, Kind.RELEASE_POLICY, "acme", "chat", stored)
    assert (refused.status_code, refused.get_json()["code"]) == (409, "reference.type")
    assert "leaves vtpm.pcr.sha256.15 open" in refused.get_json()["detail"]
    world.govern(Action.ADD, Kind.REFERENCE_SET, "acme", "loaders", _values(loader))
    accepted = world.sign(Action.ACTIVATE, Kind.RELEASE_POLICY, "acme", "chat", stored)
    assert accepted.status_code == 201
    # Nor does it come in later.
    both = world.store(Kind.REFERENCE_SET, "acme", "loaders", _values(loader, zeros))
    refused = world.sign(Action.ADD, Kind.REFERENCE_SET, "acme", "loaders", both)
    assert (refused.status_code, refused.get_json()["code"]) == (409, "reference.type")
