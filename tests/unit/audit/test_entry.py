from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from kbs.audit import entry as entries
from kbs.audit.announcement import announce
from kbs.audit.entry import (
    parse_body,
    parse_leaf,
    prepare,
    salted_digest,
    verify_body,
)
from kbs.audit.events import (
    AdminAction,
    AdminRefused,
    CollateralFetched,
    CollateralPruned,
    EnrolmentPending,
    Event,
    EvidenceExpired,
    IntegrityReported,
    KeyChange,
    LogState,
    Refusals,
    RefusalSample,
    RollbackAccepted,
)
from kbs.audit.kinds import KeyOrigin, Kind, Mode, Outcome, Purpose
from kbs.audit.schema import check_members
from kbs.core.encode import canonical_json
from kbs.core.errors import MalformedError, VerificationError
from tests.unit.audit.samples import (
    AUTHORITY,
    ORIGIN,
    START,
    Governance,
    denied_key,
    init,
    key_decision,
    private_key,
    release,
)

SALT = bytes(16)
ID = "ab" * 16


def key_change(kind: Kind, origin: KeyOrigin | None = None) -> KeyChange:
    return KeyChange(
        kind=kind, key="acme/model/llama", version=2, actor="k1", origin=origin
    )


def announced(purpose: Purpose) -> Event:
    return announce(
        log=ORIGIN,
        purpose=purpose,
        public_key=private_key(2).public_key(),
        previous=private_key(1),
    )


STATE = LogState(seq=1, size=2, root=AUTHORITY)
SAMPLE = RefusalSample(
    decision="d" * 32,
    time=START,
    check="snp.chain",
    detail="d",
    got="g",
    expected="e",
)

EVENTS: list[tuple[Event, Kind, tuple[str, ...]]] = [
    (init(), Kind.INSTANCE_INIT, ()),
    (release(), Kind.RELEASE_GRANTED, ("acme",)),
    (
        release(key_decision(), denied_key(), outcome=Outcome.GRANTED),
        Kind.RELEASE_GRANTED,
        ("acme", "beta"),
    ),
    (
        release(denied_key(), outcome=Outcome.DENIED, development=True),
        Kind.RELEASE_DENIED,
        ("beta",),
    ),
    (release(mode=Mode.CHECK), Kind.RELEASE_PROBE, ("acme",)),
    (
        Refusals(
            door="v1",
            reason="snp.chain",
            count=7,
            since=START,
            until=START + timedelta(seconds=60),
            samples=(SAMPLE, replace(SAMPLE, got=None, expected=None)),
        ),
        Kind.REFUSALS,
        (),
    ),
    (Governance().state(), Kind.STATEMENT, ("acme",)),
    (Governance().state(kind="authority", tenant="*"), Kind.STATEMENT, ()),
    (key_change(Kind.KEY_CREATED, KeyOrigin.GENERATED), Kind.KEY_CREATED, ("acme",)),
    (key_change(Kind.KEY_IMPORTED, KeyOrigin.IMPORTED), Kind.KEY_IMPORTED, ("acme",)),
    (key_change(Kind.KEY_ROTATED), Kind.KEY_ROTATED, ("acme",)),
    (key_change(Kind.KEY_RETIRED), Kind.KEY_RETIRED, ("acme",)),
    (key_change(Kind.KEY_DESTROYED), Kind.KEY_DESTROYED, ("acme",)),
    (
        EnrolmentPending(
            enrolment=ID, tenant="acme", group="hosts", ak_name="000b00", ek="hmac:00"
        ),
        Kind.ENROLMENT_PENDING,
        ("acme",),
    ),
    (
        AdminAction(actor="k1", action="policy.register", tenant="acme"),
        Kind.ADMIN_ACTION,
        ("acme",),
    ),
    (AdminRefused(action="key.create", reason="forbidden"), Kind.ADMIN_REFUSED, ()),
    (announced(Purpose.LOG), Kind.LOG_KEY, ()),
    (announced(Purpose.RESPONSE), Kind.BROKER_KEY, ()),
    (RollbackAccepted(reason="r", mark=STATE, found=STATE), Kind.ROLLBACK_ACCEPTED, ()),
    (
        EvidenceExpired(count=1, before=START, digests=(AUTHORITY,)),
        Kind.EVIDENCE_EXPIRED,
        (),
    ),
    (
        CollateralFetched(source="https://kdsintf.amd.com/vcek/v1/Milan/crl", count=1),
        Kind.COLLATERAL_FETCHED,
        (),
    ),
    (
        CollateralPruned(count=1, before=START, digests=(AUTHORITY,)),
        Kind.COLLATERAL_PRUNED,
        (),
    ),
    (
        IntegrityReported(
            subject="release-policy acme/chat", detail="d", tenant="acme"
        ),
        Kind.INTEGRITY_REPORTED,
        ("acme",),
    ),
]


