"""Fuzz targets of TDX and SGX: quotes, event logs, Intel's documents and collateral."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable

from kbs.core.checks import Verdict, verdict
from kbs.core.encode import b64
from kbs.evidence.dcap.collateral import read_collateral
from kbs.evidence.dcap.documents import MAX_DOCUMENT_BYTES, parse_document
from kbs.evidence.dcap.files import item_of_document, kind_of_document
from kbs.evidence.dcap.inspection import inspect_document
from kbs.evidence.dcap.quote import MAX_QUOTE_BYTES, parse_quote, serialize_quote
from kbs.evidence.model import Trust
from kbs.evidence.registry import VERIFIERS
from kbs.evidence.tdx.eventlog import parse_td_log
from kbs.evidence.vtpm.eventlog import MAX_LOG, replay
from kbs.evidence.vtpm.events import EventType
from kbs.pki import der
from tests.fakes.eventlog import FakeEventLog
from tests.fakes.intel import NOW, FakeIntel, sgx_extension, tlv
from tests.fuzz.target import Shape, Target

INTEL = FakeIntel()
TRUST = Trust(now=NOW, collateral=INTEL.collateral(), pinned_roots=INTEL.pins())


def _quote(kind: str) -> Callable[[bytes], None]:
    def run(data: bytes) -> None:
        assert serialize_quote(parse_quote(data)) == data
        verifier = VERIFIERS[kind]
        parsed = verifier.parse({"kind": kind, "quote": b64(data)}, 0)
        verifier.inspect(parsed)
        result = verifier.verify(parsed, TRUST)
        verified = verdict(result.checks) is Verdict.VERIFIED
        assert (result.claims is not None) is verified

    return run


def _tdx_seeds() -> Iterable[bytes]:
    yield INTEL.quote()
    yield INTEL.quote(version=5, version_15=True, padding=bytes(8))
    yield INTEL.quote(version=5, extended=True)


def _sgx_seeds() -> Iterable[bytes]:
    for version in (3, 4, 5):
        yield INTEL.quote(tee="sgx", version=version)


def _document(data: bytes) -> None:
    document = parse_document(data)
    assert document.data == data
    inspect_document(document)


def _document_seeds() -> Iterable[bytes]:
    yield INTEL.tcb_info().encode()
    yield INTEL.tcb_info("SGX").encode()
    yield INTEL.qe_identity().encode()


def _td_log() -> bytes:
    log = FakeEventLog(("sha384",))
    for index in range(1, 5):
        log.measure(index, EventType.EV_EFI_ACTION, b"event")
    return log.to_bytes()


def _quote_file(data: bytes) -> None:
    kind = kind_of_document(data)
    item_of_document(data, kind or "tdx")


def _der(data: bytes) -> None:
    rebuilt = b"".join(tlv(tag, content) for tag, content in der.elements(data, "der"))
    assert rebuilt == data


TARGETS = (
    Target(
        name="tdx.quote",
        run=_quote("tdx"),
        seeds=_tdx_seeds,
        recorded=("tdx/v*.bin",),
        most_bytes=MAX_QUOTE_BYTES,
    ),
    Target(
        name="sgx.quote",
        run=_quote("sgx"),
        seeds=_sgx_seeds,
        recorded=("sgx/v*.bin",),
        most_bytes=MAX_QUOTE_BYTES,
    ),
    Target(
        name="tdx.event_log",
        run=lambda data: replay(parse_td_log(data)),
        seeds=lambda: (_td_log() + fill for fill in (b"", b"\xff" * 64, bytes(64))),
        recorded=("eventlogs/ccel-*.bin",),
        most_bytes=MAX_LOG,
    ),
    Target(
        name="intel.document",
        run=_document,
        seeds=_document_seeds,
        recorded=("tdx/*tcb*info*.json", "tdx/*identity.json", "sgx/*.json"),
        shape=Shape.JSON,
        most_bytes=MAX_DOCUMENT_BYTES,
    ),
    Target(
        name="intel.collateral",
        run=read_collateral,
        seeds=lambda: (
            json.dumps(INTEL.collateral_json(tee)).encode() for tee in ("tdx", "sgx")
        ),
        recorded=("*/*.collateral.json",),
        shape=Shape.JSON,
    ),
    Target(
        name="intel.quote_file",
        run=_quote_file,
        seeds=lambda: (
            json.dumps({"quote": quote.hex(), "event_log": "[]"}).encode()
            for quote in _tdx_seeds()
        ),
        recorded=("tdx/v4-dstack-app.json",),
        shape=Shape.JSON,
    ),
    Target(name="intel.der", run=_der, seeds=lambda: (sgx_extension(),)),
)
