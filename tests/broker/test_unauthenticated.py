"""Evidence that does not authenticate: 403, counted, and the challenge still good."""

from __future__ import annotations

import base64
import dataclasses
import json
from collections.abc import Callable
from typing import Any

import pytest

from kbs.channel.binding import primary_binding
from kbs.channel.recipient import generate_recipient_key, recipient_of
from kbs.core.encode import b64
from tests.fakes.answers import is_spent, releases, see
from tests.fakes.tpm import FakeTpm
from tests.fakes.world import Request, World, request_of

CHAT = "acme/model/chat"

Make = Callable[[World, FakeTpm], Request]


def _items(request: Request) -> list[dict[str, Any]]:
    items = json.loads(request.body)["items"]
    assert isinstance(items, list)
    return items


def _with_items(request: Request, items: list[dict[str, Any]]) -> Request:
    document = json.loads(request.body) | {"items": items}
    return dataclasses.replace(request, body=json.dumps(document).encode())


def _forged_signature(world: World, tpm: FakeTpm) -> Request:
    request = world.request(tpm)
    (item,) = _items(request)
    quote = item["quote"]
    signature = bytearray(base64.b64decode(quote["signature"]))
    signature[-1] ^= 1
    quote["signature"] = b64(bytes(signature))
    return _with_items(request, [item])


def _unknown_key(world: World, tpm: FakeTpm) -> Request:
    return world.request(world.booted_tpm())


def _other_recipient(world: World, tpm: FakeTpm) -> Request:
    request = world.request(tpm)
    thief = generate_recipient_key(request.runtime_data.request.suite)
    data = dataclasses.replace(request.runtime_data, recipient=recipient_of(thief))
    return request_of(data, thief, request.primary, _items(request))


def _other_keys(world: World, tpm: FakeTpm) -> Request:
    request = world.request(tpm)
    document = json.loads(request.body)
    document["runtime_data"]["request"]["keys"] = [CHAT, "acme/model/more"]
    return dataclasses.replace(request, body=json.dumps(document).encode())


def _padded_binding(world: World, tpm: FakeTpm) -> Request:
    data, private = world.runtime_data()
    primary = primary_binding("vtpm", data, [])
    item = tpm.quote_item(primary[:33])
    return request_of(data, private, primary, [item])


def _sample_alone(world: World, tpm: FakeTpm) -> Request:
    return world.request_by(
        "sample", lambda primary: {"kind": "sample", "report_data": b64(primary)}
    )


def _two_primaries(world: World, tpm: FakeTpm) -> Request:
    request = world.request(tpm)
    twin = world.booted_tpm()
    world.enrol(twin)
    return _with_items(
        request, [*_items(request), twin.quote_item(request.primary[:32])]
    )


def _the_same_twice(world: World, tpm: FakeTpm) -> Request:
    request = world.request(tpm)
    return _with_items(request, _items(request) * 2)


def _unknown_kind(world: World, tpm: FakeTpm) -> Request:
    request = world.request(tpm)
    return _with_items(request, [{"kind": "csv", "quote": "AAAA"}])


def _truncated(world: World, tpm: FakeTpm) -> Request:
    request = world.request(tpm)
    (item,) = _items(request)
    item["quote"]["message"] = item["quote"]["message"][:-4]
    return _with_items(request, [item])


@pytest.mark.parametrize(
    ("make", "check"),
    [
        (_forged_signature, "vtpm.quote.signature"),
        (_unknown_key, "vtpm.ak.trust"),
        (_other_recipient, "binding.primary"),
        (_other_keys, "binding.primary"),
        (_padded_binding, "binding.primary"),
        (_sample_alone, "sample.development"),
        (_two_primaries, "bundle.primary"),
        (_the_same_twice, "binding.duplicate"),
        (_unknown_kind, "csv.parse"),
        (_truncated, "vtpm.parse"),
    ],
)
def test_evidence_that_does_not_authenticate_costs_nothing(
    world: World, make: Make, check: str
) -> None:
    tpm = world.standard()
    request = make(world, tpm)
    seen = see(world, request)
    assert (seen.status, seen.code) == (403, "evidence.refused")
    assert check in seen.checks
    # Of policy nothing is said: every key is denied for the checks alone.
    for reasons in seen.denied.values():
        assert set(reasons) == set(seen.checks)
    assert "receipt" not in seen.document
    assert releases(world) == []
    assert not is_spent(world, request)
    # The same challenge still serves the guest that it was meant for.
    good = world.request(tpm, challenge=request.runtime_data.nonce)
    assert world.released(good) == {f"{CHAT}@1": b"the model key"}
