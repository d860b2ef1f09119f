"""Dockerfiles as data: stages and instructions, as far as ours use the language."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path

_FROM = re.compile(r"(\S+)(?: AS (\S+))?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction, its continuation lines joined."""

    name: str
    value: str

    def words(self) -> list[str]:
        """Return the exec form's words.

        Raises:
            ValueError: it is in shell form.
        """
        start = self.value.index("[")
        words = json.loads(self.value[start:])
        if not all(isinstance(word, str) for word in words):
            raise ValueError(self.value)
        return list(words)


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage: what it starts from, its name if it has one, its instructions."""

    base: str
    name: str | None
    instructions: list[Instruction] = field(default_factory=list)

    def all(self, name: str) -> list[Instruction]:
        """Return every instruction of one name."""
        return [one for one in self.instructions if one.name == name]

    def only(self, name: str) -> Instruction:
        """Return the one instruction of that name.

        Raises:
            ValueError: there is none, or there are several.
        """
        (found,) = self.all(name)
        return found


def parse_dockerfile(path: Path) -> list[Stage]:
    """Return the stages of a file.

    Raises:
        ValueError: an instruction stands before the first stage.
    """
    stages: list[Stage] = []
    for line in _lines(path.read_text("utf-8")):
        name, _, value = line.partition(" ")
        instruction = Instruction(name.upper(), value.strip())
        if instruction.name == "FROM":
            match = _FROM.fullmatch(instruction.value)
            if match is None:
                raise ValueError(line)
            stages.append(Stage(match.group(1), match.group(2)))
        elif stages:
            stages[-1].instructions.append(instruction)
        else:
            raise ValueError(line)
    return stages


def _lines(text: str) -> list[str]:
    kept = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(kept))
    return [" ".join(line.split()) for line in joined.splitlines() if line.strip()]
