"""Statements and envelopes: one strict form, written back the same."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from kbs.core.encode import canonical_json
from kbs.core.errors import MalformedError
from kbs.governance.statement import (
    ACTIONS,
    Action,
    Kind,
    parse_envelope,
    parse_statement,
    read_envelope,
)

GOOD: dict[str, Any] = {
    "typ": "kbs.statement/1",
    "instance": "0123456789abcdef" * 2,
    "seq": 7,
    "prev": "ab" * 32,
    "action": "activate",
    "kind": "release-policy",
    "tenant": "acme",
    "name": "chat-inference",
    "version": 3,
    "digest": "cd" * 32,
    "not_before": "2026-11-22T08:00:00Z",
    "expires": None,
}
SIGNATURE = {"keyid": "ef" * 32, "alg": "EdDSA", "sig": "AAAA"}
ENVELOPE = {"statement": GOOD, "signatures": [SIGNATURE]}


def test_what_is_parsed_is_written_back_the_same() -> None:
    envelope = read_envelope(canonical_json(ENVELOPE))
    assert envelope.canonical() == canonical_json(ENVELOPE)
    assert str(envelope.statement.subject) == "acme/chat-inference"


def test_its_hash_is_over_the_canonical_statement() -> None:
    expected = hashlib.sha256(canonical_json(GOOD)).hexdigest()
    assert parse_statement(GOOD).hash() == expected


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize("action", list(Action))
def test_an_action_that_the_kind_does_not_know_is_refused(
    kind: Kind, action: Action
) -> None:
    value = {**GOOD, "kind": kind.value, "action": action.value}
    if action in ACTIONS[kind]:
        assert parse_statement(value).action is action
    else:
        with pytest.raises(MalformedError):
            parse_statement(value)


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        *({k: v for k, v in GOOD.items() if k != name} for name in GOOD),
        {**GOOD, "comment": "x"},
        {**GOOD, "typ": "kbs.statement/2"},
        {**GOOD, "instance": "AB" * 16},
        {**GOOD, "instance": "ab" * 15},
        {**GOOD, "seq": 0},
        {**GOOD, "seq": True},
        {**GOOD, "seq": "1"},
        {**GOOD, "prev": "ab" * 31},
        {**GOOD, "prev": "AB" * 32},
        {**GOOD, "action": "Activate"},
        {**GOOD, "action": None},
        {**GOOD, "kind": "policy"},
        {**GOOD, "kind": ["ak"]},
        {**GOOD, "tenant": ""},
        {**GOOD, "tenant": "a/b"},
        {**GOOD, "tenant": "**"},
        {**GOOD, "name": "*"},
        {**GOOD, "name": "Upper"},
        {**GOOD, "version": 0},
        {**GOOD, "version": 10**9},
        {**GOOD, "digest": ""},
        {**GOOD, "not_before": "2026-11-22"},
        {**GOOD, "not_before": "2026-11-22T08:00:00.000000Z"},
        {**GOOD, "expires": "2026-11-22T08:00:00+01:00"},
        {**GOOD, "expires": 1},
    ],
)
def test_any_other_statement_is_refused(value: object) -> None:
    with pytest.raises(MalformedError):
        parse_statement(value)


@pytest.mark.parametrize(
    "value",
    [
        None,
        {"statement": GOOD},
        {**ENVELOPE, "more": 1},
        {**ENVELOPE, "signatures": []},
        {**ENVELOPE, "signatures": SIGNATURE},
        {**ENVELOPE, "signatures": [SIGNATURE, SIGNATURE]},
        {
            **ENVELOPE,
            "signatures": [{**SIGNATURE, "keyid": f"{n:064x}"} for n in range(17)],
        },
        {**ENVELOPE, "signatures": [{**SIGNATURE, "alg": "RS256"}]},
        {**ENVELOPE, "signatures": [{**SIGNATURE, "sig": "AA="}]},
        {**ENVELOPE, "signatures": [{**SIGNATURE, "keyid": "ef"}]},
        {**ENVELOPE, "signatures": [{**SIGNATURE, "name": "x"}]},
        {**ENVELOPE, "signatures": ["x"]},
    ],
)
def test_any_other_envelope_is_refused(value: object) -> None:
    with pytest.raises(MalformedError):
        parse_envelope(value)


def test_an_envelope_has_a_largest_size() -> None:
    with pytest.raises(MalformedError):
        read_envelope(b" " * 70_000)
