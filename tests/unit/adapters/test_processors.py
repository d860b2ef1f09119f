"""Processors are handed out to forks; each test in a process without threads."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from kbs.adapters.processors import Processors
from kbs.core.errors import ConfigurationError

# Forks three times, the second while the first lives and the third when it has ended.
_PROGRAM = """
import json, os, sys
from kbs.adapters.processors import Processors
processors = Processors(int(sys.argv[1]))
kept = []
def forked(then):
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        found = processors.keep_to_one(), sorted(os.sched_getaffinity(0))
        os.write(writing, json.dumps(found).encode())
        then()
        os._exit(0)
    kept.append(json.loads(os.read(reading, 4096)))
    return child
waiting, going = os.pipe()
first = forked(lambda: os.read(waiting, 1))
os.waitpid(forked(lambda: None), 0)
os.write(going, b".")
os.waitpid(first, 0)
os.waitpid(forked(lambda: None), 0)
print(json.dumps(kept))
"""


def _kept(processes: int) -> list[tuple[int | None, list[int]]]:
    """What each fork was given, and where it may run from then on."""
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, str(processes)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return [(given, allowed) for given, allowed in json.loads(done.stdout)]


def test_each_process_has_one_and_leaves_it_to_the_next() -> None:
    allowed = sorted(os.sched_getaffinity(0))
    one, other = allowed[0], allowed[1 % len(allowed)]
    assert _kept(2) == [(one, [one]), (other, [other]), (one, [one])]


def test_more_processes_than_were_said_stay_free() -> None:
    allowed = sorted(os.sched_getaffinity(0))
    one = allowed[0]
    assert _kept(1) == [(one, [one]), (None, allowed), (one, [one])]


def test_processes_that_have_to_share_are_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    there_are = len(os.sched_getaffinity(0))
    Processors(there_are)
    assert caplog.messages == []
    Processors(there_are + 1)
    (said,) = caplog.messages
    assert f"{there_are + 1} workers keep to {there_are} processors" in said


def test_where_nobody_may_choose_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_: int, __: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "sched_setaffinity", refused)
    with pytest.raises(ConfigurationError, match="Operation not permitted") as caught:
        Processors(1)
    assert "--pin-workers" in str(caught.value)
