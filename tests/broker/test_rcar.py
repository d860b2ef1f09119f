"""The RCAR door, with a guest that was written from the protocol's description."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from sqlalchemy import text

from kbs.channel.token import SignedRequest, mint_token
from kbs.evidence.forms import FORMS
from kbs.governance.authority import Administrator, Authority, Role, RoleGrant
from kbs.governance.signature import spki_of
from kbs.governance.statement import Action, Kind
from tests.fakes.amd import FakeAmd
from tests.fakes.answers import refusals, releases
from tests.fakes.databases import Place
from tests.fakes.rcar_client import (
    Answer,
    RcarClient,
    b64,
    open_jwe,
    sample,
    sample_device,
)
from tests.fakes.rcar_evidence import PATH, POLICY, SECRET, snp_evidence, tpm_evidence
from tests.fakes.world import World, writer


def sender(world: World) -> Any:
    def send(method: str, path: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        client = world.app.test_client(use_cookies=False)
        found = client.open(path, method=method, data=body, headers=dict(headers))
        return Answer(found.status_code, dict(found.headers), found.get_data())

    return send


def prepared(world: World) -> World:
    world.activate_policy(POLICY, name="dev", tenant="default")
    world.create_key(PATH, SECRET)
    return world


@pytest.fixture
def dev(tmp_path: Path, sqlite_place: Place) -> Iterator[World]:
    """A broker in development mode, with one key for samples."""
    with closing(sqlite_place.connect()) as opened:
        yield prepared(World.create(tmp_path, database=opened, development=True))


@pytest.fixture
def any_dev(tmp_path: Path, place: Place) -> Iterator[World]:
    """The same on each kind of database in turn."""
    with closing(place.connect()) as opened:
        yield prepared(World.create(tmp_path, database=opened, development=True))


def guest(world: World, **options: Any) -> RcarClient:
    return RcarClient(sender(world), **options)


# -- what the stock client does ------------------------------------------------------


def test_a_guest_gets_its_resource_and_the_log_says_so(any_dev: World) -> None:
    client = guest(any_dev)
    assert client.fetch(PATH) == SECRET
    assert client.requests == [
        "GET /resource/default/test/key 401",
        "POST /auth 200",
        "POST /attest 200",
        "GET /resource/default/test/key 200",
    ]
    (entry,) = releases(any_dev)
    assert entry["kind"] == "release.granted"
    assert (entry["door"], entry["freshness"]) == ("rcar", "challenge")
    (key,) = entry["keys"]
    assert (key["id"], key["version"], key["decision"]) == (PATH, 1, "granted")
    assert key["policies"][0]["rule"] == "any-sample"
    assert refusals(any_dev) == []
    # The session stays good, and each request is a decision of its own.
    again = client.get(PATH)
    assert open_jwe(again.json, client.key) == SECRET
    decisions = [one["decision"] for one in releases(any_dev)]
    assert len(decisions) == 2
    assert again.headers["KBS-Decision"] in decisions


def test_trying_without_anything_first_costs_no_entry(dev: World) -> None:
    for _ in range(20):
        answer = guest(dev).get(PATH)
        assert (answer.status, answer.error) == (401, "TokenNotFound")
        assert answer.json["detail"] == "Attestation Token not found"
    assert releases(dev) == []
    assert refusals(dev) == []


def test_the_cookie_has_the_protocols_attributes(dev: World) -> None:
    client = guest(dev)
    begun = client.auth()
    name, expires = begun.headers["Set-Cookie"].split("; ")
    assert name.startswith("kbs-session-id=")
    assert expires.startswith("Expires=")
    done = client.attest()
    assert done.headers["Set-Cookie"] == begun.headers["Set-Cookie"]
    assert done.headers["Content-Type"] == "application/json"


@pytest.mark.parametrize(
    "key",
    [ec.generate_private_key(ec.SECP521R1()), rsa.generate_private_key(65537, 2048)],
    ids=["P-521", "RSA"],
)
def test_other_keys_of_the_protocol(dev: World, key: Any) -> None:
    assert guest(dev, key=key).fetch(PATH) == SECRET


def test_the_token_is_a_credential_and_says_what_was_found(dev: World) -> None:
    client = guest(dev)
    client.handshake()
    assert client.token is not None
    header = jwt.get_unverified_header(client.token)
    assert (header["alg"], header["typ"]) == ("ES256", "JWT")
    assert header["jwk"]["alg"] == "ES256"
    claims = jwt.decode(client.token, options={"verify_signature": False})
    assert claims["eat_profile"].endswith("confidential-containers/Trustee")
    assert claims["exp"] - claims["iat"] <= 300
    cpu = claims["submods"]["cpu0"]
    assert cpu["ear.status"] == "contraindicated"
    annotated = cpu["ear.veraison.annotated-evidence"]
    assert annotated["runtime_data_claims"]["tee-pubkey"]["kty"] == "EC"
    assert annotated["sample"]["svn"] == 1
    answer = client.get(PATH, cookie=False, bearer=client.token)
    assert open_jwe(answer.json, client.key) == SECRET
    # A cookie that is good for nothing does not stand in its way.
    client.cookie = "nonsense"
    assert client.get(PATH, bearer=client.token).status == 200


@pytest.mark.parametrize("version", ["0.4.1", "0.1.0", "0.4", "x" * 60, "=0.4.0\n"])
def test_another_version_is_told_the_mismatch(dev: World, version: str) -> None:
    body = {"version": version, "tee": "sample", "extra-params": ""}
    answer = guest(dev).call("POST", "/auth", json.dumps(body).encode())
    assert (answer.status, answer.error) == (401, "AttestationError")
    shown = version if len(version) < 60 and "\n" not in version else ""
    assert (
        "Attestation error: RCAR handshake Auth failed: KBS Client Protocol Version "
        f"Mismatch: expect =0.4.0 while the request is {shown}"
    ) in answer.json["detail"]


# -- what is refused -----------------------------------------------------------------


def test_samples_count_in_development_mode_only(world: World) -> None:
    prepared(world)
    client = guest(world)
    assert client.auth().status == 200
    answer = client.attest()
    assert (answer.status, answer.error) == (401, "AttestationError")
    assert "sample.development" in answer.json["detail"]
    assert releases(world) == []
    assert client.get(PATH).error == "TokenNotFound"


def test_a_policy_that_denies_is_401_and_says_why(dev: World) -> None:
    client = guest(dev, evidence=lambda digest: {**sample(digest), "svn": "7"})
    with pytest.raises(LookupError, match=r"sample\.svn"):
        client.fetch(PATH)
    answer = client.get(PATH)
    assert (answer.status, answer.error) == (401, "PolicyDeny")
    assert answer.json["detail"].startswith("Access denied by policy: sample.svn")
    assert "equals" not in answer.body.decode()
    for entry in releases(dev):
        assert entry["kind"] == "release.denied"
        (reason,) = entry["keys"][0]["reasons"]
        assert (str(reason["got"]), str(reason["expected"])) == (
            "7",
            "equals 1",
        )


def test_an_absent_resource_is_404_for_whom_it_is_granted(dev: World) -> None:
    client = guest(dev)
    with pytest.raises(LookupError):
        client.fetch("default/test/gone")
    # No needless handshake after a final answer.
    assert client.requests[-1] == "GET /resource/default/test/gone 404"
    assert client.requests.count("POST /auth 200") == 1
    other = client.get("elsewhere/test/gone")
    assert (other.status, other.error) == (401, "PolicyDeny")


@pytest.mark.parametrize("path", ["Default/test/key", "a/b/_c", "a/b/..", "a/b"])
def test_a_name_that_no_key_can_have_is_404(dev: World, path: str) -> None:
    client = guest(dev)
    client.handshake()
    answer = client.get(path)
    assert (answer.status, answer.error) == (404, "InvalidRequestPath")


def test_evidence_bound_to_another_key_is_refused(dev: World) -> None:
    client = guest(dev)
    client.auth()
    message = client.message()
    client.key = ec.generate_private_key(ec.SECP256R1())
    stolen = client.message(**{"tee-evidence": message["tee-evidence"]})
    answer = client.attest(stolen)
    assert (answer.status, answer.error) == (401, "AttestationError")
    assert "binding.primary" in answer.json["detail"]
    # It spent nothing: the guest itself can still attest in this session.
    assert client.attest().status == 200


def test_a_session_attests_once(any_dev: World) -> None:
    client = guest(any_dev)
    client.auth()
    message = client.message()
    first = client.attest(message)
    again = client.attest(message)
    assert (first.status, again.status) == (200, 200)
    assert first.body == again.body
    client.key = ec.generate_private_key(ec.SECP256R1())
    other = client.attest()
    assert (other.status, other.error) == (401, "AttestationError")
    assert releases(any_dev) == []


def test_parallel_attestations_of_one_session_give_one_token(any_dev: World) -> None:
    client = guest(any_dev)
    client.auth()
    messages = [client.message()]
    for _ in range(3):
        client.key = ec.generate_private_key(ec.SECP256R1())
        messages.append(client.message())
    answers: list[Answer] = []
    ready = threading.Barrier(8)

    def attest(message: object) -> None:
        own = guest(any_dev, cookie=client.cookie)
        ready.wait()
        answers.append(own.attest(message))

    threads = [threading.Thread(target=attest, args=(one,)) for one in messages * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    tokens = {answer.body for answer in answers if answer.status == 200}
    assert len(tokens) == 1
    assert sorted(answer.status for answer in answers) == [200] * 2 + [401] * 6


@pytest.mark.parametrize(
    "change",
    [
        {"runtime-data": {}},
        {"runtime-data": {"nonce": 1, "tee-pubkey": {}}},
        {"tee-evidence": {}},
        {"tee-evidence": {"primary_evidence": "x", "additional_evidence": ""}},
        {"tee-evidence": {"primary_evidence": {}, "additional_evidence": "{"}},
        {"tee-evidence": {"primary_evidence": {}, "additional_evidence": '{"x":{}}'}},
        {"init-data": {"format": "json", "body": "{}"}},
        {"init-data": {"format": "toml", "body": "= x"}},
        {"init-data": {"format": "toml", "body": 'version = "0.1.0"'}},
    ],
)
def test_messages_of_another_shape_are_refused(
    dev: World, change: dict[str, object]
) -> None:
    client = guest(dev)
    client.auth()
    answer = client.attest(client.message(**change))
    assert (answer.status, answer.error) == (401, "AttestationError")
    assert answer.json["detail"].startswith(
        "Attestation error: RCAR handshake Attest failed: "
    )
    assert releases(dev) == []
    assert client.attest().status == 200


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"a":1,"a":2}', b"[" * 9999])
@pytest.mark.parametrize("path", ["/auth", "/attest"])
def test_what_is_no_message_is_refused(dev: World, path: str, body: bytes) -> None:
    client = guest(dev)
    client.auth()
    answer = client.call("POST", path, body)
    assert (answer.status, answer.error) == (401, "AttestationError")


def test_an_unknown_tee_is_told_which_there_are(dev: World) -> None:
    client = guest(dev, tee="hygondcu")
    answer = client.auth()
    assert (answer.status, answer.error) == (401, "AttestationError")
    assert ", ".join(sorted(FORMS)) in answer.json["detail"]


@pytest.mark.parametrize("cookie", [None, "", "x", "A" * 400, "ä", b64(bytes(91))])
def test_a_session_of_nobodys_is_none(dev: World, cookie: str | None) -> None:
    client = guest(dev)
    client.auth()
    message = client.message()
    client.cookie = cookie
    answer = client.attest(message)
    assert (answer.status, answer.error) == (401, "AttestationError")
    assert client.get(PATH).error == "TokenNotFound"


def test_a_session_ends_and_so_does_its_token(dev: World) -> None:
    client = guest(dev)
    client.handshake()
    dev.clock.advance(299)
    assert client.get(PATH).status == 200
    dev.clock.advance(1)
    assert client.get(PATH).error == "TokenNotFound"
    late = client.get(PATH, cookie=False, bearer=client.token)
    assert (late.status, late.error) == (401, "TokenVerifierError")
    # The client's own repeats put it right.
    assert client.fetch(PATH) == SECRET


def test_another_challenge_is_no_session(dev: World) -> None:
    """A challenge of v1, and a cookie with a byte changed."""
    client = guest(dev)
    client.auth()
    assert client.cookie is not None
    good = client.cookie
    for place in range(0, len(good), 7):
        digit = "A" if good[place] != "A" else "B"
        client.cookie = good[:place] + digit + good[place + 1 :]
        assert client.attest().status == 401
    client.cookie = dev.challenge()
    assert client.attest().status == 401
    client.cookie = good
    assert client.attest().status == 200


@pytest.mark.parametrize("token", ["x", "a.b.c", "ä", "e30.e30.e30"])
def test_a_token_of_nobodys_is_refused(dev: World, token: str) -> None:
    answer = guest(dev).get(PATH, bearer=token)
    assert (answer.status, answer.error) == (401, "TokenVerifierError")


def test_a_token_signed_by_the_key_in_its_header_is_refused(dev: World) -> None:
    client = guest(dev)
    client.handshake()
    assert client.token is not None
    claims = jwt.decode(client.token, options={"verify_signature": False})
    own = ec.generate_private_key(ec.SECP256R1())
    header = jwt.get_unverified_header(client.token)
    forged = jwt.encode(claims, own, algorithm="ES256", headers={"jwk": header["jwk"]})
    answer = guest(dev).get(PATH, bearer=forged)
    assert (answer.status, answer.error) == (401, "TokenVerifierError")


def test_what_is_trusted_changes_and_sessions_attest_again(world: World) -> None:
    tpm = world.standard()
    client = guest(world, tee="tpm", evidence=tpm_evidence(tpm))
    assert client.fetch("acme/model/chat") == b"the model key"
    name = f"hosts-{tpm.ak_name.hex()[4:16]}"
    stored = world.must("GET", f"/admin/v1/objects/ak/acme/{name}/1")
    assert world.sign(Action.REMOVE, Kind.AK, "acme", name, stored).status_code == 201
    answer = client.get("acme/model/chat")
    assert (answer.status, answer.error) == (401, "TokenNotFound")
    assert "vtpm.ak.trust" in client.handshake().json["detail"]


def test_policies_are_those_of_the_moment(dev: World) -> None:
    client = guest(dev)
    assert client.fetch(PATH) == SECRET
    content = {"target": "key", "value": PATH, "reason": "leaked"}
    dev.govern(Action.DENY, Kind.DENY, "default", "stop", json.dumps(content).encode())
    answer = client.get(PATH)
    assert (answer.status, answer.error) == (401, "PolicyDeny")
    assert "deny.key" in answer.json["detail"]


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE sessions SET sealed = session",
        "UPDATE sessions SET decision = 'x'",
        "DELETE FROM sessions",
    ],
)
def test_a_session_changed_by_sql_gives_nothing(dev: World, change: str) -> None:
    client = guest(dev)
    client.handshake()
    with writer(dev) as connection:
        connection.execute(text(change))
    # What is outside the seal decides nothing.
    wanted = {"UPDATE sessions SET decision = 'x'": 200}
    wanted["DELETE FROM sessions"] = 401
    assert client.get(PATH).status == wanted.get(change, 503)


def test_one_sessions_row_is_not_anothers(dev: World) -> None:
    rich, poor = guest(dev), guest(dev, evidence=lambda d: {**sample(d), "svn": "9"})
    rich.handshake()
    poor.handshake()
    assert poor.get(PATH).error == "PolicyDeny"
    with writer(dev) as connection:
        rows = connection.execute(text("SELECT session, sealed FROM sessions")).all()
        for (session, _), (_, sealed) in zip(rows, reversed(rows), strict=True):
            connection.execute(
                text("UPDATE sessions SET sealed = :sealed WHERE session = :session"),
                {"sealed": sealed, "session": session},
            )
    for client in (rich, poor):
        assert client.get(PATH).status == 503


def test_a_denial_that_is_asked_for_again_costs_no_other_entry(dev: World) -> None:
    client = guest(dev, evidence=lambda digest: {**sample(digest), "svn": "7"})
    client.handshake()
    answers = {client.get(PATH).body for _ in range(30)}
    assert len(answers) == 1
    assert len(releases(dev)) == 1
    # Another key, or another state of governance, is another decision.
    assert client.get("default/test/other").error == "PolicyDeny"
    assert len(releases(dev)) == 2
    dev.activate_policy(POLICY.replace("any-", "some-"), "dev", "default")
    assert client.get(PATH).status == 401
    assert len(releases(dev)) == 3


def test_a_good_token_counts_beside_a_session_that_has_not_attested(
    dev: World,
) -> None:
    client = guest(dev)
    client.handshake()
    token = client.token
    client.auth()
    assert client.get(PATH).error == "TokenNotFound"
    answer = client.get(PATH, bearer=token)
    assert open_jwe(answer.json, client.key) == SECRET


def test_head_releases_nothing(dev: World) -> None:
    client = guest(dev)
    client.handshake()
    answer = client.call("HEAD", f"/resource/{PATH}")
    assert (answer.status, answer.headers["Allow"]) == (405, "DELETE, GET, POST, PUT")
    assert releases(dev) == []


def test_a_method_that_resources_do_not_have_is_named(dev: World) -> None:
    """The path is right, and to be told how paths are written misleads."""
    answer = guest(dev).call("PUT", f"/resource/{PATH}", b"x")
    assert (answer.status, answer.error) == (404, "InvalidRequestPath")
    said = "resource: got PUT, expected GET, POST or DELETE"
    assert answer.json["detail"].startswith(said)


def test_refusals_of_this_door_are_counted_as_such(dev: World) -> None:
    client = guest(dev)
    client.auth()
    client.attest({"runtime-data": {}})
    client.cookie = "x"
    client.attest({})
    (malformed, session) = sorted(refusals(dev), key=lambda one: str(one["reason"]))
    assert (malformed["door"], malformed["reason"]) == ("rcar", "malformed")
    assert (session["door"], session["reason"]) == ("rcar", "session.malformed")


@pytest.mark.parametrize(
    "cookie", ["edb93727b34343628e078ef7d18396aa", "AQEC", "A" * 140]
)
def test_a_cookie_of_another_broker_is_told_to_begin_again(
    dev: World, cookie: str
) -> None:
    """Nobody who brings one asked for a challenge: Trustee's is 32 digits."""
    client = guest(dev)
    client.cookie = cookie
    detail = client.attest({}).json["detail"]
    assert "session: got another value, expected the cookie that /auth set" in detail
    assert "begin again with /auth" in detail


