"""What the audience sees: steps, commands as they could be typed, and what they say."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

WIDTH = 78


class DemoError(Exception):
    """Something did not happen as the demo promises."""


def colour(code: str, text: str) -> str:
    """Return coloured text where a person looks on."""
    if not sys.stdout.isatty() or os.environ.get("NO_COLOR"):
        return text
    return f"\x1b[{code}m{text}\x1b[0m"


def step(number: int, title: str) -> None:
    """Begin a step."""
    print(f"\n{colour('1;36', f'{number}. {title}')}", flush=True)


def say(text: str) -> None:
    """Say something in words."""
    print(
        textwrap.fill(
            " ".join(text.split()), WIDTH, initial_indent="   ", subsequent_indent="   "
        ),
        flush=True,
    )


def good(text: str) -> None:
    """Say that something held."""
    print(f"   {colour('32', '✓')} {text}", flush=True)


def show(text: str) -> None:
    """Show output of a command, indented."""
    for line in text.rstrip().splitlines():
        print(f"     {line}", flush=True)


@dataclass(frozen=True)
class Result:
    """How a command ended."""

    code: int
    out: str
    err: str

    def document(self) -> dict[str, object]:
        """Return the JSON that it printed."""
        parsed = json.loads(self.out)
        if not isinstance(parsed, dict):
            raise DemoError(f"no JSON object: {self.out[:200]}")
        return parsed


@dataclass(frozen=True)
class Stage:
    """Runs `kbs` as a person would, in the demo's folder."""

    folder: Path
    server: str
    profile: Path

    def kbs(
        self, *arguments: str, expect: int = 0, shown: bool = True, json: bool = False
    ) -> Result:
        """Run one command and insist on its exit code."""
        command = ["kbs", *arguments]
        if shown:
            print(colour("2", f"   $ {' '.join(self._short(command))}"), flush=True)
        extra = ["--json"] if json else []
        result = run_kbs([*arguments, *extra], self)
        if result.code != expect:
            raise DemoError(
                f"{' '.join(command)}: exit {result.code}, expected {expect}\n"
                f"{result.out}{result.err}"
            )
        return result

    def _short(self, command: Sequence[str]) -> list[str]:
        return [part.replace(f"{self.folder}/", "") for part in command]


def run_kbs(arguments: Sequence[str], stage: Stage) -> Result:
    """Run the command line of this checkout."""
    environment = dict(os.environ)
    environment.update(
        KBS_SERVER=stage.server, KBS_PROFILE=str(stage.profile), NO_COLOR="1"
    )
    # tpm2-tss logs to standard error by itself; what it says is in our errors too.
    environment["TSS2_LOG"] = "all+none"
    done = subprocess.run(
        [sys.executable, "-m", "kbs", *arguments],
        capture_output=True,
        text=True,
        env=environment,
        timeout=120,
        check=False,
    )
    return Result(done.returncode, done.stdout, done.stderr)
