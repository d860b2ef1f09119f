"""What a snapshot of governance remembers of the questions it was asked."""

from __future__ import annotations

import pytest

from kbs.broker import snapshot as snapshots
from kbs.broker.governance import Governance
from kbs.core.ids import KeyId
from tests.fakes.world import World

POLICY = """\
kind: ReleasePolicy
name: chat
releases: ["acme/model/chat-*"]
allow:
  - rule: any-sample
    all: [{claim: sample.svn, at_least: 1}]
"""


def test_what_governs_a_key_is_remembered_and_guests_cannot_fill_the_memory(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshots, "REMEMBERED", 8)
    world.activate_policy(POLICY)
    parts = world.parts
    in_force = Governance(
        instance=parts.instance,
        genesis_digest=parts.genesis_digest,
        vocabulary=parts.vocabulary,
    )
    with parts.database.read() as tx:
        snapshot = in_force.snapshot(tx)
    for number in range(40):
        matching = snapshot.governing(KeyId("acme", "model", f"chat-{number}"))
        assert [policy.subject.name for policy in matching] == ["chat"]
        assert snapshot.governing(KeyId("acme", "model", f"other-{number}")) == ()
        assert snapshot.governing(KeyId(f"rival-{number}", "model", "chat-1")) == ()
        assert snapshot.view(f"tenant-{number}") is snapshot.view(f"tenant-{number}")
        assert len(snapshot.matches) <= 8
        assert len(snapshot.views) <= 8
    again = KeyId("acme", "model", "chat-39")
    assert snapshot.governing(again) is snapshot.governing(again)
