"""Any bytes into a parser of the log: a value that serializes back, or a KbsError."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kbs.audit import merkle
from kbs.audit.checkpoint import (
    Checkpoint,
    parse_checkpoint,
    sign_checkpoint,
    verify_checkpoint,
)
from kbs.audit.entry import parse_body, parse_leaf
from kbs.audit.export import (
    parse_checkpoint_line,
    parse_entry_line,
    parse_keys_line,
    read_lines,
    write_export,
)
from kbs.audit.highwater import parse_mark
from kbs.audit.history import History
from kbs.audit.log import LogEntry
from kbs.audit.logkey import parse_vkey
from kbs.audit.merkle import NodeId
from kbs.audit.proof import leaf_hash, verify_consistency, verify_inclusion
from kbs.audit.receipt import Receipt, parse_receipt
from kbs.audit.report import ExportError
from kbs.audit.tiles import entry_bundle, parse_bundle, parse_path
from kbs.audit.verification import verify_export
from kbs.core.encode import canonical_json, parse_json_object
from kbs.core.errors import KbsError, VerificationError
from tests.unit.audit.samples import ORIGIN, signer, small_log
from tests.unit.audit.test_highwater import FILE

BUILT = small_log()
ENTRY = BUILT.log.state.entries[2]
with BUILT.log.transaction() as _transaction:
    LINES = list(write_export(_transaction, checkpoint=BUILT.note, keys=BUILT.keys))
    PATH = merkle.inclusion_proof(_transaction, 2, 6)
RECEIPT = Receipt(
    leaf=ENTRY.leaf,
    index=2,
    checkpoint=BUILT.note,
    inclusion=PATH,
    body=ENTRY.body,
    salt=ENTRY.salt,
)


def read_vkey(data: bytes) -> bytes:
    return parse_vkey(data.decode("utf-8", "replace")).vkey.encode()


def read_path(data: bytes) -> bytes:
    return parse_path(data.decode("utf-8", "replace")).path.encode()


def read_checkpoint_line(data: bytes) -> bytes:
    document = {"checkpoint": parse_checkpoint_line(data).decode()}
    return canonical_json(document) + b"\n"


def read_keys_line(data: bytes) -> bytes:
    keys = [key.vkey for key in parse_keys_line(data)]
    return canonical_json({"keys": keys}) + b"\n"


PARSERS: list[tuple[Callable[[bytes], bytes], bytes]] = [
    (lambda data: parse_checkpoint(data).note(), BUILT.note),
    (lambda data: parse_leaf(data).serialize(), ENTRY.leaf),
    (lambda data: parse_body(data).serialize(), ENTRY.body),
    (lambda data: parse_receipt(data).serialize(), RECEIPT.serialize()),
    (lambda data: entry_bundle(parse_bundle(data)), entry_bundle([ENTRY.leaf, b""])),
    (lambda data: parse_mark(data).serialize(), FILE),
    (read_vkey, BUILT.keys[0].vkey.encode()),
    (read_path, b"tile/0/x001/x234/067.p/17"),
    (read_checkpoint_line, LINES[0]),
    (read_keys_line, LINES[1]),
    (lambda data: parse_entry_line(data).serialize(), LINES[4]),
]
NAMES = [
    *("checkpoint", "leaf", "body", "receipt", "bundle", "mark", "vkey", "path"),
    *("first line", "second line", "entry line"),
]


def damaged(good: bytes) -> st.SearchStrategy[bytes]:
    """A good input with a piece of it replaced, cut out or doubled."""

    def cut(places: tuple[int, int], piece: bytes) -> bytes:
        start, end = sorted(places)
        return good[:start] + piece + good[end:]

    place = st.integers(0, len(good))
    piece = st.one_of(
        st.just(b""),
        st.binary(max_size=4),
        st.sampled_from([b'"', b"\n", b"0", b"null"]),
    )
    return st.builds(cut, st.tuples(place, place), piece)


@pytest.mark.parametrize(("parse", "good"), PARSERS, ids=NAMES)
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_bytes_are_refused_or_written_back_the_same(
    parse: Callable[[bytes], bytes], good: bytes, data: st.DataObject
) -> None:
    assert parse(good) == good
    given_bytes = data.draw(st.one_of(st.binary(max_size=200), damaged(good)))
    try:
        written = parse(given_bytes)
    except KbsError:
        return
    if parse is PARSERS[3][0]:
        # A receipt may come with white space; what it says is written one way.
        assert parse(written) == written
    else:
        assert written == given_bytes


@settings(max_examples=100, deadline=None)
@given(data=damaged(b"".join(LINES)))
def test_a_damaged_export_is_refused_with_a_report(data: bytes) -> None:
    if data == b"".join(LINES):
        return
    with pytest.raises(ExportError) as caught:
        verify_export(read_lines(io.BytesIO(data)), keys=BUILT.keys)
    assert caught.value.report.problems


@settings(max_examples=60, deadline=None)
@given(data=damaged(BUILT.note))
def test_a_damaged_checkpoint_never_verifies(data: bytes) -> None:
    if data == BUILT.note:
        return
    with pytest.raises(KbsError):
        verify_checkpoint(data, origin=ORIGIN, keys=BUILT.keys, only_known=True)


@settings(max_examples=60, deadline=None)
@given(size=st.integers(0, 2**63 - 1), root=st.binary(min_size=32, max_size=32))
def test_a_checkpoint_of_any_tree_survives_the_note(size: int, root: bytes) -> None:
    checkpoint = Checkpoint(ORIGIN, size, root)
    note = sign_checkpoint(checkpoint, signer())
    assert parse_checkpoint(note).checkpoint == checkpoint
    assert parse_checkpoint(note).note() == note


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)
MEMBERS = [
    *("actor", "action", "keys", "checks", "mode", "outcome", "policies"),
    *("statement", "seq", "public_keys", "purpose"),
]


@settings(max_examples=150, deadline=None)
@given(
    kind=st.sampled_from([entry.kind for entry in BUILT.log.state.entries]),
    extra=st.dictionaries(st.sampled_from(MEMBERS), json_values, max_size=4),
)
def test_a_body_with_any_members_is_refused_or_judged(
    kind: str, extra: dict[str, object]
) -> None:
    """Whatever JSON stands where the schema expects something else."""
    (entry,) = [e for e in BUILT.log.state.entries if e.kind == kind][:1]
    members = parse_json_object(entry.body, "body", limit=len(entry.body))
    try:
        body = parse_body(canonical_json({**members, **extra}))
    except KbsError:
        return
    for message in History(ORIGIN).problems_of(entry.index, body):
        assert message


class Nodes(dict[NodeId, bytes]):
    def read_nodes(self, ids: Sequence[NodeId]) -> Mapping[NodeId, bytes]:
        return {node: self[node] for node in ids if node in self}


@settings(max_examples=60, deadline=None)
@given(data=st.data(), batches=st.lists(st.integers(0, 40), min_size=1, max_size=8))
def test_proofs_hold_however_the_leaves_came_in(
    data: st.DataObject, batches: list[int]
) -> None:
    nodes, size, roots = Nodes(), 0, {0: merkle.root(Nodes(), 0)}
    for batch in batches:
        leaves = [leaf_hash(b"%d" % index) for index in range(size, size + batch)]
        grown = merkle.append(nodes, size, leaves)
        nodes.update(grown.nodes)
        size = grown.size
        roots[size] = grown.root
    for first, root in roots.items():
        verify_consistency(
            first=first,
            first_root=root,
            second=size,
            second_root=roots[size],
            proof=merkle.consistency_proof(nodes, first, size),
        )
    if size:
        index = data.draw(st.integers(0, size - 1))
        proof = merkle.inclusion_proof(nodes, index, size)
        leaf = leaf_hash(b"%d" % index)
        verify_inclusion(leaf, index=index, size=size, proof=proof, root=roots[size])
        other = data.draw(st.integers(0, size))
        if other != index:
            with pytest.raises(VerificationError):
                verify_inclusion(
                    leaf, index=other, size=size, proof=proof, root=roots[size]
                )


def test_an_entry_read_from_the_log_is_the_one_that_was_prepared() -> None:
    assert isinstance(ENTRY, LogEntry)
    assert parse_body(ENTRY.body).id == parse_leaf(ENTRY.leaf).id == ENTRY.id