# -- hardware ------------------------------------------------------------------------


def test_a_report_in_fields_is_verified_as_its_bytes(
    snp_world: World, amd: FakeAmd
) -> None:
    world = snp_world
    crl = amd.crl()
    items = [b64(crl.public_bytes(Encoding.DER))]
    world.must("POST", "/admin/v1/collateral", {"items": items})
    client = guest(world, tee="snp", evidence=snp_evidence(amd))
    assert client.fetch("acme/snp/model") == b"snp"
    claims = jwt.decode(str(client.token), options={"verify_signature": False})
    assert claims["submods"]["cpu0"]["ear.status"] == "affirming"
    altered = snp_evidence(amd)

    def change(digest: bytes) -> dict[str, Any]:
        evidence = altered(digest)
        evidence["attestation_report"]["measurement"][0] ^= 1
        return evidence

    forged = guest(world, tee="snp", evidence=change)
    forged.auth()
    answer = forged.attest()
    assert (answer.status, answer.error) == (401, "AttestationError")
    assert "snp.report.signature" in answer.json["detail"]


def test_a_session_is_no_better_than_the_list_it_was_checked_with(
    snp_world: World, amd: FakeAmd
) -> None:
    world = snp_world
    crl = amd.crl(next_update=world.clock.now() + timedelta(seconds=60))
    items = [b64(crl.public_bytes(Encoding.DER))]
    world.must("POST", "/admin/v1/collateral", {"items": items})
    client = guest(world, tee="snp", evidence=snp_evidence(amd))
    client.handshake()
    assert client.get("acme/snp/model").status == 200
    world.clock.advance(60)
    assert client.get("acme/snp/model").error == "TokenNotFound"
    newer = amd.crl(number=8, revoked=(amd.ask.serial_number,))
    items = [b64(newer.public_bytes(Encoding.DER))]
    world.must("POST", "/admin/v1/collateral", {"items": items})
    assert "snp.revocation" in client.handshake().json["detail"]


