"""Stands in for `docker compose` where no engine is: what services start, on this host.

Reads the compose file and the Dockerfiles, and starts the same commands with the same
environment from this checkout. Paths of mounts become folders below KBS_STAND_IN, and
addresses become ports of loopback (KBS_STAND_IN_PORTS: a JSON object). It isolates
nothing: users, capabilities, networks and read-only roots are not its business.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.fakes.dockerfiles import parse_dockerfile

_WAIT_SECONDS = 30.0


class Service:
    """One service of a compose file."""

    def __init__(self, file: Path, name: str) -> None:
        """Read what it mounts and how it is addressed."""
        document = yaml.safe_load(file.read_text("utf-8"))
        self._folder = file.resolve().parent
        self._place = Path(os.environ["KBS_STAND_IN"])
        self.name = name
        self.declared: dict[str, Any] = document["services"][name]
        self._mapped = {
            target: str(source)
            for target, source in map(self._mount, self.declared.get("volumes", []))
        }
        for mount in self.declared["tmpfs"]:
            target = mount.partition(":")[0]
            self._mapped[target] = str(self._made(f"tmpfs{target}"))
        for address, port in json.loads(os.environ["KBS_STAND_IN_PORTS"]).items():
            self._mapped[address] = f"127.0.0.1{port}"

    def _mount(self, volume: str | dict[str, Any]) -> tuple[str, Path]:
        if isinstance(volume, dict):
            return volume["target"], self._folder / "profile"
        source, target = volume.split(":")[:2]
        if source.startswith("."):
            return target, self._folder / source
        return target, self._made(f"volumes/{source}")

    def _made(self, name: str) -> Path:
        folder = self._place / name
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder

    def here(self, text: str) -> str:
        """Return what a path or an address of the container is on this host."""
        longest_first = sorted(self._mapped, key=len, reverse=True)
        found = "|".join(map(re.escape, longest_first))
        return re.sub(found, lambda match: self._mapped[match.group()], text)

    def _stage(self) -> Any:
        build = self.declared["build"]
        stages = parse_dockerfile(self._folder / build["context"] / build["dockerfile"])
        target = build.get("target")
        return next((one for one in stages if one.name == target), stages[-1])

    def environment(self) -> dict[str, str]:
        """Return the environment: ours, the image's, the service's."""
        image = dict(
            word.partition("=")[::2] for word in self._stage().only("ENV").value.split()
        )
        image.pop("PATH")
        given = {**image, **self.declared.get("environment", {})}
        mapped = {name: self.here(value) for name, value in given.items()}
        return {**os.environ, "TSS2_LOG": "all+none", "HOME": "/nonexistent", **mapped}

    def command(self, words: Sequence[str]) -> list[str]:
        """Return the command line on this host."""
        entry = self.declared.get("entrypoint") or (
            self._stage().only("ENTRYPOINT").words()
        )
        if entry == ["software-tpm"]:
            script = self._folder / "end-to-end" / "software-tpm.sh"
            state, port = self.here("/var/lib/software-tpm"), self.here(":2321")
            return ["sh", str(script), state, *port.split(":")]
        line = [*entry, *(words or self.declared.get("command", []))]
        return [sys.executable, "-m", *map(self.here, line)]

    def run(self, words: Sequence[str]) -> int:
        """Run it to its end."""
        for other in self.declared.get("depends_on", []):
            Service(self._folder / "compose.yaml", other).up()
        done = subprocess.run(
            self.command(words), env=self.environment(), check=False, timeout=120
        )
        return done.returncode

    def up(self) -> None:
        """Start it unless it runs."""
        pid = self._place / f"{self.name}.pid"
        if pid.exists():
            return
        with (self._place / f"{self.name}.log").open("wb") as log:
            process = subprocess.Popen(
                self.command([]),
                env=None if self.name == "software-tpm" else self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        pid.write_text(str(process.pid))

    def wait(self) -> int:
        """Ask for its health, as the image does, until it is well."""
        *_, check = self._stage().only("HEALTHCHECK").words()
        line = check.partition(" ||")[0].split()
        deadline = time.monotonic() + _WAIT_SECONDS
        while time.monotonic() < deadline:
            done = subprocess.run(
                [sys.executable, "-m", *line],
                env=self.environment(),
                capture_output=True,
                check=False,
            )
            if done.returncode == 0:
                return 0
            time.sleep(0.2)
        return 1


def main(words: list[str]) -> int:
    """Do what `docker compose -f FILE run|up|exec …` would."""
    file, verb = Path(words[words.index("-f") + 1]), words[words.index("-f") + 2]
    rest = words[words.index(verb) + 1 :]
    options = []
    while rest[0].startswith("-"):
        options.append(rest.pop(0))
    service = Service(file, rest.pop(0))
    if verb == "run":
        return service.run(rest)
    if verb == "up":
        service.up()
        return service.wait() if "--wait" in options else 0
    return subprocess.run(list(map(service.here, rest)), check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
