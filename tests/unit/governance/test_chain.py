"""The chain: what extends it, what does not, and what a changed database does to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from kbs.core.encode import canonical_json
from kbs.core.errors import (
    ConflictError,
    ForbiddenError,
    IntegrityError,
    KbsError,
    MalformedError,
)
from kbs.core.ids import ScopedName
from kbs.governance.authority import Role
from kbs.governance.chain import extend, replay, start
from kbs.governance.rules import SIGNERS
from kbs.governance.state import GovernanceState, StoredStatement
from kbs.governance.statement import (
    Action,
    Envelope,
    Kind,
    Statement,
    read_envelope,
)
from tests.fakes.governors import (
    ACME,
    ACME_KEYS,
    AUDITOR,
    EVERYBODY,
    INSTANCE,
    NOW,
    ROOT,
    SECOND,
    STRANGER,
    Chain,
    Governor,
    authority,
    changed,
    signed,
)
from tests.unit.governance.test_objects import AK, CA, DENY, SET

POLICY = b'{"kind":"ReleasePolicy"}'
WORKLOAD = b"allow: nothing\n"
ACTIVATE, ADD = Action.ACTIVATE, Action.ADD
STOP = canonical_json({"target": "all", "value": "", "reason": "incident"})
NEW_AUTHORITY = authority(ROOT, SECOND, threshold=2)


def proven(chain: Chain) -> GovernanceState:
    return replay(
        chain.rows,
        genesis_digest=chain.genesis_digest,
        instance=INSTANCE,
        load=chain.load,
    )


def full_chain() -> Chain:
    """One object of every kind, each by someone who may."""
    chain = Chain()
    chain.state(Kind.RELEASE_POLICY, ACTIVATE, POLICY, name="acme/chat", by=(ACME,))
    chain.state(Kind.WORKLOAD_POLICY, ACTIVATE, WORKLOAD, name="acme/runtime")
    chain.state(Kind.REFERENCE_SET, ADD, canonical_json(SET), name="acme/images")
    chain.state(Kind.AK, ADD, canonical_json(AK), name="acme/host-1", by=(SECOND,))
    chain.state(Kind.CA, ADD, canonical_json(CA), name="shared/ek-issuer")
    chain.state(
        Kind.DENY, Action.DENY, canonical_json(DENY), name="acme/d1", by=(ACME_KEYS,)
    )
    chain.state(
        Kind.AUTHORITY,
        ACTIVATE,
        EVERYBODY.canonical(),
        name="*/authority",
        version=2,
    )
    return chain


def test_a_chain_proves_what_is_in_force() -> None:
    chain = full_chain()
    state = proven(chain)
    assert (state.head_seq, state.head_hash) == (7, chain.head)
    (policy,) = state.release_policies.values()
    assert (policy.content, policy.version, policy.seq) == (POLICY, 1, 1)
    workload = state.workload_policy(ScopedName("acme", "runtime"), 1)
    assert workload is not None
    assert workload.content.size == len(WORKLOAD)
    assert state.workload_policy(ScopedName("acme", "runtime"), 2) is None
    seqs = [
        table[ScopedName(*name.split("/"))].seq
        for table, name in (
            (state.reference_sets, "acme/images"),
            (state.aks, "acme/host-1"),
            (state.cas, "shared/ek-issuer"),
            (state.denials, "acme/d1"),
        )
    ]
    assert seqs == [3, 4, 5, 6]
    assert (state.authority.seq, state.authority.version) == (7, 2)


def test_extending_one_by_one_gives_what_replay_gives_and_changes_nothing() -> None:
    chain = full_chain()
    genesis = start(
        EVERYBODY.canonical(), genesis_digest=chain.genesis_digest, instance=INSTANCE
    )
    state = genesis
    for row in chain.rows:
        envelope = _envelope(row)
        state = extend(state, envelope, chain.content_of(envelope), accepted=NOW)
    assert state == proven(chain)
    assert genesis.release_policies == {}
    assert genesis.head_seq == 0


def _envelope(row: StoredStatement) -> Envelope:
    return read_envelope(row.envelope)


def test_every_object_goes_out_of_force_the_way_it_came() -> None:
    chain = full_chain()
    out = Action.DEACTIVATE
    chain.state(Kind.RELEASE_POLICY, out, POLICY, name="acme/chat")
    chain.state(Kind.WORKLOAD_POLICY, out, WORKLOAD, name="acme/runtime")
    out = Action.REMOVE
    chain.state(Kind.REFERENCE_SET, out, canonical_json(SET), name="acme/images")
    chain.state(Kind.AK, out, canonical_json(AK), name="acme/host-1")
    chain.state(Kind.CA, out, canonical_json(CA), name="shared/ek-issuer")
    chain.state(Kind.DENY, Action.LIFT, canonical_json(DENY), name="acme/d1")
    state = proven(chain)
    tables: tuple[Any, ...] = (
        state.release_policies,
        state.workload_policies,
        state.reference_sets,
        state.aks,
        state.cas,
        state.denials,
    )
    assert all(table == {} for table in tables)


def test_rollback_is_a_new_statement_naming_the_old_version() -> None:
    chain = Chain()
    other = b'{"kind":"ReleasePolicy","v":2}'
    for content, version in ((POLICY, 1), (other, 2), (POLICY, 1)):
        chain.state(Kind.RELEASE_POLICY, ACTIVATE, content, version=version)
    (policy,) = proven(chain).release_policies.values()
    assert (policy.version, policy.seq) == (1, 3)


def test_versions_of_a_workload_policy_stand_beside_each_other() -> None:
    chain = Chain()
    for version in (1, 2):
        chain.state(Kind.WORKLOAD_POLICY, ACTIVATE, b"v%d" % version, version=version)
    assert len(proven(chain).workload_policies) == 2


# --- a new statement that is not accepted ------------------------------------------

BASE = Chain()
BASE.state(Kind.RELEASE_POLICY, ACTIVATE, POLICY, name="acme/chat")
BASE.state(Kind.DENY, Action.DENY, canonical_json(DENY), name="acme/d1")
STATE = proven(BASE)


def attempt(
    kind: Kind = Kind.RELEASE_POLICY,
    action: Action = ACTIVATE,
    content: bytes = POLICY + b" ",
    *,
    name: str = "acme/thing",
    version: int = 1,
    by: tuple[Governor, ...] = (ROOT,),
    **fields: object,
) -> GovernanceState:
    statement = BASE.draft(kind, action, content, name=name, version=version)
    envelope = signed(changed(statement, **fields), *by)
    return extend(STATE, envelope, BASE.content_of(envelope), accepted=NOW)


def test_the_attempt_itself_is_accepted() -> None:
    assert attempt().head_seq == 3


@pytest.mark.parametrize(
    ("arguments", "error", "code"),
    [
        ({"instance": "f" * 32}, ForbiddenError, "statement.instance"),
        ({"seq": 2}, ConflictError, "statement.sequence"),
        ({"seq": 4}, ConflictError, "statement.sequence"),
        ({"prev": "ab" * 32}, ConflictError, "statement.sequence"),
        (
            {"not_before": NOW + timedelta(seconds=1)},
            ForbiddenError,
            "statement.early",
        ),
        ({"expires": NOW}, ForbiddenError, "statement.expired"),
        ({"digest": "ab" * 32}, MalformedError, "malformed"),
        ({"name": "*/thing"}, MalformedError, "malformed"),
        ({"by": (STRANGER,)}, ForbiddenError, "statement.signer"),
        ({"by": (ROOT, STRANGER)}, ForbiddenError, "statement.signer"),
        ({"by": (AUDITOR,)}, ForbiddenError, "statement.threshold"),
        ({"by": (ACME_KEYS,)}, ForbiddenError, "statement.threshold"),
        ({"by": (ACME,), "name": "rival/x"}, ForbiddenError, "statement.threshold"),
        ({"by": (ACME,), "name": "shared/x"}, ForbiddenError, "statement.threshold"),
        (
            {"name": "acme/chat", "content": POLICY},
            ConflictError,
            "statement.active",
        ),
        ({"name": "acme/chat"}, ConflictError, "statement.version"),
        (
            {"name": "acme/chat", "action": Action.DEACTIVATE, "version": 2},
            ConflictError,
            "statement.active",
        ),
        (
            {"action": Action.DEACTIVATE, "name": "acme/none"},
            ConflictError,
            "statement.active",
        ),
        (
            {"kind": Kind.TOKEN_ISSUER, "action": ADD, "content": b"{}"},
            MalformedError,
            "malformed",
        ),
        ({"kind": Kind.AK, "action": ADD}, MalformedError, "malformed"),
        (
            {
                "kind": Kind.DENY,
                "action": Action.DENY,
                "content": STOP,
                "name": "acme/d1",
                "version": 2,
            },
            ConflictError,
            "statement.active",
        ),
        (
            {
                "kind": Kind.DENY,
                "action": Action.LIFT,
                "name": "acme/d1",
                "by": (ACME_KEYS,),
            },
            ForbiddenError,
            "statement.threshold",
        ),
        (
            {
                "kind": Kind.DENY,
                "action": Action.DENY,
                "content": canonical_json(
                    {"target": "key", "value": "rival/model/x", "reason": "r"}
                ),
            },
            MalformedError,
            "malformed",
        ),
        (
            {
                "kind": Kind.DENY,
                "action": Action.DENY,
                "content": STOP,
                "name": "*/stop",
                "by": (ACME, ACME_KEYS),
            },
            ForbiddenError,
            "statement.threshold",
        ),
    ],
)
def test_a_statement_that_does_not_fit_is_not_accepted(
    arguments: dict[str, Any], error: type[KbsError], code: str
) -> None:
    with pytest.raises(error) as caught:
        attempt(**arguments)
    assert caught.value.code == code


def test_within_its_time_a_statement_is_accepted() -> None:
    state = attempt(not_before=NOW, expires=NOW + timedelta(seconds=1))
    assert state.head_seq == 3


def test_a_statement_without_its_content_is_not_accepted() -> None:
    envelope = signed(BASE.draft(Kind.RELEASE_POLICY, ACTIVATE, b"x"), ROOT)
    with pytest.raises(MalformedError):
        extend(STATE, envelope, None, accepted=NOW)


def test_a_signature_that_does_not_verify_is_not_outweighed_by_one_that_does() -> None:
    statement = BASE.draft(Kind.RELEASE_POLICY, ACTIVATE, b"x")
    good, other = signed(statement, ROOT, SECOND).signatures
    broken = replace(other, value=bytes(64))
    with pytest.raises(ForbiddenError) as caught:
        extend(STATE, Envelope(statement, (good, broken)), b"x", accepted=NOW)
    assert caught.value.code == "statement.signature"


def test_an_old_approval_never_counts_again() -> None:
    chain = Chain()
    old = chain.state(Kind.RELEASE_POLICY, ACTIVATE, POLICY)
    chain.state(Kind.RELEASE_POLICY, Action.DEACTIVATE, POLICY)
    with pytest.raises(ConflictError) as caught:
        extend(proven(chain), old, POLICY, accepted=NOW)
    assert caught.value.code == "statement.sequence"


@pytest.mark.parametrize("by", [ROOT, SECOND])
def test_the_emergency_stop_takes_a_role_in_every_repository(by: Governor) -> None:
    state = attempt(Kind.DENY, Action.DENY, STOP, name="*/stop", by=(by,))
    assert ScopedName("*", "stop") in state.denials


@pytest.mark.parametrize("by", [ACME, ACME_KEYS, ROOT])
def test_either_role_may_deny_in_its_tenant(by: Governor) -> None:
    content = canonical_json({"target": "key", "value": "acme/m/x", "reason": "r"})
    assert attempt(Kind.DENY, Action.DENY, content, by=(by,)).head_seq == 3


def test_every_kind_has_its_signers() -> None:
    assert set(SIGNERS) == set(Kind)
    assert all(Role.POLICY_ADMIN in roles for roles in SIGNERS.values())
    assert not any(Role.AUDITOR in roles for roles in SIGNERS.values())


# --- the authority changes itself ---------------------------------------------------


def hand_over(
    new: Any,
    *by: Governor,
    version: int = 2,
    name: str = "*/authority",
    base: Chain | None = None,
) -> GovernanceState:
    chain = base or Chain()
    statement = chain.draft(
        Kind.AUTHORITY, ACTIVATE, new.canonical(), name=name, version=version
    )
    envelope = signed(statement, *by)
    state = extend(proven(chain), envelope, chain.content_of(envelope), accepted=NOW)
    chain.add(envelope)
    return state


def test_a_new_authority_takes_both_thresholds() -> None:
    assert hand_over(NEW_AUTHORITY, ROOT, SECOND).authority.content == NEW_AUTHORITY
    with pytest.raises(ForbiddenError) as caught:
        hand_over(NEW_AUTHORITY, ROOT)
    assert caught.value.code == "statement.threshold"


def test_a_successor_alone_cannot_take_over() -> None:
    with pytest.raises(ForbiddenError) as caught:
        hand_over(authority(STRANGER), STRANGER)
    assert caught.value.code == "statement.threshold"
    state = hand_over(authority(STRANGER), ROOT, STRANGER)
    assert state.authority.content.find(ROOT.keyid) is None


@pytest.mark.parametrize("by", [ACME, AUDITOR, ACME_KEYS])
def test_only_a_policy_admin_of_everything_changes_the_authority(by: Governor) -> None:
    with pytest.raises(ForbiddenError):
        hand_over(EVERYBODY, by)


def test_the_new_threshold_holds_for_the_next_statement() -> None:
    chain = Chain()
    hand_over(NEW_AUTHORITY, ROOT, SECOND, base=chain)
    one = signed(chain.draft(Kind.RELEASE_POLICY, ACTIVATE, POLICY), ROOT)
    with pytest.raises(ForbiddenError):
        extend(proven(chain), one, POLICY, accepted=NOW)
    both = signed(one.statement, ROOT, SECOND)
    assert extend(proven(chain), both, POLICY, accepted=NOW).head_seq == 2
    # To go back to one is for the two of them.
    with pytest.raises(ForbiddenError):
        hand_over(EVERYBODY, ROOT, version=3, base=chain)
    hand_over(EVERYBODY, ROOT, SECOND, version=3, base=chain)
    assert proven(chain).authority.content.threshold == 1


@pytest.mark.parametrize("version", [1, 2])
def test_an_authority_has_a_higher_version_each_time(version: int) -> None:
    chain = Chain()
    hand_over(EVERYBODY, ROOT, base=chain)
    with pytest.raises(ConflictError) as caught:
        hand_over(EVERYBODY, ROOT, version=version, base=chain)
    assert caught.value.code == "statement.version"


@pytest.mark.parametrize("name", ["acme/authority", "*/other"])
def test_there_is_one_authority(name: str) -> None:
    with pytest.raises(MalformedError):
        hand_over(EVERYBODY, ROOT, name=name)


# --- the database changed behind the broker -----------------------------------------


def tampered(change: Callable[[Chain], None]) -> None:
    chain = full_chain()
    change(chain)
    proven(chain)


def _resign(chain: Chain, index: int, by: Governor, **fields: object) -> None:
    statement: Statement = changed(_envelope(chain.rows[index]).statement, **fields)
    chain.rows[index] = StoredStatement(signed(statement, by).canonical(), NOW)


def _edit(chain: Chain, index: int, old: bytes, new: bytes) -> None:
    row = chain.rows[index]
    assert old in row.envelope
    chain.rows[index] = replace(row, envelope=row.envelope.replace(old, new))


def _put(chain: Chain, kind: Kind, old: bytes, new: bytes) -> None:
    for (kept, digest), content in list(chain.contents.items()):
        if kept is kind and old in content:
            chain.contents[kind, digest] = content.replace(old, new)


def _drop(chain: Chain, kind: Kind) -> None:
    chain.contents = {k: v for k, v in chain.contents.items() if k[0] is not kind}


@pytest.mark.parametrize(
    ("change", "seq"),
    [
        (lambda c: c.rows.pop(0), 1),
        (lambda c: c.rows.pop(2), 3),
        (lambda c: c.rows.insert(1, c.rows[0]), 2),
        (lambda c: c.rows.reverse(), 1),
        (lambda c: _edit(c, 0, b'"chat"', b'"chit"'), 1),
        (lambda c: _edit(c, 0, b'"acme"', b'"evil"'), 1),
        (lambda c: _edit(c, 3, b'"add"', b'"remove"'), 4),
        (lambda c: _edit(c, 1, b"}", b"} "), 2),
        (lambda c: _edit(c, 1, b'"seq":2', b'"seq":3'), 2),
        (lambda c: _resign(c, 0, STRANGER), 1),
        (lambda c: _resign(c, 1, ACME_KEYS), 2),
        (lambda c: _resign(c, 2, ROOT, version=9), 4),
        (lambda c: _put(c, Kind.RELEASE_POLICY, b"Policy", b"Folicy"), 1),
        (lambda c: _put(c, Kind.WORKLOAD_POLICY, b"nothing", b"anythin"), 2),
        (lambda c: _put(c, Kind.REFERENCE_SET, b"abab", b"abba"), 3),
        (lambda c: _put(c, Kind.AK, b"hosts", b"h0sts"), 4),
        (lambda c: _put(c, Kind.CA, b'"ek"', b'"ak"'), 5),
        (lambda c: _put(c, Kind.DENY, b"stolen", b"solder"), 6),
        (lambda c: _drop(c, Kind.AK), 4),
        (
            lambda c: c.rows.__setitem__(
                1, replace(c.rows[1], envelope=b"not an envelope")
            ),
            2,
        ),
    ],
)
def test_a_changed_chain_is_refused_and_the_statement_named(
    change: Callable[[Chain], None], seq: int
) -> None:
    with pytest.raises(IntegrityError) as caught:
        tampered(change)
    assert caught.value.code == "governance.chain"
    assert str(caught.value).startswith(f"governance statement {seq}:")


def test_an_expired_statement_slipped_in_later_is_refused() -> None:
    chain = Chain()
    statement = changed(chain.draft(Kind.RELEASE_POLICY, ACTIVATE, POLICY), expires=NOW)
    chain.add(signed(statement, ROOT), accepted=NOW + timedelta(days=1))
    with pytest.raises(IntegrityError):
        proven(chain)


@pytest.mark.parametrize(
    "change",
    [
        lambda c: _put(c, Kind.AUTHORITY, b'"threshold":1', b'"threshold":9'),
        lambda c: _put(c, Kind.AUTHORITY, b'"shared":["acme"]', b'"shared":["*"]'),
        lambda c: _drop(c, Kind.AUTHORITY),
    ],
)
def test_a_changed_genesis_is_refused(change: Callable[[Chain], None]) -> None:
    chain = Chain()
    change(chain)
    with pytest.raises(IntegrityError) as caught:
        proven(chain)
    assert caught.value.code == "governance.genesis"


def test_another_pinned_genesis_or_instance_is_refused() -> None:
    chain = full_chain()
    other = chain.keep(Kind.AUTHORITY, NEW_AUTHORITY.canonical())
    for genesis, instance in ((other, INSTANCE), (chain.genesis_digest, "f" * 32)):
        with pytest.raises(IntegrityError):
            replay(
                chain.rows, genesis_digest=genesis, instance=instance, load=chain.load
            )


def test_a_genesis_that_is_no_authority_is_refused() -> None:
    chain = Chain()
    digest = chain.keep(Kind.AUTHORITY, b"{}")
    with pytest.raises(IntegrityError) as caught:
        start(b"{}", genesis_digest=digest, instance=INSTANCE)
    assert caught.value.code == "governance.genesis"