def test_a_table_of_certificates_may_hold_other_things(
    snp_world: World, amd: FakeAmd
) -> None:
    items = [b64(amd.crl().public_bytes(Encoding.DER))]
    snp_world.must("POST", "/admin/v1/collateral", {"items": items})

    def crowded(digest: bytes) -> dict[str, Any]:
        evidence = snp_evidence(amd)(digest)
        other = {"cert_type": {"OTHER": "0" * 36}, "data": [1, 2, 3]}
        empty = {"cert_type": "Empty", "data": []}
        evidence["cert_chain"] = [other, empty, *evidence["cert_chain"]]
        return evidence

    client = guest(snp_world, tee="snp", evidence=crowded)
    assert client.fetch("acme/snp/model") == b"snp"


def test_without_a_revocation_list_a_guest_is_asked_to_come_again(
    snp_world: World, amd: FakeAmd
) -> None:
    client = guest(snp_world, tee="snp", evidence=snp_evidence(amd))
    client.auth()
    # A policy of one tenant tolerates it, so that the session is as good as that.
    assert client.attest().status == 200
    answer = client.get("acme/snp/model")
    assert answer.status == 503
    assert "snp.revocation" in answer.json["detail"]
    assert open_jwe(client.get("acme/offline/model").json, client.key) == b"offline"


