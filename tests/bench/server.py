"""`kbs serve` with other roots for SNP: the server's own code, another composition.

It exists because a broker has no setting that makes it trust a vendor of one's own.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from flask import Flask

from kbs.app import create_app_with, open_parts
from kbs.serving import Serving, run
from kbs.settings import Settings, parse_listen
from tests.fakes.world import trusting


def create(pins: Mapping[str, str], settings: Settings) -> Flask:
    """Compose a worker's application with these roots."""
    parts = replace(open_parts(settings), verifiers=trusting(pins))
    return create_app_with(parts, settings, serving=True)


def tell(serving: Serving) -> None:
    print(json.dumps(serving.to_json()), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="tests.bench.server")
    parser.add_argument("--pins", type=json.loads, required=True)
    for name in ("--data", "--trust", "--profile"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--listen", type=parse_listen, required=True)
    parser.add_argument("--rate-limit", type=int, required=True)
    parser.add_argument("--pin-workers", action="store_true")
    parser.add_argument("--json", action="store_true", help="as it always is")
    given = parser.parse_args()
    settings = Settings(
        data=given.data,
        trust=given.trust,
        listen=given.listen,
        rate_limit=given.rate_limit,
        pin_workers=given.pin_workers,
    )
    run(
        settings,
        profile=given.profile,
        ready=tell,
        create=partial(create, given.pins),
    )


if __name__ == "__main__":
    main()
