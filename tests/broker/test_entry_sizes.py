"""Evidence that talks at length: the decision is recorded all the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from kbs.broker.outcomes import MAX_TEXT, shortened
from kbs.core.checks import Check, Status
from kbs.core.decision import Reason
from kbs.evidence.model import ItemResult, ParsedItem, Trust
from kbs.evidence.registry import VERIFIERS
from kbs.evidence.vtpm.verify import VtpmVerifier
from tests.fakes.answers import refusals, see
from tests.fakes.databases import Place
from tests.fakes.world import World

LONG = "\u0001\N{SNOWMAN}" * 50_000


@dataclass(frozen=True)
class Talking(VtpmVerifier):
    """A verifier whose checks say more than anybody wants to read."""

    checks: tuple[Check, ...]
    authenticates: Callable[[bool], bool]

    def verify(self, parsed: ParsedItem, trust: Trust) -> ItemResult:
        result = super().verify(parsed, trust)
        return replace(
            result,
            checks=(*self.checks, *result.checks),
            claims=None,
            authenticated=self.authenticates(result.authenticated),
        )


def failing(count: int) -> tuple[Check, ...]:
    """Checks that failed, each at length."""
    return tuple(
        Check(
            id=f"vtpm.long.{number}",
            status=Status.FAIL,
            detail=LONG,
            got=LONG,
            expected=LONG,
        )
        for number in range(count)
    )


@contextmanager
def _world(
    folder: Path,
    place: Place,
    count: int,
    authenticates: Callable[[bool], bool] = lambda known: known,
) -> Iterator[World]:
    talking = Talking(failing(count), authenticates)
    with closing(place.connect()) as opened:
        verifiers = {**VERIFIERS, "vtpm": talking}
        yield World.create(folder, database=opened, verifiers=verifiers)


@pytest.mark.parametrize("count", [1, 200])
def test_an_entry_takes_every_check(
    tmp_path: Path, sqlite_place: Place, count: int
) -> None:
    with _world(tmp_path, sqlite_place, count) as world:
        seen = see(world, world.request(world.standard()))
        assert seen.status == 403
        failed = seen.entry(world)["checks"]["failed"]
        assert len(failed) == count
        for one in failed:
            assert len(one["got"]) <= MAX_TEXT
            assert one["got"].endswith("…")


def test_an_aggregate_takes_every_sample(tmp_path: Path, sqlite_place: Place) -> None:
    with _world(tmp_path, sqlite_place, 1, lambda _: False) as world:
        request = world.request(world.standard())
        for _ in range(20):
            assert see(world, request).status == 403
        (entry,) = refusals(world)
        assert entry["count"] == 20


def test_short_texts_stay_as_they_are() -> None:
    check = Check(id="a.b", status=Status.FAIL, detail="detail", got="got")
    reason = Reason(id="a.b", detail="0123456789", expected="0123456789")
    assert shortened([check], 10) == (check,)
    assert shortened([reason], 10) == (reason,)
    (cut,) = shortened([reason], 9)
    assert (cut.detail, cut.expected, cut.got) == ("01234567…", "01234567…", None)