def test_a_quote_with_a_bare_key_counts_for_the_enrolled_one(world: World) -> None:
    tpm = world.standard()
    client = guest(world, tee="tpm", evidence=tpm_evidence(tpm))
    assert client.fetch("acme/model/chat") == b"the model key"
    (entry,) = releases(world)
    assert (entry["door"], entry["primary"]) == ("rcar", "vtpm")
    stranger = guest(world, tee="tpm", evidence=tpm_evidence(world.booted_tpm()))
    stranger.auth()
    answer = stranger.attest()
    assert "vtpm.ak.trust" in answer.json["detail"]
    assert len(releases(world)) == 1


INIT_DATA = 'version = "0.1.0"\nalgorithm = "sha256"\n\n[data]\n"aa.toml" = "x"\n'


def test_init_data_must_be_what_the_hardware_holds(
    snp_world: World, amd: FakeAmd
) -> None:
    digest = hashlib.sha256(INIT_DATA.encode()).digest()
    given = {"format": "toml", "body": INIT_DATA}
    evidence = snp_evidence(amd, host_data=digest)
    client = guest(snp_world, tee="snp", evidence=evidence, init_data=given)
    assert client.handshake().status == 200
    other = {"format": "toml", "body": INIT_DATA + "# changed\n"}
    liar = guest(snp_world, tee="snp", evidence=evidence, init_data=other)
    answer = liar.handshake()
    assert (answer.status, answer.error) == (401, "AttestationError")
    assert "rcar.init_data" in answer.json["detail"]
    # It authenticated, so it is on record, and has spent its session.
    (entry,) = releases(snp_world)
    assert entry["kind"] == "release.denied"
    assert [one["id"] for one in entry["checks"]["failed"]] == ["rcar.init_data"]
    assert entry["keys"] == []