@pytest.mark.parametrize(("event", "kind", "tenants"), EVENTS)
def test_every_event_becomes_an_entry_that_reads_back(
    event: Event, kind: Kind, tenants: tuple[str, ...]
) -> None:
    prepared = prepare(event, time=START, entry_id=ID, salt=SALT)
    assert (prepared.kind, prepared.tenants) == (kind.value, tenants)
    leaf, body = parse_leaf(prepared.leaf), parse_body(prepared.body)
    assert (leaf.id, leaf.time, leaf.kind) == (ID, START, kind)
    assert (body.id, body.time, body.kind) == (ID, START, kind)
    assert leaf.serialize() == prepared.leaf
    assert body.serialize() == prepared.body
    assert entries.tenants(body) == tenants
    assert verify_body(leaf, prepared.body, prepared.salt) == body


def test_every_kind_is_tried_above() -> None:
    assert {kind for _, kind, _ in EVENTS} == set(Kind)


def test_the_leaf_holds_a_salted_digest_and_nothing_of_the_body() -> None:
    prepared = prepare(release(), time=START, entry_id=ID, salt=SALT)
    digest = hashlib.sha256(b"kbs.entry/1\x00" + SALT + prepared.body).hexdigest()
    assert prepared.leaf == (
        b'{"body_sha256":"%b","id":"%b","kind":"release.granted",'
        b'"time":"2026-11-22T08:00:00Z","v":1}' % (digest.encode(), ID.encode())
    )


def test_id_and_salt_are_fresh_each_time() -> None:
    first, second = (prepare(release(), time=START) for _ in range(2))
    assert first.id != second.id
    assert first.salt != second.salt
    assert len(first.salt) == 16


def test_a_release_says_who_got_what_by_which_rule() -> None:
    prepared = prepare(release(key_decision(), denied_key()), time=START)
    body = json.loads(prepared.body)
    granted, denied = body["keys"]
    assert granted == {
        "id": "acme/model/llama",
        "version": 1,
        "decision": "granted",
        "policies": [
            {"name": "acme/chat", "version": 1, "digest": "d1" * 32, "rule": "milan"}
        ],
        "reasons": [],
    }
    assert denied["decision"] == "denied"
    assert denied["version"] is None
    assert denied["reasons"][0] == {
        "id": "snp.measurement",
        "detail": "not a known image",
        "policy": "beta/data",
        "rule": "r",
        "got": "00",
        "expected": "01",
    }
    assert body["checks"] == {
        "all": [
            {"id": "snp.report.signature", "item": 0, "status": "pass"},
            {"id": "snp.chain", "item": None, "status": "fail"},
        ],
        "failed": [
            {
                "id": "snp.chain",
                "item": None,
                "status": "fail",
                "detail": "d",
                "got": "g",
                "expected": "e",
            }
        ],
    }
    assert (body["door"], body["mode"], body["outcome"]) == ("v1", "release", "granted")
    assert body["appraised"] == "2026-11-22T08:00:00Z"
    assert "development" not in body
    assert prepared.keys == ("acme/model/llama", "beta/data/set")
    assert prepared.policies == ("acme/chat", "beta/data")
    assert prepared.decision == "de" * 16


def test_a_development_broker_says_so_in_every_decision() -> None:
    body = json.loads(prepare(release(development=True), time=START).body)
    assert body["development"] is True


def test_a_statement_is_listed_under_the_policy_that_it_is_about() -> None:
    assert prepare(Governance().state(), time=START).policies == ("acme/chat",)
    other = Governance().state(kind="ca")
    assert prepare(other, time=START).policies == ()


@pytest.mark.parametrize(
    "event",
    [
        key_change(Kind.STATEMENT),
        replace(release(), decision="short"),
        replace(release(), request="00"),
        replace(release(), governance=-1),
        replace(release(), keys=(replace(key_decision(), id="no-key"),)),
        replace(release(), keys=(replace(key_decision(), version=0),)),
        replace(release(), primary="x" * 9000),
        replace(init(), public_keys={"other": "AAAA"}),
        replace(init(), public_keys={"log": "!"}),
        replace(init(), public_keys={"log": "A" * 5000}),
        replace(Governance().state(), statement={"a": 1.5}),
        replace(Governance().state(), signatures=["text"]),
        EvidenceExpired(count=0, before=START, digests=()),
        EvidenceExpired(count=1, before=START, digests=("00",)),
    ],
)
def test_an_event_that_no_auditor_could_read_is_not_logged(event: Event) -> None:
    with pytest.raises(MalformedError):
        prepare(event, time=START)


def test_a_body_beyond_the_limit_is_not_logged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    many = tuple(replace(SAMPLE, detail="x" * 8000) for _ in range(200))
    refusals = EVENTS[5][0]
    assert isinstance(refusals, Refusals)
    with pytest.raises(MalformedError, match="at most 1048576"):
        prepare(replace(refusals, samples=many), time=START)


def test_a_salt_has_16_bytes() -> None:
    with pytest.raises(MalformedError):
        salted_digest(b"{}", bytes(15))
    with pytest.raises(MalformedError):
        prepare(release(), time=START, salt=bytes(17))


