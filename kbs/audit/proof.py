"""Proofs of an RFC 6962 tree, checked without the tree.

RFC 6962, section 2.1, and RFC 9162, sections 2.1.3.2 and 2.1.4.2: a leaf is in a tree
of a given root, and a larger tree begins with a smaller one. A guest image carries this
module, and `kbs.audit.merkle`, which makes the proofs, stays with the broker.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from kbs.core.errors import VerificationError

# RFC 9162, section 2.1.1: SHA-256 is the log's hash; the empty tree hashes nothing.
HASH_SIZE = 32
EMPTY_ROOT = hashlib.sha256(b"").digest()

# Sizes are int64 in the Go implementations of C2SP, and a signed 64-bit column in SQL.
MAX_SIZE = 2**63 - 1

# The longest proof between trees of such sizes: RFC 9162, section 2.1.4, adds one.
MAX_PROOF = 64


def leaf_hash(leaf: bytes) -> bytes:
    """Return the hash of a leaf."""
    return hashlib.sha256(b"\x00" + leaf).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of an inner node."""
    return hashlib.sha256(b"\x01" + left + right).digest()


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