# -- devices -------------------------------------------------------------------------

BOTH = """\
kind: ReleasePolicy
name: both
releases: ["devices/*/*"]
allow:
  - rule: two
    all:
      - {safe: true}
      - {claim: sample.svn, equals: 1}
      - {claim: sampledevice.svn, equals: 2}
"""


def test_a_device_is_bound_and_judged_with_the_primary(dev: World) -> None:
    dev.activate_policy(BOTH, name="both", tenant="devices")
    dev.create_key("devices/test/key", b"for two")
    alone = guest(dev)
    with pytest.raises(LookupError, match="sampledevice"):
        alone.fetch("devices/test/key")
    two = guest(dev, devices={"sampledevice": sample_device})
    assert two.fetch("devices/test/key") == b"for two"
    claims = jwt.decode(str(two.token), options={"verify_signature": False})
    assert set(claims["submods"]) == {"cpu0", "gpu0"}
    # A device that was attested for somebody else has no place beside this primary.
    other = guest(dev, devices={"sampledevice": sample_device})
    other.auth()
    foreign = other.message()["tee-evidence"]
    two.auth()
    assert isinstance(foreign, dict)
    own = two.message()
    evidence: Any = own["tee-evidence"]
    evidence["additional_evidence"] = foreign["additional_evidence"]
    answer = two.attest(own)
    assert answer.status == 401
    assert "binding." in answer.json["detail"]


