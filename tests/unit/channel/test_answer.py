"""Answers: their one form, and outcomes that do not contradict themselves."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Any

import pytest

from kbs.channel.answer import (
    Answer,
    Outcome,
    ReleasedKey,
    WithheldKey,
    parse_answer,
    serialize_keys,
)
from kbs.channel.recipient import Suite
from kbs.core.encode import canonical_json
from kbs.core.errors import MalformedError
from kbs.core.ids import parse_key_ref

CHAT = parse_key_ref("acme/model/chat@3")
GRANTED = Answer(
    audience="kbs.example.org/log",
    nonce="AQAA",
    decision="0123456789abcdef" * 2,
    time=datetime(2026, 11, 22, 8, 0, tzinfo=UTC),
    outcome=Outcome.GRANTED,
    suite=Suite.X25519,
    keys=(CHAT,),
    sealed=b"enc and ct",
)
GOOD: dict[str, Any] = GRANTED.to_json()
WITHHELD = {"key": "acme/model/other", "reasons": ["policy.none"]}
DENIED: dict[str, Any] = {
    **{name: value for name, value in GOOD.items() if name != "sealed"},
    "outcome": "denied",
    "keys": [],
    "denied": [WITHHELD],
}
CHECKED: dict[str, Any] = {**DENIED, "outcome": "checked", "keys": GOOD["keys"]}


@pytest.mark.parametrize(
    "document",
    [GOOD, {**GOOD, "denied": [WITHHELD]}, DENIED, CHECKED, {**CHECKED, "keys": []}],
)
def test_what_is_parsed_is_written_back_the_same(document: dict[str, Any]) -> None:
    answer = parse_answer(document)
    assert canonical_json(answer.to_json()) == canonical_json(document)
    assert answer.digest() == hashlib.sha256(canonical_json(document)).hexdigest()


@pytest.mark.parametrize(
    "document",
    [
        None,
        {},
        *({k: v for k, v in DENIED.items() if k != name} for name in DENIED),
        {**GOOD, "receipt": {}},
        {**GOOD, "format": "kbs.answer/2"},
        {**GOOD, "audience": ""},
        {**GOOD, "nonce": None},
        {**GOOD, "decision": "0" * 31},
        {**GOOD, "time": "2026-11-22"},
        {**GOOD, "suite": "x"},
        {**GOOD, "sealed": "a b"},
        {**GOOD, "outcome": "allowed"},
        {**GOOD, "outcome": None},
        {**GOOD, "keys": []},
        {**GOOD, "keys": [{"id": "acme/model/chat"}]},
        {**GOOD, "keys": [{"id": "acme/model/chat", "version": 0}]},
        {**GOOD, "keys": [{"id": "acme/model/chat@3", "version": 3}]},
        {**GOOD, "keys": GOOD["keys"] * 65},
        {**GOOD, "outcome": "denied"},
        {**GOOD, "outcome": "checked"},
        {**DENIED, "outcome": "granted"},
        {**DENIED, "denied": []},
        {**DENIED, "keys": GOOD["keys"]},
        {**DENIED, "sealed": GOOD["sealed"]},
        {**DENIED, "denied": [{**WITHHELD, "reasons": []}]},
        {**DENIED, "denied": [{**WITHHELD, "reasons": ["not an id"]}]},
        {**DENIED, "denied": [{**WITHHELD, "reasons": [1]}]},
        {**DENIED, "denied": [{"key": "acme/model/other"}]},
        {**CHECKED, "keys": [], "denied": []},
    ],
)
def test_anything_else_is_refused(document: object) -> None:
    with pytest.raises(MalformedError):
        parse_answer(document)


def test_keys_in_an_answer_have_versions() -> None:
    with pytest.raises(MalformedError):
        Answer(
            audience="a",
            nonce="n",
            decision="0" * 32,
            time=GRANTED.time,
            outcome=Outcome.CHECKED,
            suite=Suite.X25519,
            keys=(parse_key_ref("acme/model/chat"),),
        )


def test_what_is_sealed_is_canonical() -> None:
    released = [ReleasedKey(CHAT, b"\x00\xff")]
    assert serialize_keys(released) == (
        b'{"keys":[{"id":"acme/model/chat","value":"AP8","version":3}]}'
    )


def test_a_released_key_shows_no_value() -> None:
    assert "secret" not in repr(ReleasedKey(CHAT, b"secret"))


def test_a_withheld_key_has_its_json() -> None:
    key = WithheldKey(parse_key_ref("acme/model/other"), ("policy.none",))
    assert key.to_json() == WITHHELD
