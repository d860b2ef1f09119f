"""Brokers on disk for one kind of evidence each, ready for guests.

`sample` is a broker in development mode, `snp` one in production that trusts a fake
AMD. Each is made as `kbs init` makes it and administered in this process; it is then
used here, or served by a process of its own from the same folders.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    load_pem_private_key,
)

from kbs.app import check_start, create_app_with, open_parts
from kbs.core.encode import b64
from kbs.initialising import ADMIN_KEY_NAME, initialise
from kbs.settings import Settings
from tests.fakes.amd import FakeAmd
from tests.fakes.served import Folders
from tests.fakes.snp_world import MEASURED, policy
from tests.fakes.world import FakeClock, World, trusting

SAMPLE_PATH = "acme/sample/model"
SNP_PATH = "acme/snp/model"
KEY = bytes(range(32))

_PATHS = {"sample": SAMPLE_PATH, "snp": SNP_PATH}
_MEASURED = {"sample": "{claim: sample.svn, equals: 1}", "snp": MEASURED}


@dataclass(frozen=True)
class Bench:
    """One broker: its folders, and itself in this process."""

    evidence: str
    folders: Folders
    world: World
    amd: FakeAmd

    @property
    def program(self) -> tuple[str, ...]:
        """What serves it: `kbs serve`, or the same with the fake AMD's roots."""
        if self.evidence == "sample":
            return ("-m", "kbs", "serve")
        return ("-m", "tests.bench.server", "--pins", json.dumps(self.amd.pins()))

    @property
    def options(self) -> tuple[str, ...]:
        """What `kbs serve` is told beside the folders."""
        always = ("--rate-limit", "0")
        return (*always, "--dev") if self.evidence == "sample" else always


def fake_amd(bits: int) -> FakeAmd:
    """An AMD of today; the real one's authorities have RSA keys of 4096 bits."""
    return FakeAmd(now=datetime.now(UTC).replace(microsecond=0), bits=bits)


@contextmanager
def made(folder: Path, evidence: str, amd: FakeAmd) -> Iterator[Bench]:
    """Make a broker with a policy and a key for this kind of evidence."""
    folders = Folders(folder)
    settings = Settings(
        data=folders.data,
        trust=folders.trust,
        development=evidence == "sample",
        rate_limit=0,
    )
    initialise(settings, profile=folders.profile)
    parts = replace(open_parts(settings), verifiers=trusting(amd.pins()))
    try:
        check_start(parts, settings)
        admin = load_pem_private_key(
            (folders.profile / ADMIN_KEY_NAME).read_bytes(), None
        )
        assert isinstance(admin, Ed25519PrivateKey)
        world = World(
            folder,
            create_app_with(parts, settings),
            parts,
            admin,
            FakeClock(datetime.now(UTC)),
            settings,
        )
        world.activate_policy(policy(evidence, _MEASURED[evidence]), name=evidence)
        world.create_key(_PATHS[evidence], KEY)
        if evidence == "snp":
            collateral = amd.crl().public_bytes(Encoding.DER)
            world.must("POST", "/admin/v1/collateral", {"items": [b64(collateral)]})
        yield Bench(evidence, folders, world, amd)
    finally:
        parts.close()
