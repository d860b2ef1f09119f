from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from kbs.audit import merkle
from kbs.audit.receipt import Receipt, parse_receipt, read_receipt, verify_receipt
from kbs.core.encode import b64, canonical_json
from kbs.core.errors import KbsError, MalformedError, VerificationError
from tests.unit.audit.samples import ORIGIN, BuiltLog, signer, small_log


def receipt(built: BuiltLog, index: int, *, body: bool = True) -> Receipt:
    with built.log.transaction() as transaction:
        entry = transaction.read_entries(index, index + 1)[0]
        size = transaction.head().size
        path = merkle.inclusion_proof(transaction, index, size)
    return Receipt(
        leaf=entry.leaf,
        index=index,
        checkpoint=built.note,
        inclusion=path,
        body=entry.body if body else None,
        salt=entry.salt if body else None,
    )


@pytest.fixture(scope="module")
def built() -> BuiltLog:
    return small_log()


@pytest.fixture(scope="module")
def grant(built: BuiltLog) -> Receipt:
    return receipt(built, 2)


def test_a_receipt_for_every_entry_verifies_offline(built: BuiltLog) -> None:
    for index, entry in enumerate(built.log.state.entries):
        made = receipt(built, index)
        read = parse_receipt(made.serialize())
        assert read == made
        found = verify_receipt(read, keys=built.keys, origin=ORIGIN)
        assert (found.index, found.leaf.id, found.key) == (
            index,
            entry.id,
            built.keys[0],
        )
        assert found.checkpoint.size == 6
        assert found.body is not None
        assert found.body.serialize() == entry.body


def test_a_receipt_without_body_proves_the_leaf_alone(built: BuiltLog) -> None:
    made = receipt(built, 3, body=False)
    document = made.to_json()
    assert document.keys() == {"format", "leaf", "index", "checkpoint", "inclusion"}
    found = verify_receipt(read_receipt(document), keys=built.keys, origin=ORIGIN)
    assert found.body is None
    assert found.leaf.kind == "release.denied"


def test_a_receipt_may_be_written_with_white_space(grant: Receipt) -> None:
    assert parse_receipt(json.dumps(grant.to_json(), indent=2).encode()) == grant


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"index": 3}, "audit.inclusion"),
        ({"index": 6}, "audit.inclusion"),
        ({"inclusion": ()}, "audit.inclusion"),
        ({"inclusion": (bytes(32),) * 3}, "audit.inclusion"),
        ({"leaf": b"{}"}, "audit.inclusion"),
        ({"salt": bytes(16)}, "audit.body"),
        ({"body": b"{}"}, "audit.body"),
        ({"checkpoint": b"junk"}, "malformed"),
    ],
)
def test_a_receipt_that_was_changed_is_refused(
    built: BuiltLog, grant: Receipt, change: dict[str, Any], code: str
) -> None:
    with pytest.raises(KbsError) as caught:
        verify_receipt(replace(grant, **change), keys=built.keys, origin=ORIGIN)
    assert caught.value.code == code


def test_the_checkpoint_must_be_of_this_log_and_of_a_known_key(
    built: BuiltLog, grant: Receipt
) -> None:
    with pytest.raises(VerificationError) as caught:
        verify_receipt(grant, keys=built.keys, origin="other.example")
    assert caught.value.code == "audit.checkpoint.origin"
    with pytest.raises(VerificationError) as caught:
        verify_receipt(grant, keys=[signer(2).key], origin=ORIGIN)
    assert caught.value.code == "audit.checkpoint.signer"


def test_a_leaf_in_the_tree_that_is_no_entry_is_refused(built: BuiltLog) -> None:
    """The log's key would have to sign such a tree; still nothing believes it."""
    from kbs.audit.checkpoint import Checkpoint, sign_checkpoint
    from kbs.audit.proof import leaf_hash

    note = sign_checkpoint(Checkpoint(ORIGIN, 1, leaf_hash(b"{}")), signer())
    made = Receipt(leaf=b"{}", index=0, checkpoint=note, inclusion=())
    with pytest.raises(MalformedError):
        verify_receipt(made, keys=built.keys, origin=ORIGIN)


def test_every_flipped_bit_of_a_receipt_is_refused(
    built: BuiltLog, grant: Receipt
) -> None:
    good = grant.serialize()
    for place in range(len(good)):
        bad = bytearray(good)
        bad[place] ^= 1 << (place % 7)
        with pytest.raises((MalformedError, VerificationError)):
            verify_receipt(parse_receipt(bytes(bad)), keys=built.keys, origin=ORIGIN)


Change = Callable[[dict[str, Any]], object]


@pytest.mark.parametrize(
    "change",
    [
        lambda r: r.update(format="kbs.receipt/2"),
        lambda r: r.pop("leaf"),
        lambda r: r.update(extra=1),
        lambda r: r.pop("salt"),
        lambda r: r.pop("body"),
        lambda r: r.update(body="text"),
        lambda r: r.update(salt=b64(bytes(15))),
        lambda r: r.update(salt="****"),
        lambda r: r.update(index=-1),
        lambda r: r.update(index=True),
        lambda r: r.update(leaf="x" * 2000),
        lambda r: r.update(leaf="\ud800"),
        lambda r: r.update(checkpoint=None),
        lambda r: r.update(inclusion={}),
        lambda r: r.update(inclusion=[b64(bytes(32))] * 65),
        lambda r: r.update(inclusion=[b64(bytes(31))]),
        lambda r: r.update(inclusion=[0]),
    ],
)
def test_a_receipt_of_another_shape_is_malformed(
    grant: Receipt, change: Change
) -> None:
    document = grant.to_json()
    change(document)
    with pytest.raises(MalformedError):
        read_receipt(document)


@pytest.mark.parametrize("data", [b"", b"[]", b"\xff", b"{}", canonical_json(None)])
def test_what_is_no_receipt_is_malformed(data: bytes) -> None:
    with pytest.raises(MalformedError):
        parse_receipt(data)