def test_a_device_alone_is_no_primary(dev: World) -> None:
    client = guest(dev, tee="sampledevice", evidence=sample_device)
    assert client.auth().status == 200
    answer = client.attest()
    assert (answer.status, answer.error) == (401, "AttestationError")
    assert "bundle.primary" in answer.json["detail"]


# -- administrators ------------------------------------------------------------------


def upload_token(world: World, key: Ed25519PrivateKey, seconds: int = 7200) -> str:
    now = int(world.clock.now().timestamp())
    claims = {"iat": now, "exp": now + seconds, "nbf": now}
    return jwt.encode(claims, key, algorithm="EdDSA")


def test_an_administrator_uploads_rotates_and_deletes(any_dev: World) -> None:
    world = any_dev
    client = guest(world)
    token = upload_token(world, world.admin)
    path = "default/uploads/secret"
    for value in (b"first", b"\x00second\xff"):
        stored = client.call("POST", f"/resource/{path}", value, bearer=token)
        assert (stored.status, stored.body) == (200, b"")
        assert client.fetch(path) == value
    shown = world.must("GET", f"/admin/v1/keys/{path}")
    states = [one["state"] for one in shown["versions"]]  # type: ignore[attr-defined]
    assert states == ["retired", "enabled"]
    assert len(world.entries("key.imported")) == 2
    deleted = client.call("DELETE", f"/resource/{path}", bearer=token)
    assert deleted.status == 200
    assert client.get(path).status == 404
    again = client.call("DELETE", f"/resource/{path}", bearer=token)
    assert again.status == 404


