"""States, their transitions, and which version a request gets."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime

import pytest

from kbs.core.errors import ConflictError, MalformedError
from kbs.core.ids import KeyId, KeyRef
from kbs.keys.model import (
    MAX_VERSION,
    KeyKind,
    KeyState,
    KeyVersion,
    Origin,
    parse_kind,
    require_transition,
    select_version,
)

NOW = datetime(2026, 11, 22, 8, 0, tzinfo=UTC)
KEY = KeyVersion(
    key_id=KeyId("acme", "model", "chat"),
    version=1,
    kind=KeyKind.AES256,
    origin=Origin.GENERATED,
    state=KeyState.ENABLED,
    created=NOW,
    changed=NOW,
)
ALLOWED = {
    ("pending", "enabled"),
    ("pending", "destroyed"),
    ("enabled", "retired"),
    ("enabled", "destroyed"),
    ("retired", "destroyed"),
}


@dataclass(frozen=True)
class Row:
    key: KeyVersion


@pytest.mark.parametrize("old", list(KeyState))
@pytest.mark.parametrize("new", list(KeyState))
def test_only_these_transitions_are_allowed(old: KeyState, new: KeyState) -> None:
    key = replace(KEY, state=old)
    if (old.value, new.value) in ALLOWED:
        require_transition(key, new)
        return
    with pytest.raises(ConflictError) as caught:
        require_transition(key, new)
    assert caught.value.code == "key.state"


def test_a_transition_that_is_refused_is_one_sentence() -> None:
    for old, new, text in (
        (
            KeyState.RETIRED,
            KeyState.RETIRED,
            "key acme/model/chat@1 already is retired (it can become destroyed)",
        ),
        (
            KeyState.DESTROYED,
            KeyState.ENABLED,
            (
                "key acme/model/chat@1 cannot become enabled: it is destroyed "
                "(it can become nothing else)"
            ),
        ),
    ):
        with pytest.raises(ConflictError) as caught:
            require_transition(replace(KEY, state=old), new)
        assert str(caught.value) == text


STATES = {
    1: KeyState.DESTROYED,
    2: KeyState.RETIRED,
    3: KeyState.ENABLED,
    4: KeyState.ENABLED,
    5: KeyState.PENDING,
}
ROWS = [Row(replace(KEY, version=n, state=state)) for n, state in STATES.items()]


@pytest.mark.parametrize(
    ("wanted", "given"),
    [(None, 4), (1, None), (2, 2), (3, 3), (4, 4), (5, None), (6, None)],
)
def test_which_version_a_request_gets(wanted: int | None, given: int | None) -> None:
    row = select_version(ROWS, wanted)
    assert (row.key.version if row else None) == given


def test_without_an_enabled_version_there_is_none() -> None:
    rows = [row for row in ROWS if row.key.state is not KeyState.ENABLED]
    assert select_version(rows, None) is None


@pytest.mark.parametrize("version", [0, -1, MAX_VERSION + 1])
def test_a_version_is_a_number_that_a_reference_can_name(version: int) -> None:
    with pytest.raises(MalformedError):
        replace(KEY, version=version)


def test_a_revision_is_positive() -> None:
    with pytest.raises(MalformedError):
        replace(KEY, revision=0)


def test_its_json_and_reference() -> None:
    assert KEY.ref == KeyRef(KEY.key_id, 1)
    assert KEY.to_json() == {
        "id": "acme/model/chat",
        "version": 1,
        "kind": "aes256",
        "origin": "generated",
        "state": "enabled",
        "created": "2026-11-22T08:00:00Z",
        "changed": "2026-11-22T08:00:00Z",
        "revision": 1,
    }


def test_kinds_are_named_exactly() -> None:
    assert parse_kind("hpke") is KeyKind.HPKE
    for wrong in ("HPKE", "", None, 1, "rsa"):
        with pytest.raises(MalformedError):
            parse_kind(wrong)
