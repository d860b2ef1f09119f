"""A broker with a probe at each step of a release, and a database that can fail."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.fakes.answers import Seen, see
from tests.fakes.databases import FailingDatabase, Place
from tests.fakes.tpm import FakeTpm
from tests.fakes.world import Request, World

STEPS = (
    "parsed",
    "challenge",
    "verified",
    "appraised",
    "sealed",
    "recorded",
    "before-commit",
    "after-commit",
    "committed",
)
DURABLE = {"after-commit", "committed"}


@dataclass
class Probe:
    """Acts once at a step, and remembers all that were reached."""

    step: str = ""
    act: Callable[[], object] = lambda: None
    times: int = 1
    reached: list[str] = field(default_factory=list)

    def __call__(self, step: str) -> None:
        self.reached.append(step)
        if step == self.step and self.times:
            self.times -= 1
            self.act()

    def at(self, step: str, act: Callable[[], object], times: int = 1) -> None:
        """Act at a step from now on."""
        self.step, self.act, self.times = step, act, times
        self.reached.clear()


@dataclass
class Bench:
    """A broker with a probe at its steps and a database that can fail."""

    world: World
    probe: Probe
    database: FailingDatabase
    tpm: FakeTpm
    other: World
    """The same instance in another process, for what happens meanwhile."""

    def request(self) -> Request:
        return self.world.request(self.tpm)

    def send(self, request: Request) -> Seen:
        return see(self.world, request)


@contextmanager
def open_bench(folder: Path, place: Place) -> Iterator[Bench]:
    """The usual broker, and a second process of it."""
    with closing(place.connect()) as opened, closing(place.connect()) as second:
        probe, failing = Probe(), FailingDatabase(opened)
        world = World.create(folder, database=failing, steps=probe)
        tpm = world.standard()
        other = world.restarted(database=second, steps=lambda _: None)
        yield Bench(world, probe, failing, tpm, other)
