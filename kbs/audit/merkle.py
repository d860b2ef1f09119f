"""The Merkle tree of RFC 6962 (section 2) and RFC 9162 (section 2.1).

Leaves hash as SHA-256(0x00 ‖ leaf), inner nodes as SHA-256(0x01 ‖ left ‖ right).
The tree is kept as the hashes of its complete subtrees, addressed by level and
position: node (l, i) covers the leaves i·2^l up to (i+1)·2^l. They never change, so an
append only adds nodes, and the root at any past size, inclusion proofs and
consistency proofs are read from O(log n) of them. What the nodes mean (checkpoints,
entries) is the business of other modules.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple, Protocol

from kbs.audit.proof import EMPTY_ROOT, HASH_SIZE, node_hash
from kbs.core.errors import IntegrityError, MalformedError


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
    """What an append adds: the new nodes, and the tree after it.

    `edge` has the nodes that were read, `before` is the root that they had.
    """

    size: int
    root: bytes
    nodes: Mapping[NodeId, bytes]
    edge: Mapping[NodeId, bytes]
    before: bytes


class KnownNodes:
    """Nodes that are at hand, as a store.

    What an append read and what it added is all that the proofs of the new leaves need:
    to the left of a new leaf lie complete subtrees, old ones at the edge and new ones.
    """

    def __init__(self, known: Mapping[NodeId, bytes]) -> None:
        """Know these nodes, and no others."""
        self._known = known

    def read_nodes(self, ids: Sequence[NodeId]) -> Mapping[NodeId, bytes]:
        """Return all nodes that are known, those of `ids` among them."""
        del ids
        return self._known


class Frontier:
    """The complete subtrees at the right edge of a growing tree.

    Holds at most 64 hashes, so that a root over any number of leaves can be computed
    in a stream.
    """

    __slots__ = ("_edge", "_size")

    def __init__(
        self, size: int = 0, edge: Mapping[NodeId, bytes] | None = None
    ) -> None:
        """Start at a tree of `size` leaves.

        `edge` are its complete subtrees, largest first, which is from left to right.
        """
        self._size = size
        self._edge = list((edge or {}).items())

    @property
    def size(self) -> int:
        """How many leaves there are."""
        return self._size

    def add(self, value: bytes) -> list[tuple[NodeId, bytes]]:
        """Append a leaf by its hash; return every subtree that it completes."""
        node = NodeId(0, self._size)
        completed = [(node, value)]
        while node.position & 1:
            _, left = self._edge.pop()
            value = node_hash(left, value)
            node = NodeId(node.level + 1, node.position >> 1)
            completed.append((node, value))
        self._edge.append((node, value))
        self._size += 1
        return completed

    def root(self) -> bytes:
        """Return the root of the tree as it is now."""
        return _fold([value for _, value in self._edge])


def append(store: NodeStore, size: int, leaf_hashes: Sequence[bytes]) -> Grown:
    """Append leaves to the tree of `size` leaves; nothing is written.

    Costs one read of at most 64 nodes, and two hashes a leaf on average.

    Raises:
        IntegrityError: the store lacks a node of the tree it is said to hold.
    """
    edge = _load(store, _cover(0, size))
    frontier = Frontier(size, edge)
    before = frontier.root()
    added: dict[NodeId, bytes] = {}
    for value in leaf_hashes:
        added.update(frontier.add(value))
    return Grown(frontier.size, frontier.root(), added, edge, before)


def root(store: NodeStore, size: int) -> bytes:
    """Return the root of the first `size` leaves.

    Raises:
        IntegrityError: the store lacks a node.
    """
    return _hashes(store, [_cover(0, size)])[0]


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
        left = _left(start, end)
        middle = start + (1 << left.level)
        if index < middle:
            path.append(_cover(middle, end))
            end = middle
        else:
            path.append([left])
            start = middle
    return _hashes(store, path[::-1])


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
        left = _left(start, end)
        middle = start + (1 << left.level)
        if first <= middle:
            path.append(_cover(middle, end))
            end = middle
        else:
            path.append([left])
            start, whole = middle, False
    if not whole:
        path.append(_cover(start, end))
    return _hashes(store, path[::-1])


def _left(start: int, end: int) -> NodeId:
    """Return the left part of a range that the RFC's recursion splits.

    It is as wide as the largest power of two below the width, and complete: every
    range of the recursion starts at a multiple of the power of two that its width
    rounds up to.
    """
    level = (end - start - 1).bit_length() - 1
    return NodeId(level, start >> level)


def _cover(start: int, end: int) -> list[NodeId]:
    """Return the complete subtrees that make up a range, left to right.

    Where a range of the RFC's recursion starts, their widths only shrink.
    """
    nodes = []
    while start < end:
        level = (end - start).bit_length() - 1
        nodes.append(NodeId(level, start >> level))
        start += 1 << level
    return nodes


def _hashes(store: NodeStore, covers: Sequence[Sequence[NodeId]]) -> tuple[bytes, ...]:
    """Return the hash of each of several ranges, given by what makes them up."""
    known = _load(store, list(chain.from_iterable(covers)))
    return tuple([_fold([known[node] for node in cover]) for cover in covers])


def _fold(hashes: Sequence[bytes]) -> bytes:
    """Join complete subtrees, left to right, into the hash of their range."""
    if not hashes:
        return EMPTY_ROOT
    value = hashes[-1]
    for left in hashes[-2::-1]:
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
