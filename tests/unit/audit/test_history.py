from __future__ import annotations

from dataclasses import replace

import pytest

from kbs.audit.announcement import announce, spki_text
from kbs.audit.entry import Body, parse_body, prepare
from kbs.audit.events import Event, GovernanceChange, KeyAnnouncement
from kbs.audit.history import History
from kbs.audit.kinds import Kind, Mode, Outcome, Purpose
from kbs.core.encode import b64u
from tests.unit.audit.samples import (
    DIGEST_1,
    DIGEST_2,
    ORIGIN,
    START,
    Governance,
    denied_key,
    init,
    key_decision,
    private_key,
    release,
    signer,
)


def problems(*events: Event, origin: str = ORIGIN) -> list[tuple[int, str]]:
    """Every problem with the index of its entry."""
    history = History(origin)
    return [
        (index, message)
        for index, event in enumerate(events)
        for message in history.problems_of(index, body_of(event))
    ]


def body_of(event: Event) -> Body:
    return parse_body(prepare(event, time=START).body)


def announcement(
    new: int, previous: int, purpose: Purpose = Purpose.LOG
) -> KeyAnnouncement:
    return announce(
        log=ORIGIN,
        purpose=purpose,
        public_key=private_key(new).public_key(),
        previous=private_key(previous),
    )


def test_the_life_of_a_policy_without_any_problem() -> None:
    chain = Governance()
    assert not problems(
        init(),
        release(denied_key(), outcome=Outcome.DENIED, governance=0),
        chain.state(),
        release(),
        chain.state(digest=DIGEST_2),
        release(key_decision(DIGEST_2), governance=2),
        chain.state(kind="ca", action="add", name="ek"),
        release(key_decision(DIGEST_2), governance=3),
        chain.state("deactivate", DIGEST_2),
        release(denied_key("acme/model/llama"), outcome=Outcome.DENIED, governance=4),
        chain.state(),
        release(governance=5),
    )


def test_a_grant_after_the_entry_that_revoked_its_policy_is_found() -> None:
    chain = Governance()
    found = problems(
        init(), chain.state(), chain.state("deactivate"), release(governance=2)
    )
    words = "which entry 2 had revoked"
    cited = f"key acme/model/llama: granted under digest {DIGEST_1} of policy acme/chat"
    assert found == [(3, f"{cited}, {words}")]


def test_a_grant_under_a_replaced_version_is_found() -> None:
    chain = Governance()
    found = problems(
        init(), chain.state(), chain.state(digest=DIGEST_2), release(governance=2)
    )
    assert [index for index, _ in found] == [3]
    assert "which entry 2 had revoked" in found[0][1]


def test_a_grant_before_its_policy_was_in_force_is_found() -> None:
    found = problems(init(), release(governance=0))
    words = "which no entry before had put in force"
    cited = f"key acme/model/llama: granted under digest {DIGEST_1} of policy acme/chat"
    assert found == [(1, f"{cited}, {words}")]


def test_a_policy_named_without_tenant_is_that_of_the_key() -> None:
    key = key_decision(name="chat")
    assert not problems(init(), Governance().state(), release(key))
    other = key_decision(name="beta/chat")
    assert problems(init(), Governance().state(), release(other))


def test_a_grant_under_another_state_of_governance_is_found() -> None:
    chain = Governance()
    before = problems(init(), chain.state(), release(governance=0))
    assert before == [
        (2, "granted under statement 0, but the log stood at statement 1")
    ]
    assert problems(init(), Governance().state(), release(governance=2))


def test_a_grant_that_grants_nothing_or_by_nothing_is_found() -> None:
    bare = replace(key_decision(), policies=())
    chain = Governance()
    found = problems(init(), chain.state(), release(bare), release(denied_key()))
    assert found == [
        (2, "key acme/model/llama: granted without a policy"),
        (3, "granted, but none of its keys is"),
    ]


def test_a_partial_grant_is_judged_by_its_granted_keys() -> None:
    assert not problems(
        init(), Governance().state(), release(key_decision(), denied_key())
    )


def test_a_probe_is_no_grant() -> None:
    assert not problems(init(), release(mode=Mode.CHECK, governance=9))


def statement_of(change: dict[str, object]) -> GovernanceChange:
    event = Governance().state()
    return replace(event, statement={**event.statement, **change})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seq": 2}, "got sequence number 2, expected 1"),
        ({"seq": "1"}, "got sequence number 1, expected 1"),
        ({"seq": None}, "got sequence number None, expected 1"),
        ({"prev": "00" * 32}, "the hash of the statement before it"),
        ({"instance": "00" * 16}, "it is for instance 0000"),
    ],
)
def test_a_statement_that_does_not_follow_is_found(
    change: dict[str, object], words: str
) -> None:
    ((index, message),) = problems(init(), statement_of(change))
    assert index == 1
    assert words in message


