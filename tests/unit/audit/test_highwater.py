from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from kbs.audit import merkle
from kbs.audit.highwater import (
    HighWaterMark,
    check_extends,
    parse_mark,
    sign_mark,
    verify_mark,
)
from kbs.audit.proof import EMPTY_ROOT
from kbs.core.encode import canonical_json
from kbs.core.errors import IntegrityError, MalformedError
from tests.unit.audit.samples import INSTANCE, ORIGIN, release, signer, small_log

HEAD = "ab" * 32


def head_at(_: int) -> str:
    """Every chain of these tests leads to the same statement."""
    return HEAD


MARK = HighWaterMark(
    instance=INSTANCE,
    seq=2,
    head=HEAD,
    size=6,
    root=bytes(range(32)),
    collateral=4,
    keys=9,
)
FILE = sign_mark(MARK, signer())


def test_a_mark_is_one_line_signed_by_the_log_key() -> None:
    assert json.loads(FILE)["mark"] == {
        "typ": "kbs.highwater/1",
        "instance": INSTANCE,
        "seq": 2,
        "head": HEAD,
        "size": 6,
        "root": MARK.root.hex(),
        "collateral": 4,
        "keys": 9,
    }
    assert FILE.count(b"\n") == 1
    parsed = parse_mark(FILE)
    assert (parsed.mark, parsed.log) == (MARK, ORIGIN)
    assert parsed.key_hash == signer().key.key_hash
    assert verify_mark(FILE, keys=[signer(2).key, signer().key]) == MARK


def test_every_flipped_bit_of_the_file_is_refused() -> None:
    for place in range(len(FILE)):
        for bit in range(8):
            bad = bytearray(FILE)
            bad[place] ^= 1 << bit
            with pytest.raises(IntegrityError):
                verify_mark(bytes(bad), keys=[signer().key])


@pytest.mark.parametrize(
    "data", [b"", FILE[:-1], FILE + b"\n", FILE + FILE, b"x" * 9000]
)
def test_a_file_that_was_cut_or_lengthened_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedError):
        parse_mark(data)
    with pytest.raises(IntegrityError, match="accept-rollback"):
        verify_mark(data, keys=[signer().key])


Change = Callable[[dict[str, Any]], object]


@pytest.mark.parametrize(
    "change",
    [
        lambda f: f.pop("log"),
        lambda f: f.update(extra=1),
        lambda f: f.update(log="a b"),
        lambda f: f.update(key="00"),
        lambda f: f.update(signature=1),
        lambda f: f.update(mark=[]),
        lambda f: f["mark"].update(typ="kbs.highwater/2"),
        lambda f: f["mark"].update(instance="x"),
        lambda f: f["mark"].update(seq=-1),
        lambda f: f["mark"].update(size=True),
        lambda f: f["mark"].update(root="00"),
        lambda f: f["mark"].pop("seq"),
    ],
)
def test_a_file_of_another_shape_is_malformed(change: Change) -> None:
    document = json.loads(FILE)
    change(document)
    with pytest.raises(MalformedError):
        parse_mark(canonical_json(document) + b"\n")


def test_a_mark_by_an_unknown_key_is_refused() -> None:
    with pytest.raises(IntegrityError, match="high-water mark signature"):
        verify_mark(FILE, keys=[signer(2).key])
    with pytest.raises(IntegrityError, match="high-water mark signature"):
        verify_mark(FILE, keys=[])


def marked_log() -> tuple[HighWaterMark, Callable[[int], bytes], int]:
    """A log that grew by one entry after its mark was written."""
    built = small_log()
    with built.log.transaction() as transaction:
        mark = replace(MARK, root=merkle.root(transaction, 6))
    built.append(release())

    def root_at(size: int) -> bytes:
        with built.log.transaction() as transaction:
            return merkle.root(transaction, size)

    return mark, root_at, 7


def test_a_database_that_went_on_extends_the_mark() -> None:
    mark, root_at, size = marked_log()
    check_extends(
        mark,
        instance=INSTANCE,
        seq=3,
        size=size,
        collateral=4,
        keys=9,
        root_at=root_at,
        head_at=head_at,
    )
    at_mark = replace(mark, seq=3)
    check_extends(
        at_mark,
        instance=INSTANCE,
        seq=3,
        size=size,
        collateral=4,
        keys=9,
        root_at=root_at,
        head_at=head_at,
    )


def test_every_database_extends_an_empty_mark() -> None:
    _, root_at, _ = marked_log()
    empty = HighWaterMark(
        instance=INSTANCE,
        seq=0,
        head=HEAD,
        size=0,
        root=EMPTY_ROOT,
        collateral=0,
        keys=0,
    )
    check_extends(
        empty,
        instance=INSTANCE,
        seq=0,
        size=0,
        collateral=0,
        keys=0,
        root_at=root_at,
        head_at=head_at,
    )


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"instance": "00" * 16}, "another broker"),
        ({"size": 5}, "older than its high-water mark: log entries: got 5"),
        ({"collateral": 3}, "older than its high-water mark: imports of collateral"),
        ({"keys": 8}, "older than its high-water mark: changes of keys: got 8"),
        ({"seq": 1}, "older than its high-water mark: signed statements: got 1"),
        ({"root_at": lambda _: bytes(32)}, "the first 6 log entries were rewritten"),
        ({"head_at": lambda _: "00" * 32}, "signed statement 2 is another one"),
    ],
)
def test_a_database_that_does_not_extend_the_mark_is_refused(
    given: dict[str, Any], words: str
) -> None:
    mark, root_at, size = marked_log()
    arguments: dict[str, Any] = {
        "instance": INSTANCE,
        "seq": 2,
        "size": size,
        "collateral": 4,
        "keys": 9,
        "root_at": root_at,
        "head_at": head_at,
    }
    with pytest.raises(IntegrityError, match=words):
        check_extends(mark, **{**arguments, **given})


def test_the_root_is_asked_only_of_a_log_that_is_long_enough() -> None:
    def root_at(size: int) -> bytes:
        raise AssertionError(size)

    with pytest.raises(IntegrityError):
        check_extends(
            MARK,
            instance=INSTANCE,
            seq=2,
            size=5,
            collateral=4,
            keys=9,
            root_at=root_at,
            head_at=head_at,
        )
