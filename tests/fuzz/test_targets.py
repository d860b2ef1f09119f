"""Every fuzz target for a moment, with inputs that are the same in every run.

The long runs are `make fuzz`, with coverage as the guide.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random

import pytest

from kbs.core.errors import MalformedError
from kbs.evidence.registry import VERIFIERS
from tests.conftest import vectors_folder
from tests.fuzz.mutations import inflated, mutated
from tests.fuzz.registry import TARGETS
from tests.fuzz.target import HangError, Shape, Target, limited

INPUTS = 150
LONG_INPUTS = 3
"""As long as the door lets through: what takes more than linear time shows there."""


def _inputs(target: Target) -> Iterator[bytes]:
    # The seed is the name: keys of the fakes are new each time, changes are not.
    chance = Random(target.name)  # noqa: S311 - to be repeated
    folder = vectors_folder()
    corpus = target.corpus(folder if folder.is_dir() else None)
    assert corpus
    yield from corpus
    for _ in range(INPUTS):
        yield mutated(chance, chance.choice(corpus), target, chance.choice(corpus))
    for _ in range(LONG_INPUTS):
        yield inflated(chance, chance.choice(corpus), target.most_bytes)


@pytest.mark.parametrize("name", TARGETS)
def test_any_input_is_taken_or_refused_in_our_words(name: str) -> None:
    target = TARGETS[name]
    with limited() as start:
        for data in _inputs(target):
            start()
            try:
                target.check(data)
            except Exception as exc:
                exc.add_note(f"{name}: {len(data)} bytes: {data[:2000]!r}")
                raise


@pytest.mark.parametrize("kind", [one for one in VERIFIERS if "sample" not in one])
def test_every_family_of_evidence_has_its_targets(kind: str) -> None:
    assert [name for name in TARGETS if name.startswith(f"{kind}.")]


def test_every_target_takes_something() -> None:
    """A target whose seeds are all refused looks at nothing but its first check."""
    refusing = {"client.problem", "key.ssh_signature"}
    for target in TARGETS.values():
        taken = any(target.check(data) for data in target.seeds())
        assert taken != (target.name in refusing), target.name


def _target(run: Callable[[bytes], object]) -> Target:
    return Target(name="planted", run=run, seeds=lambda: (b'{"a":"b"}',))


def _stray(data: bytes) -> None:
    raise KeyError(data)


def _unsendable(data: bytes) -> None:
    raise MalformedError("text", got="\ud800")


def _endless(data: bytes) -> None:
    raise MalformedError("text", got="a" * 10_000)


@pytest.mark.parametrize(
    ("run", "finding"),
    [
        (_stray, KeyError),
        (_unsendable, UnicodeEncodeError),
        (_endless, AssertionError),
    ],
)
def test_what_is_no_answer_is_found(
    run: Callable[[bytes], object], finding: type[Exception]
) -> None:
    with pytest.raises(finding):
        _target(run).check(b"")


def test_a_hang_is_found() -> None:
    def hang(data: bytes) -> None:
        while data:
            pass

    with limited(1) as start:
        start()
        with pytest.raises(HangError):
            _target(hang).check(b"x")


@pytest.mark.parametrize("shape", Shape)
def test_the_same_seed_makes_the_same_changes(shape: Shape) -> None:
    target = Target(name="planted", run=len, seeds=lambda: (b"",), shape=shape)
    good = b'{"a": ["MDEyMw==", 17, null], "b": {"c": "00ff"}}\n[1, 2]'
    rounds = []
    for _ in range(2):
        chance = Random(7)  # noqa: S311 - to be repeated
        rounds.append([mutated(chance, good, target, good) for _ in range(300)])
    assert rounds[0] == rounds[1]
    assert len(set(rounds[0])) > 200
