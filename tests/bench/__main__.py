"""What the broker costs: `make bench`.

Every figure is also given in P-256 verifications, measured in the same run. Servers
listen on loopback, state lies in a fresh folder that is gone in the end.
"""

from __future__ import annotations

import argparse
import compileall
import logging
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import kbs
from kbs.serving import spare_records
from tests.bench import families, floor, frame, inprocess, load, sealing, unit
from tests.bench.brokers import fake_amd, made
from tests.bench.exchanges import Kind
from tests.bench.tables import Section, as_json, as_text, progress


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    load: load.Plan
    in_process: int
    of_family: int
    floor_rounds: int
    rsa_bits: int
    model_mebibytes: tuple[int, int]
    model_rounds: int


FULL = Size(
    load=load.Plan(exchanges=(80, 200, 320), starts=3),
    in_process=120,
    of_family=100,
    floor_rounds=15,
    rsa_bits=4096,
    model_mebibytes=(64, 384),
    model_rounds=3,
)
QUICK = Size(
    load=load.Plan(exchanges=(2, 8, 32), starts=1),
    in_process=3,
    of_family=3,
    floor_rounds=2,
    rsa_bits=2048,
    model_mebibytes=(4, 16),
    model_rounds=1,
)


def measure(folder: Path, size: Size) -> list[Section]:
    """Measure everything, the quietest first."""
    progress("the primitives")
    with unit.one_core():
        floors = floor.costs(size.floor_rounds)
        frames = frame.costs(folder, size.floor_rounds)

    def least(kind: Kind) -> tuple[float, float]:
        crypto = floor.floor_of(kind, floors)
        return crypto, crypto + frame.frame_of(kind, frames)

    amd = fake_amd(size.rsa_bits)
    with unit.one_core():
        evidence = families.section(amd, floors, size.of_family)
    progress("sealing and opening a model")
    model = sealing.section(folder, size.model_mebibytes, size.model_rounds)
    with ExitStack() as stack:
        benches = {
            kind: stack.enter_context(made(folder / kind, kind, amd))
            for kind in ("sample", "snp")
        }
        progress("CPU of releases in this process")
        with unit.one_core():
            cpu = inprocess.section(benches, least, size.in_process)
        measured = [load.measure(bench, size.load) for bench in benches.values()]
    floor_section = floor.section({**floors, **frames})
    return [floor_section, evidence, cpu, *load.sections(measured), model]


def compile_modules() -> None:
    """Have the bytecode that an installed package has.

    A tree has none where PYTHONDONTWRITEBYTECODE is set, and every start compiles.
    """
    for package in (Path(kbs.__file__).parent, Path(__file__).parents[1]):
        compileall.compile_dir(package, quiet=1)


def log_into(path: Path) -> None:
    """Write a line for each decision in this process, as a server does."""
    log = logging.getLogger("kbs")
    log.addHandler(logging.FileHandler(path))
    log.setLevel(logging.INFO)
    log.propagate = False
    spare_records()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON document")
    parser.add_argument(
        "--quick", action="store_true", help="every row, from too few runs to mean much"
    )
    given = parser.parse_args()
    compile_modules()
    with tempfile.TemporaryDirectory(prefix="kbs-bench-") as folder:
        log_into(Path(folder) / "log")
        sections = measure(Path(folder), QUICK if given.quick else FULL)
    print(as_json(sections) if given.json else as_text(sections))


if __name__ == "__main__":
    main()
