"""`make fuzz`: every target under atheris, for so many seconds each, on all cores.

What was learnt stays in `.fuzz/corpus`, findings in `.fuzz/findings`; an input that was
found is run again by `python -m tests.fuzz --input FILE TARGET`.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.conftest import ROOT, vectors_folder
from tests.fuzz.registry import TARGETS
from tests.fuzz.target import SECONDS_PER_INPUT, Target

FOLDER = ROOT / ".fuzz"
MAX_LENGTH = 16 * 1024
"""Longest input under libFuzzer, which is best with short ones; `make test` has the
inputs that are as long as the door lets through."""

MEMORY_MB = 2048


def fuzz(target: Target, seconds: int) -> tuple[str, bool]:
    """Fuzz one target; return a line about it, and whether nothing was found."""
    corpus, findings = FOLDER / "corpus" / target.name, FOLDER / "findings"
    corpus.mkdir(parents=True, exist_ok=True)
    findings.mkdir(parents=True, exist_ok=True)
    vectors = vectors_folder()
    for data in target.corpus(vectors if vectors.is_dir() else None):
        (corpus / hashlib.sha1(data, usedforsecurity=False).hexdigest()).write_bytes(
            data
        )
    log = FOLDER / f"{target.name}.log"
    started = time.monotonic()
    with log.open("wb") as out:
        done = subprocess.run(
            [
                *(sys.executable, "-m", "tests.fuzz.worker", target.name),
                str(corpus),
                f"-max_total_time={seconds}",
                f"-timeout={SECONDS_PER_INPUT}",
                f"-rss_limit_mb={MEMORY_MB}",
                f"-max_len={min(target.most_bytes, MAX_LENGTH)}",
                f"-artifact_prefix={findings}/{target.name}-",
            ],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            check=False,
        )
    runs = _last(log.read_text("utf-8", "replace"))
    took = int(time.monotonic() - started)
    verdict = "ok" if done.returncode == 0 else f"FOUND SOMETHING, see {log}"
    return f"{target.name}: {took} s, {runs}: {verdict}", done.returncode == 0


def _last(log: str) -> str:
    told = [line for line in log.splitlines() if re.match(r"#[0-9]+\s", line)]
    return " ".join(told[-1].split()[:6]) if told else "no run"


def rerun(target: Target, path: Path) -> None:
    """Run one input without atheris; a finding is a traceback."""
    print("taken" if target.check(path.read_bytes()) else "refused")


def main(arguments: Sequence[str]) -> int:
    """Fuzz what the command line names; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("targets", nargs="*", metavar="TARGET")
    parser.add_argument("--seconds", type=int, default=3600)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--input", type=Path)
    options = parser.parse_args(arguments)
    unknown = set(options.targets) - set(TARGETS)
    if unknown:
        parser.error(f"no target {', '.join(sorted(unknown))}: {', '.join(TARGETS)}")
    chosen = [TARGETS[name] for name in options.targets or TARGETS]
    if options.input is not None:
        rerun(chosen[0], options.input)
        return 0
    is_clean = True
    with ThreadPoolExecutor(options.jobs) as pool:
        for line, is_good in pool.map(lambda one: fuzz(one, options.seconds), chosen):
            print(line, flush=True)
            is_clean = is_clean and is_good
    return 0 if is_clean else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
