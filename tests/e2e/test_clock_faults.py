"""The machine's clock jumps both ways under a real server (libfaketime, faketime(1)).

The time that the process reads is the machine's, moved by what a file says; what only
counts seconds (CLOCK_MONOTONIC) goes on, as it does when a clock is set.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.e2e.ordeal import withstands
from tests.fakes.outside import GUESTS, Outside, Said
from tests.fakes.served import Folders, serving

BEHIND = {
    "clock.behind": "set the clock right",
    # Administrators have the right time.
    "token.time": "expected one that covers",
}
SLIGHTLY, LIFETIME = 30, 400
"""Seconds: less than the tolerance of 60 s, and more than a challenge lasts."""


@dataclass(frozen=True)
class FileClock:
    """The time that the broker reads."""

    file: Path

    def now(self) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=int(self.file.read_text()))


@dataclass
class Site:
    """A broker, and the file that its clock follows."""

    outside: Outside
    clock: Path
    environ: Mapping[str, str]

    def jump(self, seconds: int) -> None:
        """Move the clock to so many seconds from the right time."""
        new = self.clock.with_name("clock.new")
        new.write_text(f"{seconds:+d}")
        new.rename(self.clock)

    @contextmanager
    def wrong_by(self, seconds: int) -> Iterator[None]:
        """Let the clock be wrong for a while."""
        self.jump(seconds)
        try:
            yield
        finally:
            self.jump(0)


def _library() -> str:
    """Return what moves a process's clock, or skip the test."""
    try:
        done = subprocess.run(
            ["faketime", "-f", "+0", "sh", "-c", "echo $LD_PRELOAD"],
            capture_output=True,
            text=True,
            check=True,
        )
    except (FileNotFoundError, subprocess.CalledProcessError):
        pytest.skip("faketime is not here: no clock can be moved")
    return re.split(r"[: ]", done.stdout.strip())[-1]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    clock = tmp_path / "clock"
    clock.write_text("+0")
    environ = {
        "LD_PRELOAD": _library(),
        "FAKETIME_TIMESTAMP_FILE": os.fspath(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    folders = Folders(tmp_path)
    options = ("--dev", "--workers", "2", "--rate-limit", "0")
    with serving(folders, *options, environ=environ) as served:
        outside = Outside(folders, served)
        outside.administer()
        yield Site(outside, clock, environ)


@pytest.mark.slow
def test_a_clock_that_jumps_both_ways(site: Site) -> None:
    outside = site.outside
    # A little, both ways: nobody notices.
    for seconds in (SLIGHTLY, 0, -SLIGHTLY, 0):
        site.jump(seconds)
        assert all(one.status == 200 for one in outside.fetch())
    # The log knows of a later time than its clock: nothing is decided.
    withstands(
        outside,
        site.wrong_by(-7200),
        says=BEHIND,
        missing={"clock": ["clock.behind"]},
        # What was begun at another time.
        statuses_beside=(401,),
    )
    _jumps_ahead_and_back(site)
    assert "Traceback" not in outside.served.errors()


def _jumps_ahead_and_back(site: Site) -> None:
    outside = site.outside
    waiting = outside.guests()
    site.jump(LIFETIME)
    # What was begun before has ended, and says so; who begins now is served.
    for guest in waiting:
        said = outside.send(guest)
        assert (said.status, said.decision) == (401, None)
    spent = outside.guests()
    given = [outside.send(guest) for guest in spent]
    assert all(one.decision for one in given)
    # The right time is behind the log now: the broker waits until it is reached.
    site.jump(0)
    assert outside.await_ready(is_ready=False) == {"clock": "clock.behind"}
    for kind in GUESTS:
        guest = kind(outside.served)
        said = guest.begin()
        said = outside.send(guest) if said == Said(200) else said
        assert said.status == 503
        assert BEHIND["clock.behind"] in said.text
    # Time passes, for the administrator too.
    site.jump(LIFETIME)
    outside.clock, outside.environ = FileClock(site.clock), site.environ
    outside.await_ready()
    # What was spent while the clock was ahead is known as such: the same answer.
    assert spent[0].send().decision == given[0].decision
    assert all(one.status == 200 for one in outside.fetch())
    outside.hold_against_log()