def test_only_key_administrators_upload(dev: World) -> None:
    client = guest(dev)
    for bearer in (None, "x", upload_token(dev, Ed25519PrivateKey.generate())):
        answer = client.call("POST", f"/resource/{PATH}", b"evil", bearer=bearer)
        assert (answer.status, answer.error) == (401, "AdminAuthAccess")
    for seconds in (0, -5, 7201):
        token = upload_token(dev, dev.admin, seconds)
        answer = client.call("POST", f"/resource/{PATH}", b"evil", bearer=token)
        assert answer.status == 401
    old = upload_token(dev, dev.admin)
    dev.clock.advance(7200)
    assert client.call("POST", f"/resource/{PATH}", b"evil", bearer=old).status == 401
    assert client.fetch(PATH) == SECRET
    # A token for one request of another door is none for uploads.
    listing = mint_token(
        dev.admin,
        SignedRequest("GET", "/admin/v1/keys"),
        instance=dev.parts.instance,
        now=dev.clock.now(),
    )
    answer = client.call("POST", f"/resource/{PATH}", b"evil", bearer=listing)
    assert (answer.status, answer.error) == (401, "AdminAuthAccess")
    now = int(dev.clock.now().timestamp())
    claims = {"iat": now, "exp": now + 60}
    for more in ({"nbf": now + 50}, {"m": "GET"}, {"nbf": "x"}):
        token = jwt.encode({**claims, **more}, dev.admin, algorithm="EdDSA")
        answer = client.call("POST", f"/resource/{PATH}", b"evil", bearer=token)
        assert answer.status == 401
    # A guest's own token is none of an administrator's.
    answer = client.call("POST", f"/resource/{PATH}", b"evil", bearer=client.token)
    assert answer.status == 401


