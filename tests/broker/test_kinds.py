"""Releases on SNP reports, alone and with a vTPM beside, and on samples."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from kbs.channel.binding import device_binding, device_digest, primary_binding
from kbs.core.encode import b64
from kbs.evidence.registry import VERIFIERS
from kbs.governance.statement import Action, Kind
from tests.fakes.amd import FakeAmd
from tests.fakes.answers import Document, is_spent, refusals, releases, see
from tests.fakes.databases import Place
from tests.fakes.snp_world import BOTH, KEY, MEASURED, both, policy, report
from tests.fakes.world import Request, World, request_of

SAMPLE = "acme/sample/model"


@pytest.mark.parametrize("vlek", [False, True])
@pytest.mark.parametrize("version", [2, 3, 5])
def test_a_report_alone(
    snp_world: World, amd: FakeAmd, version: int, *, vlek: bool
) -> None:
    key_name = "VLEK" if vlek else "VCEK"
    source = policy("snp", MEASURED, f"{{claim: snp.signing_key, equals: {key_name}}}")
    snp_world.activate_policy(source, name="snp")
    request = report(snp_world, amd, version=version, vlek=vlek)
    assert snp_world.released(request) == {f"{KEY}@1": b"snp"}
    (entry,) = releases(snp_world)
    assert entry["primary"] == "snp"
    # What names the chip is not in the log.
    assert amd.chip_id.hex() not in json.dumps(entry)


def test_a_chip_is_named_by_its_pseudonym_in_the_reasons(
    snp_world: World, amd: FakeAmd
) -> None:
    source = policy("snp", MEASURED, f'{{claim: snp.chip_id, equals: "{"ab" * 64}"}}')
    snp_world.activate_policy(source, name="snp")
    seen = see(snp_world, report(snp_world, amd))
    assert seen.denied == {KEY: ["snp.chip_id"]}
    entry = seen.entry(snp_world)
    (reason,) = entry["keys"][0]["reasons"]
    assert reason["got"]
    assert amd.chip_id.hex() not in json.dumps(entry)


def test_a_chip_is_named_by_its_pseudonym_in_samples(
    snp_world: World, amd: FakeAmd
) -> None:
    request = report(snp_world, amd, chip_id=b"\x99" * 64)
    other = report(snp_world, amd).runtime_data
    moved = request_of(
        other, request.private_key, request.primary, json.loads(request.body)["items"]
    )
    assert see(snp_world, moved).status == 403
    (entry,) = refusals(snp_world)
    assert entry["reason"] == "snp.chip_id"
    for chip in (amd.chip_id, b"\x99" * 64):
        assert chip.hex() not in json.dumps(entry)


@pytest.mark.parametrize(
    ("changes", "check"),
    [
        ({"chip_id": b"\x99" * 64}, "snp.chip_id"),
        ({"reported_tcb": bytes(8)}, "snp.tcb"),
    ],
)
def test_an_authentic_report_that_fails_a_check(
    snp_world: World, amd: FakeAmd, changes: Mapping[str, Any], check: str
) -> None:
    request = report(snp_world, amd, **changes)
    seen = see(snp_world, request)
    assert (seen.status, seen.code) == (403, "evidence.refused")
    assert check in seen.checks
    (failed,) = [
        one for one in seen.entry(snp_world)["checks"]["failed"] if one["id"] == check
    ]
    assert failed["got"] != failed["expected"]
    assert is_spent(snp_world, request)


def test_debug_is_never_safe(snp_world: World, amd: FakeAmd) -> None:
    seen = see(snp_world, report(snp_world, amd, policy=0xB0000))
    assert seen.denied == {KEY: ["snp.policy.debug_allowed"]}


def test_another_vendor_is_nobody(snp_world: World) -> None:
    other = FakeAmd(realm="another")
    seen = see(snp_world, report(snp_world, other))
    assert seen.status == 403
    assert "snp.chain" in seen.checks
    assert releases(snp_world) == []


@pytest.mark.parametrize(
    ("target", "value"),
    [
        ("chip", lambda amd: amd.chip_id.hex()),
        ("measurement", lambda _: bytes(range(48)).hex()),
    ],
)
def test_denied_hardware_and_images(
    snp_world: World, amd: FakeAmd, target: str, value: Any
) -> None:
    content = {"target": target, "value": value(amd), "reason": "CVE"}
    snp_world.govern(Action.DENY, Kind.DENY, "*", "stop", json.dumps(content).encode())
    seen = see(snp_world, report(snp_world, amd))
    assert seen.denied == {KEY: [f"deny.{target}"]}


# -- a report with a vTPM beside -------------------------------------------------------


def test_a_report_with_a_quote_beside(snp_world: World, amd: FakeAmd) -> None:
    tpm = snp_world.booted_tpm()
    snp_world.enrol(tpm)
    request = both(snp_world, amd, tpm)
    assert snp_world.released(request) == {f"{BOTH}@1": b"both"}
    assert releases(snp_world)[0]["primary"] == "snp"


def test_a_device_made_elsewhere_for_the_same_challenge(
    snp_world: World, amd: FakeAmd
) -> None:
    mine, elsewhere = snp_world.booted_tpm(), snp_world.booted_tpm()
    for tpm in (mine, elsewhere):
        snp_world.enrol(tpm)
    request = both(snp_world, amd, mine)
    items = json.loads(request.body)["items"]
    bound = device_binding("vtpm", request.runtime_data)[:32]
    swapped = request_of(
        request.runtime_data,
        request.private_key,
        request.primary,
        [items[0], elsewhere.quote_item(bound)],
    )
    seen = see(snp_world, swapped)
    assert seen.status == 403
    assert set(seen.checks) == {"binding.primary", "binding.devices"}
    assert releases(snp_world) == []


def test_a_device_bound_as_a_primary(snp_world: World, amd: FakeAmd) -> None:
    tpm = snp_world.booted_tpm()
    snp_world.enrol(tpm)
    data, private = snp_world.runtime_data([BOTH])
    device = tpm.quote_item(primary_binding("vtpm", data, [])[:32])
    request = _joined(data, private, amd, [device])
    seen = see(snp_world, request)
    assert seen.checks == ["binding.devices"]
    # The primary holds, so that the refusal has an entry.
    assert seen.entry(snp_world)["kind"] == "release.denied"


def _joined(data: Any, private: Any, amd: FakeAmd, devices: list[Document]) -> Request:
    digests = [
        device_digest(one["kind"], VERIFIERS[one["kind"]].parse(one, 1).core)
        for one in devices
    ]
    primary = primary_binding("snp", data, digests)
    return request_of(data, private, primary, [amd.bundle_item(primary), *devices])


def test_a_surplus_item_is_welcome_while_it_holds(
    snp_world: World, amd: FakeAmd
) -> None:
    tpm = snp_world.booted_tpm()
    snp_world.enrol(tpm)
    data, private = snp_world.runtime_data([KEY])
    device = tpm.quote_item(device_binding("vtpm", data)[:32])
    assert snp_world.send(_joined(data, private, amd, [device])).status_code == 200


def test_a_surplus_item_that_fails_refuses_everything(
    snp_world: World, amd: FakeAmd
) -> None:
    data, private = snp_world.runtime_data([KEY])
    stranger = snp_world.booted_tpm()
    device = stranger.quote_item(device_binding("vtpm", data)[:32])
    request = _joined(data, private, amd, [device])
    seen = see(snp_world, request)
    assert (seen.status, seen.code) == (403, "evidence.refused")
    assert "vtpm.ak.trust" in seen.checks
    assert seen.entry(snp_world)["keys"][0]["decision"] == "denied"
    assert is_spent(snp_world, request)


def test_two_reports_are_one_too_many(snp_world: World, amd: FakeAmd) -> None:
    request = report(snp_world, amd)
    other = amd.bundle_item(request.primary, measurement=bytes(48))
    items = [*json.loads(request.body)["items"], other]
    seen = see(
        snp_world,
        request_of(request.runtime_data, request.private_key, request.primary, items),
    )
    assert seen.status == 403
    assert {"bundle.primary", "binding.duplicate"} <= set(seen.checks)


# -- samples --------------------------------------------------------------------------


@pytest.fixture
def development(tmp_path: Path, sqlite_place: Place) -> Iterator[World]:
    """A broker in development mode, with a key for samples."""
    with closing(sqlite_place.connect()) as opened:
        world = World.create(tmp_path, database=opened, development=True)
        source = policy("sample", "{claim: sample.measurement, equals: abc}")
        world.activate_policy(source, name="sample")
        world.create_key(SAMPLE, b"a toy")
        yield world


def _sample(world: World, measurement: str = "abc") -> Request:
    return world.request_by(
        "sample",
        lambda primary: {
            "kind": "sample",
            "report_data": b64(primary),
            "claims": {"measurement": measurement},
        },
        [SAMPLE],
    )


def test_samples_count_in_development_and_every_entry_says_so(
    development: World,
) -> None:
    assert development.released(_sample(development)) == {f"{SAMPLE}@1": b"a toy"}
    assert see(development, _sample(development, "xyz")).denied == {
        SAMPLE: ["sample.measurement"]
    }
    assert [entry["development"] for entry in releases(development)] == [True, True]


def test_samples_never_count_in_production(development: World) -> None:
    settings = dataclasses.replace(development.settings, development=False)
    production = dataclasses.replace(development, settings=settings).restarted()
    seen = see(production, _sample(production))
    assert seen.status == 403
    assert seen.checks == ["sample.development"]
    assert releases(production) == []
