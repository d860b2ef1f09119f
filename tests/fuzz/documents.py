"""Targets: JSON itself, policies, statements, sealed files, and parts of the log."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

from kbs.artifacts.age_header import read_age_header
from kbs.artifacts.envelope import SealedHeader, read_header
from kbs.artifacts.formats import inspect, seal, unseal
from kbs.audit.checkpoint import parse_checkpoint
from kbs.audit.entry import parse_body, parse_leaf
from kbs.audit.export import parse_entry_line, write_export
from kbs.audit.highwater import parse_mark
from kbs.audit.logkey import parse_origin, parse_vkey
from kbs.audit.receipt import parse_receipt
from kbs.audit.tiles import entry_bundle, parse_bundle, parse_path
from kbs.client.refusal import error_of
from kbs.client.transport import Reply
from kbs.core.encode import canonical_json, parse_json
from kbs.core.errors import (
    KbsError,
    MalformedError,
    UnavailableError,
    VerificationError,
)
from kbs.core.ids import KeyId, KeyRef, parse_key_ref, parse_scoped_name
from kbs.evidence.registry import vocabulary
from kbs.governance.contents import (
    read_attestation_key,
    read_authority,
    read_ca,
    read_deny,
    read_reference_set,
)
from kbs.governance.statement import Action, Kind, read_envelope
from kbs.policy.cases import parse_case
from kbs.policy.parse import parse_release_policy
from kbs.policy.yaml import parse_yaml
from tests.conftest import ROOT
from tests.fakes.governors import EVERYBODY, SECOND, Chain
from tests.fakes.governors import ROOT as ROOT_ADMIN
from tests.fakes.tpm_ca import FakeTpmCA, certificate_b64
from tests.fuzz.target import KIB, Shape, Target
from tests.unit.audit.samples import small_log
from tests.unit.audit.test_highwater import FILE

KEY = bytes(range(32))
POLICIES = ROOT / "policies"
WORDS = vocabulary()

Read = Callable[[bytes], object]


def _json(data: bytes) -> None:
    value = parse_json(data, "text", limit=64 * KIB)
    written = canonical_json(value)
    assert parse_json(written, "text", limit=len(written)) == value


def _json_seeds() -> Iterable[bytes]:
    yield json.dumps({"a": [1, -(2**53), "ä\\u0000", None, {"b": [True]}]}).encode()
    yield b'{"\\ud83d\\ude00":"\\ud83d\\ude00","a":"\xf0\x9f\x98\x80"}'
    yield b"[" * 33 + b"]" * 33
    yield b' [ 1 , 0 , 9007199254740993, "\\u0022" ] '


def _policy(data: bytes) -> None:
    parsed = parse_release_policy(data, vocabulary=WORDS)
    again = parse_release_policy(parsed.canonical, vocabulary=WORDS)
    assert again.canonical == parsed.canonical


def _yaml(data: bytes) -> None:
    value = parse_yaml(data, "file").value
    assert parse_yaml(canonical_json(value), "file").value == value


def _case(data: bytes) -> None:
    parse_case(data, WORDS, "case", deny=True)


def _files(pattern: str) -> Iterable[bytes]:
    return (path.read_bytes() for path in sorted(Path(POLICIES).glob(pattern)))


# -- governance ------------------------------------------------------------------------


def _contents(data: bytes) -> None:
    for read in (
        read_authority,
        read_reference_set,
        read_attestation_key,
        read_ca,
        read_deny,
    ):
        try:
            parsed = read(data)
        except MalformedError:
            continue
        assert parsed.canonical() == data


def _content_seeds() -> Iterable[bytes]:
    yield EVERYBODY.canonical()
    yield canonical_json({"values": ["00", 1, "0.1"], "expires": None})
    ca = {"purpose": "ek", "certificate": certificate_b64(FakeTpmCA().root)}
    yield canonical_json(ca)
    yield canonical_json({"target": "key", "value": "acme/model/x", "reason": "lost"})


def _envelope(data: bytes) -> None:
    assert read_envelope(data).canonical() == data


def _envelope_seeds() -> Iterable[bytes]:
    chain = Chain()
    content = canonical_json({"values": ["00"]})
    chain.state(Kind.REFERENCE_SET, Action.ADD, content)
    chain.state(Kind.REFERENCE_SET, Action.REMOVE, content, by=(ROOT_ADMIN, SECOND))
    yield from (row.envelope for row in chain.rows)


# -- sealed files ----------------------------------------------------------------------


def _sealed(data: bytes) -> None:
    source, sink = io.BytesIO(data), io.BytesIO()
    for use in (read_header, inspect, read_age_header):
        source.seek(0)
        try:
            use(source)
        except MalformedError:
            continue
    source.seek(0)
    try:
        unseal(KEY, source, sink)
    except KbsError:
        assert not sink.getvalue(), "something false was written"
        raise


def _sealed_seeds() -> Iterable[bytes]:
    header = SealedHeader(key=KeyRef(KeyId("acme", "model", "chat"), 1), name="a.bin")
    for plaintext in (b"", b"weights" * 40):
        sink = io.BytesIO()
        seal(KEY, io.BytesIO(plaintext), sink, header=header)
        yield sink.getvalue()
    yield b"age-encryption.org/v1\n-> X25519 AAAA\nAAAA\n--- AAAA\n"
    yield b"-----BEGIN AGE ENCRYPTED FILE-----\nYWdlLWVuY3J5cHRpb24ub3JnL3YxCg==\n"


# -- the log ---------------------------------------------------------------------------


def _same(read: Callable[[bytes], bytes], data: bytes) -> None:
    assert read(data) == data, "what was read is written back as something else"


def _as_text(read: Callable[[str], object]) -> Read:
    return lambda data: read(data.decode("utf-8", "replace"))


def _each(reads: Sequence[Callable[[str], object]], data: bytes) -> None:
    refused = []
    for read in reads:
        try:
            _as_text(read)(data)
        except MalformedError as exc:
            refused.append(exc)
    if len(refused) == len(reads):
        raise refused[0]


LOG = small_log()
ENTRY = LOG.log.state.entries[2]
with LOG.log.transaction() as _transaction:
    LINES = list(write_export(_transaction, checkpoint=LOG.note, keys=LOG.keys))
PARTS: Sequence[tuple[str, Callable[[bytes], bytes], tuple[bytes, ...], Shape]] = (
    (
        "checkpoint",
        lambda data: parse_checkpoint(data).note(),
        (LOG.note,),
        Shape.BYTES,
    ),
    ("leaf", lambda data: parse_leaf(data).serialize(), (ENTRY.leaf,), Shape.JSON),
    ("body", lambda data: parse_body(data).serialize(), (ENTRY.body,), Shape.JSON),
    ("mark", lambda data: parse_mark(data).serialize(), (FILE,), Shape.JSON),
    (
        "tile",
        lambda data: entry_bundle(parse_bundle(data)),
        (entry_bundle([ENTRY.leaf, b""]),),
        Shape.BYTES,
    ),
)


def _receipt_seeds() -> Iterable[bytes]:
    document = {
        "format": "kbs.receipt/1",
        "leaf": ENTRY.leaf.decode(),
        "index": 2,
        "checkpoint": LOG.note.decode(),
        "inclusion": ["A" * 43 + "="],
    }
    yield canonical_json(document)


def _reply(data: bytes) -> None:
    # A server that lies to its clients.
    raise error_of(
        Reply(
            status=int.from_bytes(data[:2], "big"),
            content_type="application/problem+json",
            body=data[2:],
        )
    )


TARGETS: Sequence[Target] = (
    Target(name="json", run=_json, seeds=_json_seeds, shape=Shape.JSON),
    Target(name="policy", run=_policy, seeds=partial(_files, "*/policy.yaml")),
    Target(name="policy.yaml", run=_yaml, seeds=partial(_files, "*/*.yaml")),
    Target(
        name="policy.case",
        run=_case,
        seeds=partial(_files, "*/*/*.json"),
        shape=Shape.JSON,
    ),
    Target(
        name="governance.content",
        run=_contents,
        seeds=_content_seeds,
        shape=Shape.JSON,
    ),
    Target(
        name="governance.envelope",
        run=_envelope,
        seeds=_envelope_seeds,
        shape=Shape.JSON,
    ),
    Target(
        name="sealed",
        run=_sealed,
        seeds=_sealed_seeds,
        allowed=(MalformedError, VerificationError, UnavailableError),
        most_bytes=256 * KIB,
    ),
    *(
        Target(
            name=f"audit.{name}",
            run=partial(_same, read),
            seeds=lambda samples=samples: samples,  # type: ignore[misc]
            shape=shape,
        )
        for name, read, samples, shape in PARTS
    ),
    Target(
        name="audit.receipt",
        run=parse_receipt,
        seeds=_receipt_seeds,
        shape=Shape.JSON,
    ),
    Target(
        name="audit.export",
        run=parse_entry_line,
        seeds=lambda: LINES[2:6],
        shape=Shape.JSON,
    ),
    Target(
        name="audit.names",
        run=partial(_each, (parse_vkey, parse_origin)),
        seeds=lambda: (LOG.keys[0].vkey.encode(), b"kbs.example.org/4f0c"),
    ),
    Target(
        name="audit.path",
        run=_as_text(parse_path),
        seeds=lambda: (b"tile/0/x001/x234/067.p/17", b"tile/entries/000"),
    ),
    Target(
        name="names",
        run=partial(_each, (parse_key_ref, parse_scoped_name)),
        seeds=lambda: (b"acme/model/chat@2", b"acme/chat", b"shared/x"),
    ),
    Target(
        name="client.problem",
        run=_reply,
        seeds=lambda: (
            b'\x01\x93{"detail":"b","code":"c","checks":[{"id":"snp.report"}]}',
        ),
        allowed=(KbsError,),
    ),
)
