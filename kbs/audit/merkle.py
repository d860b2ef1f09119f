"""The Merkle tree of RFC 6962 (section 2) and RFC 9162 (section 2.1).

Leaves hash as SHA-256(0x00 ‖ leaf), inner nodes as SHA-256(0x01 ‖ left ‖ right).
The tree is kept as the hashes of its complete subtrees, addressed by level and
position: node (l, i) covers the leaves i·2^l up to (i+1)·2^l. They never change, so an
append only adds nodes, and the root at any past size, inclusion proofs and
consistency proofs are read from O(log n) of them. What the nodes mean (checkpoints,
entries) is the business of other modules.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple, Protocol

from kbs.core.errors import IntegrityError, MalformedError, VerificationError

# RFC 9162, section 2.1.1: SHA-256 is the log's hash; the empty tree hashes nothing.
HASH_SIZE = 32
EMPTY_ROOT = hashlib.sha256(b"").digest()

# Leaves that any proof or tile can name: sizes are int64 in the Go implementations
# of C2SP tlog-checkpoint, and a signed 64-bit column in SQL.
MAX_SIZE = 2**63 - 1


class NodeId(NamedTuple):
    """The complete subtree of 2^level leaves at a position of its level, from 0."""

    level: int
    position: int


class NodeStore(Protocol):
    """Where the hashes of complete subtrees are read from."""

    def read_nodes(self, ids: Sequence[NodeId]) -> Mapping[NodeId, bytes]:
        """Return the hashes of those `ids` that are stored, in one read.

        Never more than 2·64 ids are asked for at once by the functions below; the
        tiles ask for 256.
        """
        ...


@dataclass(frozen=True, slots=True)
class Grown:
    """What an append adds: the new nodes, and the tree after it."""

    size: int
    root: bytes
    nodes: Mapping[NodeId, bytes]


class _Range(NamedTuple):
    """The leaves start … end-1, as the recursive definitions of the RFC split them."""

    start: int
    end: int


def leaf_hash(leaf: bytes) -> bytes:
    """Return the hash of a leaf."""
    return hashlib.sha256(b"\x00" + leaf).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of an inner node."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def append(store: NodeStore, size: int, leaf_hashes: Sequence[bytes]) -> Grown:
    """Append leaves to the tree of `size` leaves; nothing is written.

    Costs one read of at most 64 nodes, and two hashes a leaf on average.

    Raises:
        IntegrityError: the store lacks a node of the tree it is said to hold.
    """
    frontier = [
        (node, value) for node, value in _load(store, _cover(_Range(0, size))).items()
    ]
    added: dict[NodeId, bytes] = {}
    for index, value in enumerate(leaf_hashes, start=size):
        node = NodeId(0, index)
        added[node] = value
        while node.position & 1:
            _, left = frontier.pop()
            value = node_hash(left, value)  # noqa: PLW2901 - climbs to its parent
            node = NodeId(node.level + 1, node.position >> 1)
            added[node] = value
        frontier.append((node, value))
    root = _fold([value for _, value in frontier])
    return Grown(size + len(leaf_hashes), root, added)


def root(store: NodeStore, size: int) -> bytes:
    """Return the root of the first `size` leaves.

    Raises:
        IntegrityError: the store lacks a node.
    """
    return _range_hashes(store, [_Range(0, size)])[0]


def inclusion_proof(store: NodeStore, index: int, size: int) -> tuple[bytes, ...]:
    """Return the path of leaf `index` in the tree of `size` leaves, leaf side first.

    Raises:
        MalformedError: there is no such leaf in a tree of that size.
        IntegrityError: the store lacks a node.
    """
    if not 0 <= index < size:
        raise MalformedError(
            "leaf index", got=str(index), expected=f"0 to {size - 1} at size {size}"
        )
    # RFC 9162, section 2.1.3.1, from the root downwards.
    path = []
    start, end = 0, size
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            path.append(_Range(middle, end))
            end = middle
        else:
            path.append(_Range(start, middle))
            start = middle
    return _range_hashes(store, path[::-1])


def consistency_proof(store: NodeStore, first: int, second: int) -> tuple[bytes, ...]:
    """Return the proof that the tree of `second` leaves extends that of `first`.

    Raises:
        MalformedError: `first` is larger than `second`.
        IntegrityError: the store lacks a node.
    """
    if not 0 <= first <= second:
        raise MalformedError(
            "earlier tree size", got=str(first), expected=f"0 to {second}"
        )
    if first in (0, second):
        return ()
    # RFC 9162, section 2.1.4.1; `whole` is its b: the subtree starts at leaf 0, so
    # the verifier knows its hash already.
    path = []
    start, end, whole = 0, second, True
    while first != end:
        middle = start + _split(end - start)
        if first <= middle:
            path.append(_Range(middle, end))
            end = middle
        else:
            path.append(_Range(start, middle))
            start, whole = middle, False
    if not whole:
        path.append(_Range(start, end))
    return _range_hashes(store, path[::-1])


def verify_inclusion(
    leaf: bytes, *, index: int, size: int, proof: Sequence[bytes], root: bytes
) -> None:
    """Check that the leaf with hash `leaf` is number `index` under `root`.

    Raises:
        VerificationError: it is not, or the proof has another length.
    """
    if not 0 <= index < size:
        raise VerificationError(
            "inclusion proof",
            got=f"leaf {index} of a tree of {size}",
            expected="an index below the size",
            code="audit.inclusion",
        )
    # RFC 9162, section 2.1.3.2.
    place, last, value = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            break
        if place & 1 or place == last:
            value = node_hash(sibling, value)
            place, last = _skip_even(place, last)
        else:
            value = node_hash(value, sibling)
        place, last = place >> 1, last >> 1
    else:
        if last == 0 and value == root:
            return
    raise VerificationError(
        f"inclusion proof of leaf {index} in a tree of {size}",
        got=f"{len(proof)} hashes that lead to {value.hex()}",
        expected=f"{_path_length(index, size)} hashes that lead to {root.hex()}",
        code="audit.inclusion",
    )


def verify_consistency(
    *,
    first: int,
    first_root: bytes,
    second: int,
    second_root: bytes,
    proof: Sequence[bytes],
) -> None:
    """Check that the tree of `second` leaves begins with that of `first` leaves.

    Raises:
        VerificationError: it does not, or the proof has another length.
    """
    roots = _consistency_roots(first, first_root, second, second_root, proof)
    if roots == (first_root, second_root):
        return
    raise VerificationError(
        f"consistency proof from {first} to {second} leaves",
        got="a proof of another shape"
        if roots is None
        else f"roots {roots[0].hex()} and {roots[1].hex()}",
        expected=f"roots {first_root.hex()} and {second_root.hex()}",
        hint="the log was rewritten, or the proof belongs to another pair of sizes",
        code="audit.consistency",
    )


def _consistency_roots(
    first: int,
    first_root: bytes,
    second: int,
    second_root: bytes,
    proof: Sequence[bytes],
) -> tuple[bytes, bytes] | None:
    """Return both roots that the proof leads to; None if its shape is wrong."""
    if not 0 <= first <= second:
        return None
    if first == second:
        return None if proof else (first_root, first_root)
    if first == 0:
        return None if proof else (EMPTY_ROOT, second_root)
    # RFC 9162, section 2.1.4.2.
    path = list(proof)
    if first & (first - 1) == 0:
        path.insert(0, first_root)
    return _climb(first - 1, second - 1, path) if path else None


def _climb(place: int, last: int, path: list[bytes]) -> tuple[bytes, bytes] | None:
    while place & 1:
        place, last = place >> 1, last >> 1
    old = new = path[0]
    for value in path[1:]:
        if last == 0:
            return None
        if place & 1 or place == last:
            old, new = node_hash(value, old), node_hash(value, new)
            place, last = _skip_even(place, last)
        else:
            new = node_hash(new, value)
        place, last = place >> 1, last >> 1
    return (old, new) if last == 0 else None


def _skip_even(place: int, last: int) -> tuple[int, int]:
    # A last node without a sibling moves up until it is a right child.
    while place and not place & 1:
        place, last = place >> 1, last >> 1
    return place, last


def _path_length(index: int, size: int) -> int:
    # Below the point where the paths of this leaf and the last one join, every level
    # has a sibling; above it only the set bits of the index do.
    inner = (index ^ (size - 1)).bit_length()
    return inner + (index >> inner).bit_count()


def _split(width: int) -> int:
    """Return the largest power of two below `width`."""
    return 1 << (width - 1).bit_length() - 1


def _cover(leaves: _Range) -> list[NodeId]:
    """Return the complete subtrees that make up a range, left to right.

    Every range of the RFC's recursion starts at a multiple of the power of two that
    its width rounds up to, so the widths of the subtrees only shrink.
    """
    start, nodes = leaves.start, []
    while start < leaves.end:
        level = (leaves.end - start).bit_length() - 1
        nodes.append(NodeId(level, start >> level))
        start += 1 << level
    return nodes


def _range_hashes(store: NodeStore, ranges: Sequence[_Range]) -> tuple[bytes, ...]:
    covers = [_cover(leaves) for leaves in ranges]
    known = _load(store, list(chain.from_iterable(covers)))
    return tuple(_fold([known[node] for node in cover]) for cover in covers)


def _fold(hashes: Sequence[bytes]) -> bytes:
    """Join complete subtrees, left to right, into the hash of their range."""
    if not hashes:
        return EMPTY_ROOT
    value = hashes[-1]
    for left in reversed(hashes[:-1]):
        value = node_hash(left, value)
    return value


def _load(store: NodeStore, ids: Sequence[NodeId]) -> dict[NodeId, bytes]:
    known = store.read_nodes(ids) if ids else {}
    for node in ids:
        if len(known.get(node, b"")) != HASH_SIZE:
            raise IntegrityError(
                f"log tree node {node.position} of level {node.level}",
                got="nothing" if node not in known else f"{len(known[node])} bytes",
                expected=f"{HASH_SIZE} bytes",
                hint="the log's stored nodes were damaged; run kbs audit verify",
            )
    return {node: known[node] for node in ids}
