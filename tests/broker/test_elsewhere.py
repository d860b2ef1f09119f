"""A device that another tenant alone trusts, beside one that this tenant trusts."""

from __future__ import annotations

import pytest

from kbs.channel.binding import device_binding, device_digest, primary_binding
from kbs.evidence.registry import VERIFIERS
from tests.fakes.amd import FakeAmd
from tests.fakes.answers import see
from tests.fakes.snp_world import MEASURED, policy
from tests.fakes.tpm import FakeTpm
from tests.fakes.world import Request, World, request_of

KEY = "acme/hosts/model"
HOSTS = "{claim: vtpm.ak.group, equals: hosts}"


def asking(world: World, amd: FakeAmd, key: str, *tpms: FakeTpm) -> Request:
    """A request with a report that covers these TPMs."""
    data, private = world.runtime_data([key])
    items = [one.quote_item(device_binding("vtpm", data)[:32]) for one in tpms]
    listed = [
        device_digest("vtpm", VERIFIERS["vtpm"].parse(one, 1).core) for one in items
    ]
    primary = primary_binding("snp", data, listed)
    return request_of(data, private, primary, [amd.bundle_item(primary), *items])


@pytest.mark.parametrize("condition", [HOSTS, f"{{every: vtpm, all: [{HOSTS}]}}"])
def test_no_rule_passes_over_it(snp_world: World, amd: FakeAmd, condition: str) -> None:
    """That others count elsewhere makes one vTPM not the only one, nor ours all."""
    ours, theirs = FakeTpm(), FakeTpm()
    snp_world.enrol(ours)
    snp_world.enrol(theirs, tenant="beta")
    snp_world.activate_policy(policy("hosts", MEASURED, condition), name="hosts")
    snp_world.create_key(KEY, b"value")
    assert see(snp_world, asking(snp_world, amd, KEY, ours, theirs)).status == 403
    assert see(snp_world, asking(snp_world, amd, KEY, theirs, ours)).status == 403
    assert see(snp_world, asking(snp_world, amd, KEY, theirs)).status == 403
    assert see(snp_world, asking(snp_world, amd, KEY, ours)).status == 200