def test_a_key_administrator_of_elsewhere_is_refused_and_that_is_on_record(
    dev: World,
) -> None:
    other = Ed25519PrivateKey.generate()
    grants = (RoleGrant(Role.KEY_ADMIN, ("elsewhere",)),)
    everything = tuple(RoleGrant(role, ("*",)) for role in Role)
    authority = Authority(
        (
            Administrator("root", spki_of(dev.admin.public_key()), everything),
            Administrator("other", spki_of(other.public_key()), grants),
        ),
        1,
        ("*",),
    )
    dev.govern(Action.ACTIVATE, Kind.AUTHORITY, "*", "authority", authority.canonical())
    token, client = upload_token(dev, other), guest(dev)
    for method in ("POST", "DELETE"):
        answer = client.call(method, f"/resource/{PATH}", b"evil", bearer=token)
        assert (answer.status, answer.error) == (401, "AdminAuthAccess")
    refused = {str(one["action"]) for one in dev.entries("admin.refused")}
    assert refused == {"rcar.upload", "rcar.delete"}
    assert (
        client.call("POST", "/resource/elsewhere/a/b", b"x", bearer=token).status == 200
    )
    assert client.fetch(PATH) == SECRET


@pytest.mark.parametrize(
    ("size", "expected"),
    [(0, "1 to 65536"), (65537, "at most 65536"), (70_000, "at most 65536")],
)
def test_an_upload_that_no_key_can_be_is_refused(
    dev: World, size: int, expected: str
) -> None:
    token = upload_token(dev, dev.admin)
    answer = guest(dev).call("POST", "/resource/default/x/y", bytes(size), bearer=token)
    assert (answer.status, answer.error) == (401, "PluginInternalError")
    assert f"got {size} bytes, expected {expected}" in answer.json["detail"]


@pytest.mark.parametrize(
    ("claims", "said"),
    [
        ({"iat": 0}, 'got Token is missing the "exp" claim, expected EdDSA, iat, exp'),
        ({"iat": 60, "exp": 55}, "got -5 s, expected 1 to 7200 s from iat to exp"),
        ({"iat": 0, "exp": 7201}, "got 7201 s, expected 1 to 7200 s from iat to exp"),
    ],
)
def test_a_token_that_is_none_for_uploads_says_why(
    dev: World, claims: dict[str, int], said: str
) -> None:
    token = jwt.encode(claims, dev.admin, algorithm="EdDSA")
    answer = guest(dev).call("POST", f"/resource/{PATH}", b"x", bearer=token)
    assert answer.status == 401
    assert f"upload token: {said}" in answer.json["detail"]


def test_a_text_that_is_no_token_is_told_so(dev: World) -> None:
    answer = guest(dev).call("POST", f"/resource/{PATH}", b"x", bearer="x")
    assert "got Not enough segments, expected a compact JWS" in answer.json["detail"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/attestation-policy"),
        ("POST", "/resource-policy"),
        ("GET", "/resource-policy"),
        ("POST", "/reference-value"),
        ("GET", "/reference-value/a/b"),
    ],
)
def test_what_is_governed_names_the_command(dev: World, method: str, path: str) -> None:
    token = upload_token(dev, dev.admin)
    answer = guest(dev).call(method, path, b"{}", bearer=token)
    assert (answer.status, answer.error) == (401, "AdminAuthAccess")
    assert "kbs policy register" in answer.json["detail"]


@pytest.mark.parametrize(
    ("method", "path", "status", "error"),
    [
        ("GET", "/nope/x", 404, "PluginNotFound"),
        ("GET", "/auth", 404, "PluginNotFound"),
        ("POST", "/pkcs11/a", 404, "PluginNotFound"),
        ("GET", "/", 404, "PluginNotFound"),
        ("GET", "", 404, "PluginNotFound"),
        ("GET", "/resource/a/b/c/d", 404, "InvalidRequestPath"),
    ],
)
def test_other_paths(
    dev: World, method: str, path: str, status: int, error: str
) -> None:
    answer = guest(dev).call(method, path)
    assert (answer.status, answer.error) == (status, error)


def test_no_session_id_is_in_any_log(
    dev: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    client = guest(dev)
    assert client.fetch(PATH) == SECRET
    client.attest({"runtime-data": {}})
    assert client.cookie is not None
    raw = base64.urlsafe_b64decode(client.cookie + "=" * (-len(client.cookie) % 4))
    planted = [client.cookie, raw.hex(), str(client.token)]
    told = caplog.text + json.dumps(dev.entries())
    assert not any(one in told for one in planted)
    with writer(dev) as connection:
        rows = connection.execute(text("SELECT * FROM sessions")).all()
    assert raw not in b"".join(one for row in rows for one in row if type(one) is bytes)
