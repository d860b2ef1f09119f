"""Runtime data: all members, no others, one spelling; and what is hashed over it."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from kbs.channel.binding import (
    DeviceDigest,
    Mode,
    RuntimeBinding,
    device_binding,
    device_digest,
    parse_runtime_data,
    primary_binding,
    release_info,
)
from kbs.channel.recipient import Suite
from kbs.core.binding import binding
from kbs.core.encode import canonical_json
from kbs.core.errors import MalformedError
from kbs.core.ids import KeyRef, parse_key_ref

RECIPIENT = {
    "crv": "X25519",
    "kty": "OKP",
    # RFC 7748, section 6.1, Bob's public key.
    "x": "3p7bfXt9wbTTW2HC7OQ1Nz-DQ8hbeGdNrfx-FG-IK08",
}
REQUEST: dict[str, Any] = {
    "keys": ["acme/model/chat", "acme/model/chat@2", "acme/prompt/front@7"],
    "mode": "release",
    "partial": False,
    "suite": "0020-0001-0002",
}
DATA: dict[str, Any] = {
    "audience": "kbs.example.org/log",
    "nonce": "AQ" * 39 + "A",
    "recipient": RECIPIENT,
    "request": REQUEST,
}


def with_request(**changes: object) -> dict[str, Any]:
    return {**DATA, "request": {**REQUEST, **changes}}


def without(document: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in document.items() if key != name}


def test_what_is_parsed_is_written_back_the_same() -> None:
    data = parse_runtime_data(DATA)
    assert canonical_json(data.to_json()) == canonical_json(DATA)
    assert data.request.mode is Mode.RELEASE
    assert data.request.suite is Suite.X25519
    assert data.request.keys[1] == parse_key_ref("acme/model/chat@2")


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        *(without(DATA, name) for name in DATA),
        {**DATA, "tee": "snp"},
        {**DATA, "audience": ""},
        {**DATA, "audience": "a b"},
        {**DATA, "audience": "a\x00b"},
        {**DATA, "audience": "kbs.exämple.org"},
        {**DATA, "audience": "a" * 256},
        {**DATA, "audience": 1},
        {**DATA, "nonce": ""},
        {**DATA, "nonce": "AQ=="},
        {**DATA, "nonce": "A" * 129},
        {**DATA, "nonce": None},
        {**DATA, "recipient": {}},
        {**DATA, "request": None},
        *({**DATA, "request": without(REQUEST, name)} for name in REQUEST),
        with_request(more=1),
        with_request(keys=[]),
        with_request(keys="acme/model/chat"),
        with_request(keys=["acme/model/chat", "acme/model/chat"]),
        with_request(keys=["acme/model"]),
        with_request(keys=["acme/model/chat@0"]),
        with_request(keys=["acme/model/chat@01"]),
        with_request(keys=[1]),
        with_request(keys=[f"acme/model/k{n}" for n in range(65)]),
        with_request(mode="probe"),
        with_request(mode=None),
        with_request(partial=0),
        with_request(partial="false"),
        with_request(suite="0010-0001-0002"),
        with_request(suite="0020-0001-0001"),
    ],
)
def test_anything_else_is_refused(value: object) -> None:
    with pytest.raises(MalformedError):
        parse_runtime_data(value)


def test_sixty_four_keys_are_the_most() -> None:
    keys = [f"acme/model/k{n}" for n in range(64)]
    assert len(parse_runtime_data(with_request(keys=keys)).request.keys) == 64


def test_b_is_sha384_over_context_and_jcs() -> None:
    expected = hashlib.sha384(b'kbs.binding/1\x00{"a":[],"b":1}').digest()
    assert binding({"b": 1, "a": []}) == expected


def test_p_and_d_are_never_the_same_and_change_with_everything() -> None:
    data = parse_runtime_data(DATA)
    other = parse_runtime_data(with_request(partial=True))
    device = device_digest("vtpm", b"core")
    values = [
        primary_binding("snp", data, []),
        primary_binding("vtpm", data, []),
        primary_binding("snp", data, [device]),
        primary_binding("snp", data, [device, device]),
        primary_binding("snp", other, []),
        device_binding("snp", data),
        device_binding("vtpm", data),
        device_binding("vtpm", other),
    ]
    assert len(set(values)) == len(values)
    assert {len(value) for value in values} == {48}


def test_the_injected_binding_computes_the_same() -> None:
    data = parse_runtime_data(DATA)
    device = DeviceDigest("vtpm", hashlib.sha384(b"core").hexdigest())
    bound = RuntimeBinding(data)
    pair = ("vtpm", device.sha384)
    assert bound.primary("snp", [pair]) == primary_binding("snp", data, [device])
    assert bound.device("vtpm") == device_binding("vtpm", data)


def test_the_release_info_names_evidence_decision_and_versions() -> None:
    keys = [parse_key_ref("acme/model/chat@2")]
    p = bytes(range(48))
    named = (
        b'{"audience":"a","decision":"' + b"0" * 32 + b'","keys":["acme/model/chat@2"]}'
    )
    expected = b"kbs.release/1\x00" + hashlib.sha384(p + named).digest()
    assert release_info(p, audience="a", decision="0" * 32, keys=keys) == expected


def test_the_release_info_wants_versions() -> None:
    key = KeyRef(parse_key_ref("acme/model/chat").key_id)
    with pytest.raises(MalformedError):
        release_info(bytes(48), audience="a", decision="0" * 32, keys=[key])
