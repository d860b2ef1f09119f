"""Enrolment: from an unknown TPM to an attestation key that an administrator trusts."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from sqlalchemy import text
from werkzeug.test import TestResponse

from kbs.broker import pending
from kbs.core.encode import b64, b64u, parse_b64, parse_b64u
from kbs.evidence.vtpm.public import ObjectAttributes, serialize_public
from kbs.governance.authority import Administrator, Authority, Role, RoleGrant
from kbs.governance.signature import spki_of
from kbs.governance.statement import Action, Kind
from tests.fakes.answers import refusals
from tests.fakes.tpm import AK_ATTRIBUTES, EK_ATTRIBUTES, FakeTpm, public_of
from tests.fakes.tpm_ca import NOW, FakeTpmCA, certificate_b64
from tests.fakes.world import World, writer

BEGIN = "/v1/enrolments"
ACTIVATE = "/v1/enrolments/activate"


@pytest.fixture(scope="module")
def maker() -> FakeTpmCA:
    return FakeTpmCA()


def _register(
    world: World, maker: FakeTpmCA, *, purpose: str = "ek", tenant: str = "acme"
) -> None:
    ca = {"purpose": purpose, "certificate": certificate_b64(maker.root)}
    world.govern(Action.ADD, Kind.CA, tenant, "maker", json.dumps(ca).encode())


def _asked(tpm: FakeTpm, maker: FakeTpmCA, **changes: object) -> dict[str, object]:
    certificate = maker.certify(tpm.endorsement_key.public_key(), signs=False)
    return {
        "group": "acme/hosts",
        "ak": b64(tpm.ak_public),
        "ek": b64(tpm.ek_public),
        "ek_certificate": b64(certificate.public_bytes(Encoding.DER)),
        "ek_chain": [b64(maker.intermediate.public_bytes(Encoding.DER))],
        **changes,
    }


def _post(world: World, path: str, body: object) -> TestResponse:
    return world.app.test_client().post(path, json=body)


def _begun(
    world: World, tpm: FakeTpm, maker: FakeTpmCA, **changes: object
) -> dict[str, object]:
    answer = _post(world, BEGIN, _asked(tpm, maker, **changes))
    assert answer.status_code == 200, answer.get_data(as_text=True)
    document = answer.get_json()
    assert isinstance(document, dict)
    return document


def _secret(tpm: FakeTpm, begun: dict[str, object]) -> bytes:
    return tpm.activate_credential(
        parse_b64(begun["credential_blob"], "blob", limit=1024),
        parse_b64(begun["encrypted_secret"], "secret", limit=1024),
    )


def _enrolled(
    world: World, tpm: FakeTpm, maker: FakeTpmCA, **changes: object
) -> dict[str, object]:
    begun = _begun(world, tpm, maker, **changes)
    body = {"enrolment": begun["enrolment"], "secret": b64(_secret(tpm, begun))}
    answer = _post(world, ACTIVATE, body)
    assert answer.status_code == 201, answer.get_data(as_text=True)
    document = answer.get_json()
    assert isinstance(document, dict)
    return document


def _trusted(world: World, pending_id: object, name: str = "host-1") -> TestResponse:
    shown = world.must("GET", f"/admin/v1/enrolments/{pending_id}")
    document = {
        "group": shown["group"],
        "name": shown["ak_name"],
        "public": shown["ak_public"],
        "how": "activation",
        "ek": shown["ek"],
    }
    stored = world.store(Kind.AK, "acme", name, json.dumps(document).encode())
    assert stored["warnings"] == []
    return world.sign(Action.ADD, Kind.AK, "acme", name, stored)


@pytest.mark.parametrize("endorsement", ["ecc", "rsa"])
def test_from_an_unknown_tpm_to_a_key(
    world: World, maker: FakeTpmCA, endorsement: str
) -> None:
    world.standard()
    _register(world, maker)
    tpm = FakeTpm(endorsement=endorsement)
    tpm.pcrs = dict(world.booted_tpm().pcrs)
    # Nobody trusts it before, while it is pending, or without the statement.
    assert world.send(world.request(tpm)).status_code == 403
    enrolled = _enrolled(world, tpm, maker)
    assert enrolled["status"] == "pending"
    assert enrolled["ak_name"] == tpm.ak_name.hex()
    assert world.send(world.request(tpm)).status_code == 403
    assert _trusted(world, enrolled["id"]).status_code == 201
    assert world.released(world.request(tpm)) == {"acme/model/chat@1": b"the model key"}
    # What was pending is settled, and on record without the EK itself.
    assert world.must("GET", "/admin/v1/enrolments")["enrolments"] == []
    (entry,) = world.entries("enrolment.pending")
    assert entry["enrolment"] == enrolled["id"]
    assert entry["ca"] == "acme/maker"
    assert entry["ak_name"] == tpm.ak_name.hex()


def test_pending_on_both_databases_and_after_a_restart(
    any_world: World, maker: FakeTpmCA
) -> None:
    _register(any_world, maker)
    tpm = FakeTpm()
    begun = _begun(any_world, tpm, maker)
    # Any replica finishes what another one began.
    again = any_world.restarted()
    body = {"enrolment": begun["enrolment"], "secret": b64(_secret(tpm, begun))}
    assert _post(again, ACTIVATE, body).status_code == 201
    listed = again.must("GET", "/admin/v1/enrolments")["enrolments"]
    assert isinstance(listed, list)
    assert [one["ak_name"] for one in listed] == [tpm.ak_name.hex()]


def _pending_ids(world: World) -> list[object]:
    listed = world.must("GET", "/admin/v1/enrolments")["enrolments"]
    assert isinstance(listed, list)
    return [one["id"] for one in listed]


def test_the_same_key_again_is_what_is_pending(
    any_world: World, maker: FakeTpmCA
) -> None:
    world = any_world
    _register(world, maker)
    tpm = FakeTpm()
    begun = _begun(world, tpm, maker)
    body = {"enrolment": begun["enrolment"], "secret": b64(_secret(tpm, begun))}
    answers = [_post(world, ACTIVATE, body) for _ in range(5)]
    assert {answer.status_code for answer in answers} == {201}
    first = answers[0].get_json()
    assert all(answer.get_json() == first for answer in answers)
    # Begun anew by the same TPM it is the same one as well.
    assert _enrolled(world, tpm, maker) == first
    assert _pending_ids(world) == [first["id"]]
    assert len(world.entries("enrolment.pending")) == 1


def test_an_ak_with_another_ek_does_not_take_its_place(
    world: World, maker: FakeTpmCA
) -> None:
    _register(world, maker)
    tpm = FakeTpm()
    first = _enrolled(world, tpm, maker)
    # One TPM has an EK of each kind, and its AK may be activated with either.
    second = FakeTpm(endorsement="rsa")
    tpm.endorsement_key = second.endorsement_key
    tpm.endorsement_public = second.endorsement_public
    begun = _begun(world, tpm, maker)
    body = {"enrolment": begun["enrolment"], "secret": b64(_secret(tpm, begun))}
    answer = _post(world, ACTIVATE, body)
    assert (answer.status_code, answer.get_json()["code"]) == (409, "enrolment.pending")
    assert _pending_ids(world) == [first["id"]]
    assert len(world.entries("enrolment.pending")) == 1
    world.must("POST", f"/admin/v1/enrolments/{first['id']}/forget", {})
    assert _post(world, ACTIVATE, body).status_code == 201


def test_one_tpm_and_one_tenant_do_not_take_all_the_room(
    world: World, maker: FakeTpmCA, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pending, "MAX_PENDING_OF_EK", 2)
    monkeypatch.setattr(pending, "MAX_PENDING_OF_TENANT", 3)
    for tenant in ("acme", "other"):
        _register(world, maker, tenant=tenant)
    tpm = FakeTpm()

    def enrol(tpm: FakeTpm, group: str) -> tuple[int, str]:
        begun = _begun(world, tpm, maker, group=group)
        body = {"enrolment": begun["enrolment"], "secret": b64(_secret(tpm, begun))}
        answer = _post(world, ACTIVATE, body)
        return answer.status_code, str(answer.get_json().get("detail"))

    assert enrol(tpm, "acme/one")[0] == 201
    assert enrol(tpm, "acme/two")[0] == 201
    status, detail = enrol(tpm, "other/three")
    assert (status, "2 pending of this TPM" in detail) == (503, True)
    assert enrol(FakeTpm(), "acme/one")[0] == 201
    status, detail = enrol(FakeTpm(), "acme/one")
    assert (status, "3 pending in acme" in detail) == (503, True)
    # What is pending already needs no more room, and other tenants have their own.
    assert enrol(tpm, "acme/one")[0] == 201
    assert enrol(FakeTpm(), "other/one")[0] == 201


def test_forgotten_by_a_policy_administrator_of_its_tenant(
    any_world: World, maker: FakeTpmCA
) -> None:
    world = any_world
    _register(world, maker)
    found = _enrolled(world, FakeTpm(), maker)
    keys = {name: Ed25519PrivateKey.generate() for name in ("elsewhere", "auditor")}
    grants = {
        "elsewhere": RoleGrant(Role.POLICY_ADMIN, ("other",)),
        "auditor": RoleGrant(Role.AUDITOR, ("acme",)),
    }
    root = Administrator(
        "root",
        spki_of(world.admin.public_key()),
        tuple(RoleGrant(role, ("*",)) for role in Role),
    )
    others = tuple(
        Administrator(name, spki_of(key.public_key()), (grants[name],))
        for name, key in keys.items()
    )
    authority = Authority((root, *others), 1, ("*",))
    world.govern(
        Action.ACTIVATE, Kind.AUTHORITY, "*", "authority", authority.canonical()
    )
    path = f"/admin/v1/enrolments/{found['id']}/forget"
    assert world.call("POST", path, {}, key=keys["elsewhere"]).status_code == 404
    assert world.call("POST", path, {}, key=keys["auditor"]).status_code == 403
    assert world.must("POST", path, {})["id"] == found["id"]
    assert world.call("POST", path, {}).status_code == 404
    assert _pending_ids(world) == []
    (entry,) = (
        one
        for one in world.entries("admin.action")
        if one["action"] == "enrolment.forget"
    )
    assert entry["target"] == f"enrolment {found['id']}"
    assert entry["tenant"] == "acme"


@pytest.mark.parametrize(
    "change",
    [
        "ak",
        "UPDATE enrolments SET ak_group = 'bosses'",
        "UPDATE enrolments SET tenant = 'other'",
        "UPDATE enrolments SET id = 'abababababababababababababababab'",
        "UPDATE enrolments SET ca = 'acme/makes'",
        "UPDATE enrolments SET ek = ak_name",
        "UPDATE enrolments SET ek_certificate = ak_public",
        "UPDATE enrolments SET created = created + 1",
        "UPDATE enrolments SET expires = expires + 1",
        "UPDATE enrolments SET mac = ak_public",
    ],
)
def test_a_pending_row_that_was_changed_cannot_become_trust(
    any_world: World, maker: FakeTpmCA, change: str
) -> None:
    world = any_world
    _register(world, maker)
    whole = _enrolled(world, FakeTpm(), maker)
    with writer(world) as connection:
        untouched = connection.execute(text("SELECT * FROM enrolments")).one()
    other = FakeTpm()
    _enrolled(world, other, maker)
    evil = FakeTpm()
    arguments = {"of": other.ak_name, "public": evil.ak_public, "name": evil.ak_name}
    if change == "ak":
        change = "UPDATE enrolments SET ak_public = :public, ak_name = :name"
    statement = text(f"{change} WHERE ak_name = :of")
    used = {name: arguments[name] for name in statement.compile().params}
    with writer(world) as connection:
        assert connection.execute(statement, used).rowcount == 1
    told = world.must("GET", "/admin/v1/enrolments")
    listed, tampered = told["enrolments"], told["tampered"]
    assert isinstance(listed, list)
    assert isinstance(tampered, list)
    assert [one["id"] for one in listed] == [untouched.id] == [whole["id"]]
    assert [one["code"] for one in tampered] == ["enrolment.tampered"]
    assert set(tampered[0]) == {"id", "code", "detail"}
    changed = tampered[0]["id"]
    answer = world.call("GET", f"/admin/v1/enrolments/{changed}")
    assert (answer.status_code, answer.get_json()["code"]) == (
        *(503, "enrolment.tampered"),
    )
    # Reported once, however often it is looked at.
    subjects = [one["subject"] for one in world.entries("integrity.reported")]
    assert subjects == ["enrolment.tampered"]
    world.must("POST", f"/admin/v1/enrolments/{changed}/forget", {})
    assert world.must("GET", "/admin/v1/enrolments")["tampered"] == []


def test_a_swapped_key_is_not_signed_into_trust(
    any_world: World, maker: FakeTpmCA
) -> None:
    world = any_world
    _register(world, maker)
    shown = world.must(
        "GET", f"/admin/v1/enrolments/{_enrolled(world, FakeTpm(), maker)['id']}"
    )
    evil = FakeTpm()
    with writer(world) as connection:
        connection.execute(
            text("UPDATE enrolments SET ak_public = :public, ak_name = :name"),
            {"public": evil.ak_public, "name": evil.ak_name},
        )
    # As an administrator would sign what a broker without the check had shown.
    source = _ak(evil, how="activation", ek=shown["ek"])
    stored = world.store(Kind.AK, "acme", "host-1", source)
    answer = world.sign(Action.ADD, Kind.AK, "acme", "host-1", stored)
    assert (answer.status_code, answer.get_json()["code"]) == (
        *(503, "enrolment.tampered"),
    )
    # The honest guest enrols again, and its row is a good one.
    assert _pending_ids(world) == []
    again = _enrolled(world, evil, maker)
    assert _trusted(world, again["id"]).status_code == 201


def test_only_the_tpm_with_this_ak_opens_the_credential(
    world: World, maker: FakeTpmCA
) -> None:
    _register(world, maker)
    tpm, other = FakeTpm(), FakeTpm()
    # The EK of one TPM, the AK of another: a credential that nobody can open.
    begun = _begun(world, tpm, maker, ak=b64(other.ak_public))
    for one in (tpm, other):
        with pytest.raises((InvalidSignature, ValueError)):
            _secret(one, begun)


def test_a_wrong_secret_or_token_is_refused(world: World, maker: FakeTpmCA) -> None:
    _register(world, maker)
    tpm = FakeTpm()
    begun, other = _begun(world, tpm, maker), _begun(world, tpm, maker)
    token = parse_b64u(begun["enrolment"], "token", limit=65536)
    secret = _secret(tpm, begun)
    elsewhere = token.replace(b'"acme/hosts"', b'"acme/boss_"')
    assert elsewhere != token
    for changed, given in (
        (token, bytes(32)),
        (token, b""),
        (token, _secret(tpm, other)),
        (elsewhere, secret),
        (token[:-1] + bytes([token[-1] ^ 1]), secret),
        (bytes([token[0] ^ 1]) + token[1:], secret),
        (b"", secret),
        (b"{}" + bytes(32), secret),
    ):
        body = {"enrolment": b64u(changed), "secret": b64(given)}
        answer = _post(world, ACTIVATE, body)
        assert answer.status_code == 401, (changed, answer.get_data(as_text=True))
        assert answer.get_json()["code"] == "enrolment.secret"
    assert world.must("GET", "/admin/v1/enrolments")["enrolments"] == []
    body = {"enrolment": b64u(token), "secret": b64(secret)}
    assert _post(world, ACTIVATE, body).status_code == 201


def test_an_answer_takes_five_minutes_at_most(world: World, maker: FakeTpmCA) -> None:
    _register(world, maker)
    tpm = FakeTpm()
    begun = _begun(world, tpm, maker)
    body = {"enrolment": begun["enrolment"], "secret": b64(_secret(tpm, begun))}
    world.clock.advance(300)
    answer = _post(world, ACTIVATE, body)
    assert (answer.status_code, answer.get_json()["code"]) == (401, "enrolment.expired")


def _without(flag: ObjectAttributes) -> bytes:
    return FakeTpm(attributes=AK_ATTRIBUTES & ~flag).ak_public


@pytest.mark.parametrize(
    "ak",
    [
        _without(ObjectAttributes.RESTRICTED),
        _without(ObjectAttributes.SIGN),
        _without(ObjectAttributes.FIXED_TPM),
        _without(ObjectAttributes.FIXED_PARENT),
        _without(ObjectAttributes.SENSITIVE_DATA_ORIGIN),
        FakeTpm(attributes=AK_ATTRIBUTES | ObjectAttributes.DECRYPT).ak_public,
    ],
)
def test_an_ak_that_could_sign_a_forged_quote_is_refused(
    world: World, maker: FakeTpmCA, ak: bytes
) -> None:
    _register(world, maker)
    answer = _post(world, BEGIN, _asked(FakeTpm(), maker, ak=b64(ak)))
    assert answer.status_code in {400, 403}
    assert answer.mimetype == "application/problem+json"


def test_an_ek_must_be_a_certified_storage_key(world: World, maker: FakeTpmCA) -> None:
    _register(world, maker)
    tpm, other = FakeTpm(), FakeTpm()
    stranger = FakeTpmCA("Mallory")
    signing = public_of(tpm.endorsement_key, attributes=AK_ATTRIBUTES)
    movable = public_of(
        tpm.endorsement_key,
        attributes=EK_ATTRIBUTES & ~ObjectAttributes.FIXED_TPM,
        symmetric=tpm.endorsement_public.symmetric,
        auth_policy=bytes(32),
    )
    old = maker.certify(
        tpm.endorsement_key.public_key(), signs=False, until=NOW - timedelta(days=1)
    )
    wrong: tuple[dict[str, object], ...] = (
        {"ek": b64(other.ek_public)},  # the certificate of another key
        {"ek": b64(tpm.ak_public)},
        {"ek": b64(serialize_public(signing))},
        {"ek": b64(serialize_public(movable))},
        {"ek_certificate": certificate_b64(old)},
        {"ek_chain": []},
        {
            "ek_certificate": certificate_b64(
                stranger.certify(tpm.endorsement_key.public_key(), signs=False)
            ),
            "ek_chain": [
                certificate_b64(stranger.intermediate),
                certificate_b64(stranger.root),
            ],
        },
    )
    for changes in wrong:
        answer = _post(world, BEGIN, _asked(tpm, maker, **changes))
        assert answer.status_code in {400, 403}, (changes, answer.get_json())
        assert answer.mimetype == "application/problem+json"


def test_only_administrators_learn_which_cas_there_are(
    world: World, maker: FakeTpmCA
) -> None:
    stranger, tpm = FakeTpmCA(), FakeTpm()
    asked = _asked(tpm, stranger)
    none = _post(world, BEGIN, asked)
    _register(world, maker)
    another = _post(world, BEGIN, asked)
    assert none.status_code == another.status_code == 403
    assert none.get_json() == another.get_json()
    assert "maker" not in another.get_data(as_text=True)
    (entry,) = refusals(world)
    assert (entry["reason"], entry["count"]) == ("vtpm.ek.chain", 2)
    assert [one["expected"] for one in entry["samples"]] == [
        "one that chains to a CA of purpose ek in acme (none registered)",
        "one that chains to a CA of purpose ek in acme (acme/maker)",
    ]


@pytest.mark.parametrize(
    ("purpose", "tenant", "status"),
    [
        ("ek", "acme", 200),
        ("ek", "shared", 200),
        ("ek", "other", 403),
        ("ak", "acme", 403),
        ("token", "acme", 403),
    ],
)
def test_the_ca_must_be_for_eks_and_of_this_tenant(
    world: World, maker: FakeTpmCA, purpose: str, tenant: str, status: int
) -> None:
    _register(world, maker, purpose=purpose, tenant=tenant)
    answer = _post(world, BEGIN, _asked(FakeTpm(), maker))
    assert answer.status_code == status
    assert status == 200 or answer.get_json()["code"] == "vtpm.ek.chain"


@pytest.mark.parametrize(
    "changes",
    [
        {"group": "hosts"},
        {"group": "acme/hosts/more"},
        {"group": 7},
        {"ak": "!"},
        {"ak": b64(b"\x00")},
        {"ak": None},
        {"ek": b64(bytes(2000))},
        {"ek_certificate": b64(b"no certificate")},
        {"ek_chain": "x"},
        {"ek_chain": [b64(b"x")] * 9},
        {"more": 1},
    ],
)
def test_malformed_requests_are_named(
    world: World, maker: FakeTpmCA, changes: dict[str, object]
) -> None:
    answer = _post(world, BEGIN, _asked(FakeTpm(), maker, **changes))
    assert answer.status_code == 400
    assert answer.mimetype == "application/problem+json"


def test_pending_ones_are_capped_and_expire(
    world: World, maker: FakeTpmCA, monkeypatch: pytest.MonkeyPatch
) -> None:
    _register(world, maker)
    monkeypatch.setattr(pending, "MAX_PENDING", 1)
    _enrolled(world, FakeTpm(), maker)
    tpm = FakeTpm()
    begun = _begun(world, tpm, maker)
    body = {"enrolment": begun["enrolment"], "secret": b64(_secret(tpm, begun))}
    answer = _post(world, ACTIVATE, body)
    assert (answer.status_code, answer.get_json()["code"]) == (503, "enrolment.full")
    world.clock.advance(31 * 24 * 3600)
    world.create_key("acme/model/one")  # time goes on in the log
    with world.parts.database.write() as tx:
        assert tx.enrolments.purge(world.clock.now()) == 1
    assert world.must("GET", "/admin/v1/enrolments")["enrolments"] == []


def test_an_expired_enrolment_cannot_be_signed_into_trust(
    world: World, maker: FakeTpmCA
) -> None:
    _register(world, maker)
    enrolled = _enrolled(world, FakeTpm(), maker)
    world.clock.advance(31 * 24 * 3600)
    answer = _trusted(world, enrolled["id"])
    assert (answer.status_code, answer.get_json()["code"]) == (409, "enrolment.missing")


def _ak(tpm: FakeTpm, **changes: object) -> bytes:
    document = {
        "group": "hosts",
        "name": tpm.ak_name.hex(),
        "public": b64(tpm.ak_public),
        "how": "manual",
        **changes,
    }
    return json.dumps(document).encode()


def test_proven_means_proven_by_this_ek_in_this_group(
    world: World, maker: FakeTpmCA
) -> None:
    _register(world, maker)
    tpm = FakeTpm()
    shown = world.must(
        "GET", f"/admin/v1/enrolments/{_enrolled(world, tpm, maker)['id']}"
    )
    for changes in (
        {"ek": "0" * 64},
        {"ek": shown["ek"], "group": "bosses"},
    ):
        source = _ak(tpm, how="activation", **changes)
        stored = world.store(Kind.AK, "acme", "host-1", source)
        answer = world.sign(Action.ADD, Kind.AK, "acme", "host-1", stored)
        assert answer.status_code == 409
        assert answer.get_json()["code"] == "enrolment.missing"
    source = _ak(tpm, how="activation", ek=shown["ek"])
    # Not in another tenant either.
    stored = world.store(Kind.AK, "other", "host-1", source)
    assert world.sign(Action.ADD, Kind.AK, "other", "host-1", stored).status_code == 409


def test_by_hand_comes_with_a_warning(world: World) -> None:
    tpm = FakeTpm()
    stored = world.store(Kind.AK, "acme", "host-1", _ak(tpm))
    warnings = stored["warnings"]
    assert isinstance(warnings, list)
    assert "by hand" in warnings[0]
    assert world.sign(Action.ADD, Kind.AK, "acme", "host-1", stored).status_code == 201


def test_an_ak_is_in_one_group_of_a_tenant(world: World) -> None:
    tpm = FakeTpm()
    world.govern(Action.ADD, Kind.AK, "acme", "host-1", _ak(tpm))
    stored = world.store(Kind.AK, "acme", "boss-1", _ak(tpm, group="bosses"))
    answer = world.sign(Action.ADD, Kind.AK, "acme", "boss-1", stored)
    assert (answer.status_code, answer.get_json()["code"]) == (409, "enrolment.group")
    # Another tenant has groups of its own; and a move is: remove, then add.
    world.govern(Action.ADD, Kind.AK, "other", "boss-1", _ak(tpm, group="bosses"))
    first = world.must("GET", "/admin/v1/objects/ak/acme/host-1/1")
    assert (
        world.sign(Action.REMOVE, Kind.AK, "acme", "host-1", first).status_code == 201
    )
    assert world.sign(Action.ADD, Kind.AK, "acme", "boss-1", stored).status_code == 201
    # Under its own name it may change its group in one statement.
    moved = world.store(Kind.AK, "acme", "boss-1", _ak(tpm, group="staff"))
    assert world.sign(Action.ADD, Kind.AK, "acme", "boss-1", moved).status_code == 201


@pytest.mark.parametrize("flag", [ObjectAttributes.RESTRICTED, ObjectAttributes.SIGN])
def test_attributes_are_checked_by_hand_too(
    world: World, flag: ObjectAttributes
) -> None:
    tpm = FakeTpm(attributes=AK_ATTRIBUTES & ~flag)
    answer = world.call(
        "POST",
        "/admin/v1/objects",
        {"kind": "ak", "tenant": "acme", "name": "h", "source": b64(_ak(tpm))},
    )
    assert answer.status_code == 400
    assert "attributes" in answer.get_json()["detail"] or "attestation key" in str(
        answer.get_json()["detail"]
    )


@pytest.mark.parametrize("usage", [True, False])
def test_a_ca_must_be_able_to_certify(
    world: World, maker: FakeTpmCA, *, usage: bool
) -> None:
    leaf = maker.certify(FakeTpm().endorsement_key.public_key(), usage=usage)
    document = {"purpose": "ek", "certificate": certificate_b64(leaf)}
    answer = world.call(
        "POST",
        "/admin/v1/objects",
        {
            "kind": "ca",
            "tenant": "acme",
            "name": "maker",
            "source": b64(json.dumps(document).encode()),
        },
    )
    assert answer.status_code == 400
    assert "ca certificate" in answer.get_json()["detail"]
