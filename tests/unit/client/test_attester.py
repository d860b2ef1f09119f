"""Bundles: devices first, and the primary covers them."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbs.channel.binding import (
    Mode,
    ReleaseRequest,
    RuntimeBinding,
    RuntimeData,
    device_binding,
)
from kbs.channel.recipient import Suite, generate_recipient_key, recipient_of
from kbs.client import attester as module
from kbs.client.attester import Collected, collect_bundle
from kbs.client.sample import SampleAttester
from kbs.client.tpm_attester import parse_selection, read_event_log
from kbs.core.encode import parse_b64
from kbs.core.errors import MalformedError, UnavailableError
from kbs.core.ids import parse_key_ref
from kbs.evidence.bundle import FORMAT, MAX_BUNDLE_BYTES, parse_bundle, verify_bundle
from kbs.evidence.model import Trust
from kbs.evidence.sample.verify import SampleVerifier
from kbs.evidence.vtpm.abi import PcrSelection
from kbs.evidence.vtpm.algorithms import Algorithm


@dataclass
class Device:
    """A device that notes what it was asked, and when."""

    kind: str
    order: list[str]
    size: int = 1

    def collect(self, binding: bytes) -> Collected:
        self.order.append(f"{self.kind} {binding.hex()}")
        return Collected({"kind": self.kind, "x": "y" * self.size}, b"core")


@pytest.fixture
def runtime_data() -> RuntimeData:
    key = generate_recipient_key(Suite.X25519)
    return RuntimeData(
        audience="broker.example/0f1e",
        nonce="n" * 79,
        recipient=recipient_of(key),
        request=ReleaseRequest(
            keys=(parse_key_ref("acme/model/chat"),),
            mode=Mode.RELEASE,
            partial=False,
            suite=Suite.X25519,
        ),
    )


def test_the_primary_is_made_last_and_stands_first(runtime_data: RuntimeData) -> None:
    order: list[str] = []
    primary, gpu, tpm = (Device(kind, order) for kind in ("snp", "nvgpu", "vtpm"))
    bundle = collect_bundle(runtime_data, primary, [gpu, tpm])
    assert [one.split()[0] for one in order] == ["nvgpu", "vtpm", "snp"]
    assert order[0].split()[1] == device_binding("nvgpu", runtime_data).hex()
    assert order[2].split()[1] == bundle.primary.hex()
    document = json.loads(bundle.raw)
    assert [item["kind"] for item in document["items"]] == ["snp", "nvgpu", "vtpm"]


def test_a_bundle_is_what_the_broker_parses(runtime_data: RuntimeData) -> None:
    made = collect_bundle(runtime_data, SampleAttester({"svn": 3}))
    bundle = parse_bundle(made.raw)
    from datetime import UTC, datetime

    result = verify_bundle(
        bundle,
        trust=Trust(now=datetime(2026, 11, 22, tzinfo=UTC), development=True),
        verifiers={"sample": SampleVerifier()},
        binding=RuntimeBinding(runtime_data),
    )
    assert result.failed() == ()
    assert result.binding == made.primary


def test_format_and_limit_are_the_brokers() -> None:
    assert (module.BUNDLE_FORMAT, module.MAX_BUNDLE) == (FORMAT, MAX_BUNDLE_BYTES)


def test_more_than_a_broker_takes_is_not_sent(runtime_data: RuntimeData) -> None:
    with pytest.raises(UnavailableError, match="event log"):
        collect_bundle(runtime_data, Device("snp", [], size=MAX_BUNDLE_BYTES))


def test_sample_evidence_is_the_binding_and_nothing_else() -> None:
    item = SampleAttester().collect(bytes(range(48))).item
    assert sorted(item) == ["kind", "report_data"]
    assert parse_b64(item["report_data"], "P", limit=48) == bytes(range(48))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sha256:0", (PcrSelection(Algorithm.SHA256, (0,)),)),
        ("sha256:15,0,7", (PcrSelection(Algorithm.SHA256, (0, 7, 15)),)),
        (
            "sha256:1+sha384:23",
            (
                PcrSelection(Algorithm.SHA256, (1,)),
                PcrSelection(Algorithm.SHA384, (23,)),
            ),
        ),
    ],
)
def test_a_selection_is_read(text: str, expected: tuple[PcrSelection, ...]) -> None:
    assert parse_selection(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sha256",
        "sha256:",
        "sha256:24",
        "sha256:1,1",
        "sha256:1,",
        "md5:1",
        "sha256:1+sha256:2",
        "sha256:1+",
        "sha256: 1",
        "SHA256:1",
        "sha256:٣",
    ],
)
def test_a_selection_that_is_none_is_malformed(text: str) -> None:
    with pytest.raises(MalformedError):
        parse_selection(text)


@given(st.text(max_size=30) | st.text("sha256:,+0123456789", max_size=30))
def test_any_text_is_a_selection_or_malformed(text: str) -> None:
    with suppress(MalformedError):
        assert all(selection.pcrs for selection in parse_selection(text))


def test_an_event_log_that_cannot_be_read_is_said(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("log")
    with pytest.raises(UnavailableError, match="--event-log"):
        read_event_log(folder / "none")
    (folder / "large").write_bytes(bytes(1024 * 1024 + 1))
    with pytest.raises(UnavailableError, match="at most"):
        read_event_log(folder / "large")
