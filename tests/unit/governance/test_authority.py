"""The authority document: distinct keys, sound roles, and never locked out."""

from __future__ import annotations

from typing import Any

import pytest

from kbs.core.encode import b64, canonical_json
from kbs.core.errors import MalformedError
from kbs.governance.authority import Role, parse_authority
from kbs.governance.contents import read_authority
from tests.fakes.governors import ACME, AUDITOR, EVERYBODY, ROOT, SECOND

GOOD: dict[str, Any] = EVERYBODY.to_json()
ROOT_JSON: dict[str, Any] = ROOT.administrator.to_json()
ACME_JSON: dict[str, Any] = ACME.administrator.to_json()


def of(*administrators: dict[str, Any], **changes: object) -> dict[str, Any]:
    return {**GOOD, "administrators": list(administrators), **changes}


def test_what_is_parsed_is_written_back_the_same() -> None:
    assert parse_authority(GOOD) == EVERYBODY
    assert read_authority(canonical_json(GOOD)).canonical() == canonical_json(GOOD)


def test_another_spelling_of_the_content_is_refused() -> None:
    with pytest.raises(MalformedError):
        read_authority(canonical_json(GOOD) + b"\n")


@pytest.mark.parametrize(
    "value",
    [
        None,
        *({k: v for k, v in GOOD.items() if k != name} for name in GOOD),
        {**GOOD, "more": 1},
        of(),
        of(ACME_JSON),
        of(ROOT_JSON, threshold=2),
        of(ROOT_JSON, threshold=0),
        of(ROOT_JSON, threshold=True),
        of(ROOT_JSON, ROOT_JSON),
        of(ROOT_JSON, {**ROOT_JSON, "name": "twin"}),
        of(ROOT_JSON, {**ACME_JSON, "name": "root"}),
        of({**ROOT_JSON, "keyid": "ab" * 32}),
        of({**ROOT_JSON, "keyid": "ab"}),
        of({**ROOT_JSON, "public_key": b64(b"x")}),
        of({**ROOT_JSON, "public_key": "-----BEGIN PUBLIC KEY-----"}),
        of({**ROOT_JSON, "name": "Root"}),
        of({**ROOT_JSON, "roles": []}),
        of({**ROOT_JSON, "roles": [{"role": "god", "repositories": ["*"]}]}),
        of({**ROOT_JSON, "roles": [{"role": 1, "repositories": ["*"]}]}),
        of({**ROOT_JSON, "roles": [{"role": "policy-admin", "repositories": []}]}),
        of({**ROOT_JSON, "roles": [{"role": "policy-admin"}]}),
        of(
            {
                **ROOT_JSON,
                "roles": [{"role": "policy-admin", "repositories": ["*", "*"]}],
            }
        ),
        of({**ROOT_JSON, "email": "x"}),
        {**GOOD, "shared": "*"},
        {**GOOD, "shared": ["a/b"]},
    ],
)
def test_any_other_document_is_refused(value: object) -> None:
    with pytest.raises(MalformedError):
        parse_authority(value)


def test_roles_count_in_their_repositories_only() -> None:
    acme, root = ACME.administrator, ROOT.administrator
    assert acme.may(Role.POLICY_ADMIN, "acme")
    assert not acme.may(Role.POLICY_ADMIN, "rival")
    assert not acme.may(Role.POLICY_ADMIN, "*")
    assert not acme.may(Role.KEY_ADMIN, "acme")
    assert root.may(Role.POLICY_ADMIN, "rival")
    assert root.may(Role.KEY_ADMIN, "*")
    assert not AUDITOR.administrator.may(Role.POLICY_ADMIN, "acme")


def test_keys_are_found_and_sharing_is_said() -> None:
    assert EVERYBODY.find(SECOND.keyid) == SECOND.administrator
    assert EVERYBODY.find("ab" * 32) is None
    assert EVERYBODY.may_share("acme")
    assert not EVERYBODY.may_share("rival")
    assert parse_authority({**GOOD, "shared": ["*"]}).may_share("rival")
