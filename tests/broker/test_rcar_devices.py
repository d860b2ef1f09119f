"""The text of `additional_evidence`: bound byte for byte, read by one spelling only."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from kbs.wire.rcar import MAX_DEVICES
from tests.broker.test_rcar import BOTH, guest, prepared
from tests.fakes.answers import releases
from tests.fakes.databases import Place
from tests.fakes.rcar_client import RcarClient, sample_device
from tests.fakes.world import World

KEY = "devices/test/key"


@pytest.fixture
def dev(tmp_path: Path, sqlite_place: Place) -> Iterator[World]:
    """A broker in development mode, with a key for a sample and its device."""
    with closing(sqlite_place.connect()) as opened:
        world = prepared(World.create(tmp_path, database=opened, development=True))
        world.activate_policy(BOTH, name="both", tenant="devices")
        world.create_key(KEY, b"for two")
        yield world


def attested_with(
    client: RcarClient, spell: Callable[[dict[str, Any]], str], *, bound: bool
) -> Any:
    """Attest with devices in a spelling; whether the primary is bound to that one."""
    client.auth()
    message: Any = client.message()
    given = message["tee-evidence"]["additional_evidence"]
    text = spell(json.loads(given))
    evidence = message["tee-evidence"]
    evidence["additional_evidence"] = text
    if bound:
        evidence["primary_evidence"] = client.bound_to(text)
    return client.attest(message)


@pytest.mark.parametrize(
    "spell",
    [
        lambda one: json.dumps(one, separators=(",", ":")),
        lambda one: json.dumps(one, indent=2),
        lambda one: json.dumps(one) + "\n",
        lambda one: " " + json.dumps(one),
        lambda one: json.dumps(one).replace("sampledevice", "s\\u0061mpledevice"),
        lambda one: json.dumps({name: one[name] for name in reversed(one)}, indent=0),
    ],
)
def test_each_spelling_is_another_text(dev: World, spell: Any) -> None:
    """Equal as JSON, and bound all the same: what came is what is hashed."""
    client = guest(dev, devices={"sampledevice": sample_device})
    refused = attested_with(client, spell, bound=False)
    assert refused.status == 401
    assert "binding.primary" in refused.json["detail"]
    assert attested_with(client, spell, bound=True).status == 200
    assert client.get(KEY).status == 200


@pytest.mark.parametrize(
    "spell",
    [
        lambda one: "",
        lambda one: "{}",
        lambda one: '{"sampledevice":{"report_data":"","svn":"2"}}',
    ],
)
def test_devices_that_were_taken_out_are_missed(dev: World, spell: Any) -> None:
    client = guest(dev, devices={"sampledevice": sample_device})
    refused = attested_with(client, spell, bound=False)
    assert refused.status == 401
    assert releases(dev) == []


def test_no_devices_in_other_words_get_nothing_that_needs_one(dev: World) -> None:
    client = guest(dev, devices={"sampledevice": sample_device})
    assert attested_with(client, lambda _: "{}", bound=True).status == 200
    assert client.get(KEY).status == 401


@pytest.mark.parametrize(
    "spell",
    [
        lambda one: twice(one, "sampledevice"),
        lambda one: json.dumps(one)[:-1] + ',"sampledevice":{}}',
        lambda one: json.dumps(one) + json.dumps(one),
        lambda one: json.dumps([one]),
        lambda one: json.dumps(json.dumps(one)),
        lambda one: json.dumps({**one, "nvidia": {"device_evidence_list": []}}),
        lambda one: json.dumps({**one, "nobody": {}}),
        lambda one: json.dumps({**one, "sampledevice ": one["sampledevice"]}),
        lambda one: json.dumps({"sampledevice": [one["sampledevice"]]}),
        lambda one: json.dumps({**one, "sample": sample_of(one)}),
        lambda one: "\ufeff" + json.dumps(one),
        lambda one: "null",
        lambda one: json.dumps({f"x{n}": {} for n in range(MAX_DEVICES + 1)}),
    ],
)
def test_other_texts_are_refused_although_the_primary_covers_them(
    dev: World, spell: Any
) -> None:
    client = guest(dev, devices={"sampledevice": sample_device})
    refused = attested_with(client, spell, bound=True)
    assert refused.status == 401, refused.body
    assert releases(dev) == []


def twice(one: dict[str, Any], name: str) -> str:
    member = f"{json.dumps(name)}:{json.dumps(one[name])}"
    return "{" + member + "," + member + "}"


def sample_of(one: dict[str, Any]) -> dict[str, Any]:
    """A second primary, bound as a device."""
    return {**one["sampledevice"], "svn": "1"}


def test_evidence_of_a_device_is_none_of_a_primary(dev: World) -> None:
    """Each has a digest of its own, so that neither passes for the other."""
    client = guest(dev, devices={"sampledevice": sample_device})
    client.auth()
    message: Any = client.message()
    evidence = message["tee-evidence"]
    device = json.loads(evidence["additional_evidence"])["sampledevice"]
    evidence["primary_evidence"] = {**device, "svn": "1"}
    assert "binding.primary" in client.attest(message).json["detail"]
    client.auth()
    message = client.message()
    primary = message["tee-evidence"]["primary_evidence"]
    text = json.dumps({"sampledevice": {**primary, "svn": "2"}})
    message["tee-evidence"]["additional_evidence"] = text
    message["tee-evidence"]["primary_evidence"] = client.bound_to(text)
    assert "binding.devices" in client.attest(message).json["detail"]
