"""Which deny entries stand against a release."""

from __future__ import annotations

import pytest

from kbs.core.encode import canonical_json
from kbs.core.ids import ScopedName, parse_key_ref
from kbs.governance.chain import replay
from kbs.governance.denials import ReleaseSubject, denials_against
from kbs.governance.statement import Action, Kind
from tests.fakes.governors import INSTANCE, Chain

HEX = "ab" * 32
SUBJECT = ReleaseSubject(
    key=parse_key_ref("acme/model/chat@3"),
    policies=frozenset({ScopedName("acme", "chat")}),
    identities=frozenset({f"chip:{HEX}", f"ak:{HEX}", f"gpu:{HEX}"}),
    measurements=frozenset({HEX}),
)


def stands(target: str, value: str, *, tenant: str = "acme") -> bool:
    chain = Chain()
    content = canonical_json({"target": target, "value": value, "reason": "r"})
    chain.state(Kind.DENY, Action.DENY, content, name=f"{tenant}/d")
    state = replay(
        chain.rows,
        genesis_digest=chain.genesis_digest,
        instance=INSTANCE,
        load=chain.load,
    )
    found = denials_against(state, SUBJECT)
    assert all(one.subject == ScopedName(tenant, "d") for one in found)
    return bool(found)


@pytest.mark.parametrize("tenant", ["acme", "*"])
@pytest.mark.parametrize(
    ("target", "value", "expected"),
    [
        ("policy", "acme/chat", True),
        ("policy", "acme/other", False),
        ("key", "acme/model/chat", True),
        ("key", "acme/model/chat@3", True),
        ("key", "acme/model/chat@2", False),
        ("key", "acme/model/other", False),
        ("chip", HEX, True),
        ("chip", "cd" * 32, False),
        ("ak", HEX, True),
        ("ak", "cd" * 32, False),
        ("gpu", HEX, True),
        ("gpu", "cd" * 32, False),
        ("measurement", HEX, True),
        ("measurement", "cd" * 32, False),
    ],
)
def test_an_entry_stands_against_what_it_names(
    tenant: str, target: str, value: str, *, expected: bool
) -> None:
    assert stands(target, value, tenant=tenant) is expected


def test_the_emergency_stop_stands_against_everything() -> None:
    assert stands("all", "", tenant="*")


def test_an_entry_of_another_tenant_does_not_count_here() -> None:
    assert not stands("chip", HEX, tenant="rival")
