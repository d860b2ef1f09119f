"""A broker that trusts a fake AMD, and the requests of its confidential guests."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from kbs.broker.ports import Database
from tests.fakes.amd import FakeAmd
from tests.fakes.tpm import FakeTpm
from tests.fakes.world import Request, World, trusting

Item = dict[str, object]

KEY = "acme/snp/model"
BOTH = "acme/both/model"
TOLERANT = "acme/offline/model"

MEASURED = f'{{claim: snp.measurement, equals: "{bytes(range(48)).hex()}"}}'


def policy(name: str, *leaves: str, more: str = "") -> str:
    """A release policy with one rule, for all keys of `acme/<name>/`."""
    rule = "".join(f"      - {leaf}\n" for leaf in ("{safe: true}", *leaves))
    return (
        f'kind: ReleasePolicy\nname: {name}\nreleases: ["acme/{name}/*"]\n{more}'
        f"allow:\n  - rule: only\n    all:\n{rule}"
    )


POLICIES: Mapping[str, str] = {
    "snp": policy("snp", MEASURED),
    "both": policy("both", MEASURED, "{claim: vtpm.ak.group, equals: hosts}"),
    "offline": policy(
        "offline", MEASURED, more="revocation: {tolerate_missing: true}\n"
    ),
}


def create(folder: Path, database: Database, amd: FakeAmd) -> World:
    """A broker that trusts this AMD, with a key under each policy."""
    world = World.create(folder, database=database, verifiers=trusting(amd.pins()))
    for name, source in POLICIES.items():
        world.activate_policy(source, name=name)
        world.create_key(f"acme/{name}/model", name.encode())
    return world


def report(world: World, amd: FakeAmd, key: str = KEY, **changes: Any) -> Request:
    """A request whose one item is a report."""
    make = partial(made_report, amd, changes)
    return world.request_by("snp", make, [key])


def made_report(amd: FakeAmd, changes: Mapping[str, Any], primary: bytes) -> Item:
    """The item itself, bound to `primary`."""
    return amd.bundle_item(primary, **changes)


def both(world: World, amd: FakeAmd, tpm: FakeTpm, **changes: Any) -> Request:
    """A request with a report and a quote of the guest's vTPM."""
    return world.composite("snp", partial(made_report, amd, changes), tpm, [BOTH])