Change = Callable[[dict[str, Any]], object]


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda m: m.update(v=2), "body v"),
        (lambda m: m.update(v=True), "body v"),
        (lambda m: m.update(v="1"), "body v"),
        (lambda m: m.pop("v"), "body"),
        (lambda m: m.update(id="AB" * 16), "body id"),
        (lambda m: m.update(id=None), "body id"),
        (lambda m: m.update(time="2026-11-22T08:00:00+00:00"), "body time"),
        (lambda m: m.update(time="2026-11-22T08:00:00.000000Z"), "body"),
        (lambda m: m.update(kind="release.unheard"), "body kind"),
        (lambda m: m.update(kind=["x"]), "body kind"),
        (lambda m: m.update(kind="key.created"), "log entry key.created"),
        (lambda m: m.update(kind="release.denied"), "log entry release.denied outcome"),
        (lambda m: m.update(kind="release.probe"), "log entry release.probe mode"),
        (lambda m: m.update(secret="x"), "log entry release.granted"),
        (lambda m: m.pop("keys"), "log entry release.granted"),
        (lambda m: m.update(keys={}), "log entry release.granted keys"),
        (lambda m: m.update(keys=[None]), "log entry release.granted keys[0]"),
        (lambda m: m["keys"][0].pop("reasons"), "log entry release.granted keys[0]"),
        (
            lambda m: m["keys"][0].update(decision="maybe"),
            "log entry release.granted keys[0] decision",
        ),
        (
            lambda m: m["keys"][0]["policies"][0].update(version=True),
            "log entry release.granted keys[0] policies[0] version",
        ),
        (lambda m: m.update(mode="dry"), "log entry release.granted mode"),
        (lambda m: m.update(mode=[]), "log entry release.granted mode"),
        (
            lambda m: m.update(development=False),
            "log entry release.granted development",
        ),
        (lambda m: m.update(development=1), "log entry release.granted development"),
        (lambda m: m.update(appraised=0), "log entry release.granted appraised"),
        (lambda m: m["checks"].pop("all"), "log entry release.granted checks"),
        (
            lambda m: m["checks"]["all"][1].update(more="x"),
            "log entry release.granted checks all[1]",
        ),
        (
            lambda m: m["checks"]["all"][1].update(id="x" * 8193),
            "log entry release.granted checks all[1] id",
        ),
        (
            lambda m: m["checks"]["all"][0].update(item=True),
            "log entry release.granted checks all[0] item",
        ),
        (
            lambda m: m["checks"]["all"][0].update(item=-1),
            "log entry release.granted checks all[0] item",
        ),
        (lambda m: m.update(keys=None), "log entry release.granted keys"),
        (lambda m: m["keys"][0].update(id="a/../b"), "key id"),
        (lambda m: m.update(request="E1" * 32), "log entry release.granted request"),
    ],
)
def test_a_body_of_another_shape_is_refused(change: Change, what: str) -> None:
    members = json.loads(prepare(release(), time=START, entry_id=ID).body)
    change(members)
    with pytest.raises(MalformedError) as caught:
        parse_body(canonical_json(members))
    assert caught.value.what == what


@pytest.mark.parametrize("parse", [parse_body, parse_leaf])
@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"null", b"\xff", b"{" * 99])
def test_what_is_no_entry_is_refused(
    parse: Callable[[bytes], object], data: bytes
) -> None:
    with pytest.raises(MalformedError):
        parse(data)


def test_another_spelling_is_refused() -> None:
    prepared = prepare(release(), time=START)
    for good, parse in ((prepared.leaf, parse_leaf), (prepared.body, parse_body)):
        for bad in (b" " + good, good + b"\n", good.replace(b":", b": ", 1)):
            with pytest.raises(MalformedError):
                parse(bad)


def test_a_purpose_belongs_to_its_kind() -> None:
    members = json.loads(prepare(announced(Purpose.TLS), time=START).body)
    for common in ("v", "id", "time", "kind"):
        del members[common]
    check_members(Kind.BROKER_KEY, members)
    with pytest.raises(MalformedError):
        check_members(Kind.LOG_KEY, members)


def test_a_body_of_another_leaf_is_refused() -> None:
    first = prepare(release(), time=START, entry_id=ID, salt=SALT)
    leaf = parse_leaf(first.leaf)
    with pytest.raises(VerificationError) as caught:
        verify_body(leaf, first.body.replace(b"v1", b"v2"), SALT)
    assert caught.value.code == "audit.body"
    with pytest.raises(VerificationError):
        verify_body(leaf, first.body, bytes([1]) * 16)


@pytest.mark.parametrize(
    "change",
    [
        {"id": "00" * 16},
        {"time": START + timedelta(seconds=1)},
        {"kind": Kind.RELEASE_DENIED},
    ],
)
def test_leaf_and_body_tell_the_same_story(change: dict[str, Any]) -> None:
    prepared = prepare(release(), time=START, entry_id=ID, salt=SALT)
    leaf = replace(parse_leaf(prepared.leaf), **change)
    with pytest.raises(VerificationError) as caught:
        verify_body(leaf, prepared.body, SALT)
    assert caught.value.code == "audit.body"
