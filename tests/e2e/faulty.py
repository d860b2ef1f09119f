"""`kbs serve` that has a bug on command: at the step that a file names, it raises.

The server's own code in another composition; what it logs is what it would log.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from functools import partial
from pathlib import Path

from flask import Flask

from kbs.app import create_app_with, open_parts
from kbs.serving import Serving, run
from kbs.settings import Settings, parse_listen


def create(order: Path, settings: Settings) -> Flask:
    """Compose a worker's application with the bug."""

    def steps(step: str) -> None:
        if order.is_file() and order.read_text("ascii") == step:
            raise ValueError(f"a bug at {step}")

    parts = replace(open_parts(settings), steps=steps)
    return create_app_with(parts, settings, serving=True)


def tell(serving: Serving) -> None:
    print(json.dumps(serving.to_json()), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="tests.e2e.faulty")
    for name in ("--data", "--trust", "--profile", "--order"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--listen", type=parse_listen, required=True)
    parser.add_argument("--json", action="store_true", help="as it always is")
    given = parser.parse_args()
    settings = Settings(
        data=given.data,
        trust=given.trust,
        listen=given.listen,
        development=True,
        rate_limit=0,
    )
    run(
        settings,
        profile=given.profile,
        ready=tell,
        create=partial(create, given.order),
    )


if __name__ == "__main__":
    main()