def test_a_missing_statement_is_found_at_the_next_one() -> None:
    chain = Governance()
    first, _, third = (chain.state() for _ in range(3))
    found = problems(init(), first, third)
    assert [index for index, _ in found] == [2, 2]
    assert "got sequence number 3, expected 2" in found[0][1]


def test_a_changed_statement_is_found_at_the_next_one() -> None:
    chain = Governance()
    first, second = chain.state(), chain.state()
    forged = replace(first, statement={**first.statement, "name": "other"})
    ((index, message),) = problems(init(), forged, second)
    assert (index, "prev" in message) == (2, True)


def test_what_depends_on_withheld_statements_is_not_judged() -> None:
    chain = Governance()
    first, second, third = chain.state(), chain.state(tenant="beta"), chain.state()
    history = History(ORIGIN)
    assert not history.withheld(Kind.KEY_CREATED), "it would not have been judged"
    assert history.withheld(Kind.RELEASE_GRANTED)
    assert not list(history.problems_of(0, body_of(init())))
    assert not list(history.problems_of(1, body_of(first)))
    assert history.withheld(Kind.STATEMENT)
    assert second.statement["seq"] == 2
    assert not list(history.problems_of(3, body_of(third)))
    unseen = release(key_decision(name="beta/chat"), governance=3)
    assert not list(history.problems_of(4, body_of(unseen)))
    late = release(key_decision(DIGEST_2), governance=2)
    assert list(history.problems_of(5, body_of(late))) == [
        "granted under statement 2, but the log stood at statement 3"
    ]


def test_the_first_entry_and_only_that_one_begins_the_log() -> None:
    assert problems(Governance().state()) == [
        (0, "statement: only entry 0 is instance.init")
    ]
    assert problems(init(), init()) == [
        (1, "instance.init: only entry 0 is instance.init")
    ]


def test_the_log_is_the_one_that_its_checkpoints_name() -> None:
    assert problems(init(), origin="other.example") == [
        (0, f"log: got {ORIGIN}, expected other.example")
    ]
    assert not problems(init(), announcement(2, 1), origin="")
    ((index, message),) = problems(
        init(), replace(announcement(2, 1), log="other.example"), origin=""
    )
    assert (index, "does not verify" in message) == (1, True)


def test_a_log_must_name_the_key_that_it_begins_with() -> None:
    nameless = replace(init(), public_keys={})
    assert [index for index, _ in problems(nameless)] == [0]
    wrong = replace(init(), public_keys={"log": b64u(b"junk")})
    assert [index for index, _ in problems(wrong)] == [0]


def test_keys_follow_one_another_for_each_purpose() -> None:
    history = History(ORIGIN)
    events: list[Event] = [
        init(),
        announcement(2, 1),
        announcement(101, 100, Purpose.RESPONSE),
        announcement(3, 2),
        announcement(102, 101, Purpose.RESPONSE),
    ]
    for index, event in enumerate(events):
        assert not list(history.problems_of(index, body_of(event)))
    assert history.log_keys == [signer(seed).key for seed in (1, 2, 3)]
    assert history.keys["response"] == spki_text(private_key(102).public_key())


@pytest.mark.parametrize(
    ("announced", "words"),
    [
        (announcement(2, 9), "announced by another key than the one before it"),
        (announcement(2, 1, Purpose.TOKEN), "announced by another key"),
        (replace(announcement(2, 1), log="other.example"), "announced for the log"),
        (replace(announcement(2, 1), signature=b64u(bytes(64))), "does not verify"),
        (replace(announcement(2, 1), public_key=b64u(b"junk")), "public key"),
    ],
)
def test_an_announcement_that_does_not_follow_is_found(
    announced: KeyAnnouncement, words: str
) -> None:
    found = problems(init(), announced)
    assert found
    assert {index for index, _ in found} == {1}
    assert words in found[0][1]


def test_a_log_key_that_is_no_ed25519_key_is_found() -> None:
    from cryptography.hazmat.primitives.asymmetric import ec

    announced = announce(
        log=ORIGIN,
        purpose=Purpose.LOG,
        public_key=ec.derive_private_key(7, ec.SECP256R1()).public_key(),
        previous=private_key(1),
    )
    ((index, message),) = problems(init(), announced)
    assert (index, "Ed25519" in message) == (1, True)
