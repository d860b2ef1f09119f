"""One target under atheris: `python -m tests.fuzz.worker TARGET CORPUS [option…]`.

Options are libFuzzer's. A finding ends the process with a traceback and leaves the
input where `-artifact_prefix=` says.
"""

from __future__ import annotations

import sys
from random import Random
from typing import Any

import atheris

with atheris.instrument_imports(include=["kbs"]):
    from tests.fuzz.mutations import mutated
    from tests.fuzz.registry import TARGETS

OURS = 0.5
"""The part of the changes that are ours and not libFuzzer's."""


def main() -> None:
    """Fuzz until libFuzzer's options say that it is enough."""
    target = TARGETS[sys.argv[1]]
    seeds = [data for data in target.corpus(None) if data]

    def run(data: bytes) -> None:
        target.check(data)

    def change(data: bytes, max_size: int, seed: int) -> Any:
        chance = Random(seed)  # noqa: S311 - libFuzzer's seed, to be repeated
        if chance.random() < OURS:
            return mutated(chance, data, target, chance.choice(seeds))[:max_size]
        return atheris.Mutate(data, max_size)

    atheris.Setup([sys.argv[0], *sys.argv[2:]], run, custom_mutator=change)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
