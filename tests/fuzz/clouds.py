"""Fuzz targets of clouds: Nitro documents, HCL reports, attestations of Google's."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from kbs.core.checks import Verdict, verdict
from kbs.core.encode import b64, parse_json_object
from kbs.evidence.azure.hcl import MAX_REPORT, parse_hcl_report
from kbs.evidence.bundle import MAX_BUNDLE_BYTES
from kbs.evidence.gce.attestation import (
    MAX_ATTESTATION,
    check_others,
    is_attestation,
    parse_attestation,
)
from kbs.evidence.model import Trust
from kbs.evidence.nitro.document import kind_of, parse_document
from kbs.evidence.registry import VERIFIERS
from tests.fakes.amd import FakeAmd
from tests.fakes.azure import azure
from tests.fakes.gce import attestation, octets, snp_attestation, td_quote
from tests.fakes.intel import FakeIntel
from tests.fakes.nitro import NOW, nitro
from tests.fakes.tpm import FakeTpm
from tests.fuzz.target import Shape, Target

AWS = nitro()
VM = azure()
TRUST = Trust(now=NOW, pinned_roots=AWS.pins)


def appraised(kind: str, item: Mapping[str, Any], trust: Trust) -> None:
    """Parse, inspect and verify an item: only what is verified has claims."""
    verifier = VERIFIERS[kind]
    parsed = verifier.parse(dict(item), 0)
    json.dumps(verifier.inspect(parsed)).encode()
    verifier.bound_matches(parsed, bytes(48))
    result = verifier.verify(parsed, trust)
    verified = verdict(result.checks) is Verdict.VERIFIED
    assert verified or result.claims is None


def _document(kind: str) -> Callable[[bytes], None]:
    def run(data: bytes) -> None:
        kind_of(data)
        assert parse_document(data).raw == data
        appraised(kind, {"kind": kind, "document": b64(data)}, TRUST)

    return run


def _hcl_report(data: bytes) -> None:
    report = parse_hcl_report(data)
    assert report.raw == data
    appraised("azure", {"kind": "azure", "hcl_report": b64(data)}, TRUST)


def _azure_item(data: bytes) -> None:
    item = parse_json_object(data, "item", limit=MAX_BUNDLE_BYTES)
    appraised("azure", item, Trust(now=VM.amd.now, pinned_roots=VM.amd.pins()))


def _attestation(data: bytes) -> None:
    is_attestation(data)
    found = parse_attestation(data)
    check_others(found, 0)
    for item in found.items:
        kind = str(item["kind"])
        VERIFIERS[kind].parse(item, 0)


def _attestation_seeds() -> Iterable[bytes]:
    plain = attestation(FakeTpm(), b"nonce", banks=("sha256", "sha384"))
    yield plain
    yield plain + octets(8, snp_attestation(FakeAmd(), b"nonce"))
    yield plain + octets(9, td_quote(FakeIntel(), b"nonce"))


TARGETS = (
    Target(
        name="nitro.document",
        run=_document("nitro"),
        seeds=lambda: (
            AWS.document(user_data=bytes(48), nonce=b"n"),
            AWS.document(),
        ),
        recorded=("nitro/*.cbor",),
    ),
    Target(
        name="nitrotpm.document",
        run=_document("nitrotpm"),
        seeds=lambda: (AWS.tpm_document(),),
    ),
    Target(
        name="azure.hcl_report",
        run=_hcl_report,
        seeds=lambda: (VM.hcl(), VM.hcl(VM.claims(keys=[]))),
        recorded=("vtpm-azure/*hcl*.bin",),
        most_bytes=MAX_REPORT,
    ),
    Target(
        name="azure.item",
        run=_azure_item,
        seeds=lambda: (json.dumps(VM.item()).encode(),),
        shape=Shape.JSON,
        most_bytes=MAX_BUNDLE_BYTES,
    ),
    Target(
        name="gce.attestation",
        run=_attestation,
        seeds=_attestation_seeds,
        recorded=("vtpm-gcp/*",),
        most_bytes=MAX_ATTESTATION,
    ),
)
