"""What every fault is held to: refused, said, over by itself, nothing lost.

While guests of both doors keep coming to a real server, something fails and comes back.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager

from tests.fakes.outside import GUESTS, Guest, Outside, Said, statuses

TRIES = 150
"""Requests that may still be served: what is there already has some room."""


def withstands(
    outside: Outside,
    fault: AbstractContextManager[object],
    *,
    says: Mapping[str, str],
    missing: Mapping[str, Collection[str]],
    unheard: int = 0,
    statuses_beside: Collection[int] = (),
    replaced: bool = False,
) -> None:
    """Let a fault come and go.

    `says`: codes of refusals, and words of what they say. `missing`: what readiness
    misses, each with the beginnings of what it may say of it. `unheard`: guests whose
    grant may stand in the log and not have reached them. `statuses_beside`: what guests
    may hear as well. `replaced`: whether workers may be.
    """
    waiting = outside.guests()
    before = outside.served.workers()
    path = f"default/test/k{secrets.token_hex(4)}"
    value = secrets.token_bytes(32)
    with outside.asked_all_the_time() as told:
        with fault:
            for kind in GUESTS:
                _require_said(_refused(outside, kind), says)
            found = outside.await_ready(is_ready=False)
            for what, beginnings in missing.items():
                assert found[what].startswith(tuple(beginnings)), found
            against = outside.import_key(path, value)
            # A full disk may have room in the write-ahead log for a small write.
            fitted = against == "" and "database.full" in says
            assert fitted or against.partition(":")[0] in says, against
            for guest in waiting:
                said = outside.send(guest)
                assert said.status in (200, 503, *statuses_beside), said
        outside.await_ready()
        for guest in waiting:
            # The same request as before: no challenge was spent in vain.
            said = outside.send(guest)
            assert said.status == 200, said
    assert set(statuses(told)) <= {200, 503, *statuses_beside}, statuses(told)
    assert any(one.decision for one in told)
    # A key is there whole, or not at all.
    assert fitted or outside.import_key(path, value) == ""
    for kind in GUESTS:
        guest = kind(outside.served, path=path, secret=value)
        assert guest.begin() == Said(200)
        assert outside.send(guest).status == 200
    if not replaced:
        assert outside.served.workers() == before
    assert "Traceback" not in outside.served.errors()
    outside.hold_against_log(unheard=unheard)


def _refused(outside: Outside, kind: Callable[..., Guest]) -> Said:
    for _ in range(TRIES):
        guest = kind(outside.served)
        said = guest.begin()
        if said.status == 200:
            said = outside.send(guest)
        if said.status != 200:
            return said
    raise AssertionError("nobody was refused")


def _require_said(said: Said, says: Mapping[str, str]) -> None:
    assert said.status == 503, said
    # The RCAR door has no place for a code.
    assert said.code in (*says, ""), said
    assert any(words in said.text for words in says.values()), said
