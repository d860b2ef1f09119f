"""Any input into governance: a value that is written back the same, or a KbsError."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from kbs.core.clock import format_time
from kbs.core.encode import b64u, canonical_json
from kbs.core.errors import KbsError
from kbs.governance.attestation_key import tpm_name
from kbs.governance.chain import extend, replay
from kbs.governance.contents import (
    read_attestation_key,
    read_authority,
    read_ca,
    read_deny,
    read_reference_set,
)
from kbs.governance.signature import parse_public_key
from kbs.governance.sshsig import verify_ssh_signature
from kbs.governance.state import GovernanceState
from kbs.governance.statement import ACTIONS, Action, Kind, read_envelope
from tests.fakes.governors import INSTANCE, NOW, ROOT, Chain, signed

HEX64 = st.binary(min_size=32, max_size=32).map(bytes.hex)
NAMES = st.from_regex(r"[a-z0-9]([a-z0-9_-]{0,8}[a-z0-9])?", fullmatch=True)
TIMES = st.one_of(
    st.none(),
    st.datetimes(
        min_value=datetime(1971, 1, 1),  # noqa: DTZ001 - hypothesis adds the zone
        max_value=datetime(9998, 1, 1),  # noqa: DTZ001 - hypothesis adds the zone
        timezones=st.just(UTC),
    ).map(format_time),
)


@st.composite
def statements(draw: st.DrawFn) -> dict[str, Any]:
    kind = draw(st.sampled_from(list(Kind)))
    return {
        "typ": "kbs.statement/1",
        "instance": draw(st.binary(min_size=16, max_size=16)).hex(),
        "seq": draw(st.integers(1, 2**53)),
        "prev": draw(HEX64),
        "action": draw(st.sampled_from(sorted(ACTIONS[kind]))).value,
        "kind": kind.value,
        "tenant": draw(st.one_of(st.just("*"), NAMES)),
        "name": draw(NAMES),
        "version": draw(st.integers(1, 999_999_999)),
        "digest": draw(HEX64),
        "not_before": draw(TIMES),
        "expires": draw(TIMES),
    }


SIGNATURES = st.fixed_dictionaries(
    {
        "keyid": HEX64,
        "alg": st.sampled_from(["EdDSA", "ES256", "sshsig"]),
        "sig": st.binary(max_size=80).map(b64u),
    }
)


@given(
    statements(),
    st.lists(SIGNATURES, min_size=1, max_size=3, unique_by=lambda s: s["keyid"]),
)
def test_envelopes_are_written_back_the_same(
    statement: dict[str, Any], signatures: list[dict[str, Any]]
) -> None:
    data = canonical_json({"statement": statement, "signatures": signatures})
    assert read_envelope(data).canonical() == data


READERS: list[Callable[[bytes], Any]] = [
    read_authority,
    read_reference_set,
    read_attestation_key,
    read_ca,
    read_deny,
    read_envelope,
    parse_public_key,
    tpm_name,
]
WORDS = st.sampled_from(
    ["values", "expires", "target", "value", "reason", "key", "all", "ak", "purpose"]
)
SMALL_JSON = st.dictionaries(
    WORDS, st.one_of(st.text(max_size=5), WORDS, st.lists(st.text(max_size=3)))
).map(canonical_json)


@given(st.one_of(st.binary(max_size=120), SMALL_JSON))
def test_any_bytes_are_a_value_or_an_error(data: bytes) -> None:
    for read in READERS:
        try:
            parsed = read(data)
        except KbsError:
            continue
        if hasattr(parsed, "canonical"):
            assert parsed.canonical() == data


@given(
    st.lists(st.one_of(st.integers(-(2**53), 2**53), st.text(max_size=8)), min_size=1)
)
def test_reference_sets_come_back(values: list[str | int]) -> None:
    data = canonical_json({"values": values})
    if len(set(values)) == len(values):
        assert read_reference_set(data).canonical() == data
    else:
        with pytest.raises(KbsError):
            read_reference_set(data)


@given(st.binary(max_size=200))
def test_any_bytes_are_no_ssh_signature(blob: bytes) -> None:
    key = Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key()
    for data in (blob, b"SSHSIG\x00\x00\x00\x01" + blob):
        with pytest.raises(KbsError):
            verify_ssh_signature(data, b"m", key)


@cache
def base() -> tuple[Chain, GovernanceState]:
    chain = Chain()
    state = replay(
        [], genesis_digest=chain.genesis_digest, instance=INSTANCE, load=chain.load
    )
    return chain, state


@given(st.data())
def test_any_flipped_bit_of_an_accepted_envelope_is_refused(
    data: st.DataObject,
) -> None:
    chain, state = base()
    statement = chain.draft(Kind.RELEASE_POLICY, Action.ACTIVATE, b"policy")
    raw = bytearray(signed(statement, ROOT).canonical())
    after = extend(state, read_envelope(bytes(raw)), b"policy", accepted=NOW)
    assert after.head_hash == statement.hash()
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(KbsError):
        extend(state, read_envelope(bytes(raw)), b"policy", accepted=NOW)
