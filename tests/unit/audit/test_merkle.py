"""Every leaf of every size to 256 and every pair of sizes, against the recursion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

import pytest

from kbs.audit import merkle
from kbs.audit.merkle import NodeId
from kbs.audit.proof import (
    EMPTY_ROOT,
    leaf_hash,
    node_hash,
    verify_consistency,
    verify_inclusion,
)
from kbs.core.errors import IntegrityError, MalformedError, VerificationError

LARGEST = 256
LEAVES = [leaf_hash(b"leaf %d" % index) for index in range(LARGEST + 1)]


class Nodes(dict[NodeId, bytes]):
    """A node store that counts what it is asked for."""

    asked = 0

    def read_nodes(self, ids: Sequence[NodeId]) -> Mapping[NodeId, bytes]:
        self.asked += len(ids)
        return {node: self[node] for node in ids if node in self}


@cache
def naive_root(start: int, end: int) -> bytes:
    """The definition: RFC 6962, section 2.1."""
    if start == end:
        return EMPTY_ROOT
    if end - start == 1:
        return LEAVES[start]
    split = 1
    while split * 2 < end - start:
        split *= 2
    return node_hash(naive_root(start, start + split), naive_root(start + split, end))


def naive_path(index: int, start: int, end: int) -> list[bytes]:
    """The definition: RFC 6962, section 2.1.1."""
    if end - start == 1:
        return []
    split = 1
    while split * 2 < end - start:
        split *= 2
    middle = start + split
    if index < middle:
        return [*naive_path(index, start, middle), naive_root(middle, end)]
    return [*naive_path(index, middle, end), naive_root(start, middle)]


def naive_subproof(first: int, start: int, end: int, *, whole: bool) -> list[bytes]:
    """The definition: RFC 6962, section 2.1.2."""
    if first == end - start:
        return [] if whole else [naive_root(start, end)]
    split = 1
    while split * 2 < end - start:
        split *= 2
    middle = start + split
    if first <= split:
        below = naive_subproof(first, start, middle, whole=whole)
        return [*below, naive_root(middle, end)]
    below = naive_subproof(first - split, middle, end, whole=False)
    return [*below, naive_root(start, middle)]


@pytest.fixture(scope="module")
def tree() -> Nodes:
    nodes = Nodes()
    nodes.update(merkle.append(nodes, 0, LEAVES[:LARGEST]).nodes)
    return nodes


def test_every_root_is_that_of_the_definition(tree: Nodes) -> None:
    for size in range(LARGEST + 1):
        assert merkle.root(tree, size) == naive_root(0, size)


def test_every_leaf_of_every_size_is_proven_included(tree: Nodes) -> None:
    for size in range(1, LARGEST + 1):
        root = naive_root(0, size)
        for index in range(size):
            proof = merkle.inclusion_proof(tree, index, size)
            verify_inclusion(
                LEAVES[index], index=index, size=size, proof=proof, root=root
            )


def test_inclusion_proofs_are_those_of_the_definition(tree: Nodes) -> None:
    for size in (1, 2, 3, 7, 8, 100, 255, 256):
        for index in range(size):
            found = merkle.inclusion_proof(tree, index, size)
            assert list(found) == naive_path(index, 0, size)


def test_every_pair_of_sizes_is_proven_consistent(tree: Nodes) -> None:
    for second in range(LARGEST + 1):
        for first in range(second + 1):
            verify_consistency(
                first=first,
                first_root=naive_root(0, first),
                second=second,
                second_root=naive_root(0, second),
                proof=merkle.consistency_proof(tree, first, second),
            )


def test_consistency_proofs_are_those_of_the_definition(tree: Nodes) -> None:
    for second in (2, 3, 7, 8, 100, 255, 256):
        for first in range(1, second):
            found = merkle.consistency_proof(tree, first, second)
            assert list(found) == naive_subproof(first, 0, second, whole=True)


@pytest.mark.parametrize("start", [0, 1, 3, 7, 8, 100, 255])
@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_a_batch_gives_the_nodes_that_single_appends_give(
    start: int, count: int
) -> None:
    batch, single = Nodes(), Nodes()
    for nodes in (batch, single):
        nodes.update(merkle.append(nodes, 0, LEAVES[:start]).nodes)
    end = min(start + count, len(LEAVES))
    grown = merkle.append(batch, start, LEAVES[start:end])
    assert batch.keys().isdisjoint(grown.nodes)
    # Of what the append read and made, every new leaf can be proven.
    known = merkle.KnownNodes({**grown.edge, **grown.nodes})
    proofs = [merkle.inclusion_proof(known, index, end) for index in range(start, end)]
    batch.update(grown.nodes)
    for index in range(start, end):
        single.update(merkle.append(single, index, LEAVES[index : index + 1]).nodes)
    assert batch == single
    for index, found in zip(range(start, end), proofs, strict=True):
        assert found == merkle.inclusion_proof(batch, index, end)
    assert (grown.size, grown.root) == (end, naive_root(0, end))


def test_an_append_and_a_proof_read_a_logarithm_of_nodes() -> None:
    nodes, size = Nodes(), 3000
    nodes.update(merkle.append(nodes, 0, [LEAVES[0]] * size).nodes)
    assert len(nodes) < 2 * size
    for work in (
        lambda: merkle.append(nodes, size, LEAVES[:50]),
        lambda: merkle.inclusion_proof(nodes, 1717, size),
        lambda: merkle.consistency_proof(nodes, 1717, size),
        lambda: merkle.root(nodes, 1717),
    ):
        nodes.asked = 0
        work()
        assert nodes.asked <= 2 * size.bit_length()


def test_a_missing_or_short_node_is_reported_as_damage(tree: Nodes) -> None:
    damaged = Nodes(tree)
    del damaged[NodeId(3, 0)]
    with pytest.raises(IntegrityError, match="node 0 of level 3: got nothing"):
        merkle.root(damaged, 9)
    damaged[NodeId(3, 0)] = b"short"
    with pytest.raises(IntegrityError, match="got 5 bytes"):
        merkle.inclusion_proof(damaged, 8, 9)


@pytest.mark.parametrize(("index", "size"), [(0, 0), (5, 5), (-1, 5), (6, 5)])
def test_no_proof_of_a_leaf_that_is_not_there(
    tree: Nodes, index: int, size: int
) -> None:
    with pytest.raises(MalformedError):
        merkle.inclusion_proof(tree, index, size)
    with pytest.raises(VerificationError):
        verify_inclusion(LEAVES[0], index=index, size=size, proof=(), root=LEAVES[0])


@pytest.mark.parametrize(("first", "second"), [(-1, 5), (6, 5)])
def test_no_proof_between_sizes_that_do_not_follow(
    tree: Nodes, first: int, second: int
) -> None:
    with pytest.raises(MalformedError):
        merkle.consistency_proof(tree, first, second)
    with pytest.raises(VerificationError):
        verify_consistency(
            first=first,
            first_root=LEAVES[0],
            second=second,
            second_root=LEAVES[0],
            proof=(),
        )


def wrong(proof: Sequence[bytes]) -> list[list[bytes]]:
    """Every proof that differs in one place, in length or in order."""
    proofs = [[*proof, LEAVES[0]], [LEAVES[0], *proof]]
    for place in range(len(proof)):
        proofs.append([*proof[:place], *proof[place + 1 :]])
        proofs.append([*proof[:place], LEAVES[200], *proof[place + 1 :]])
    return proofs


def test_a_changed_inclusion_proof_is_refused(tree: Nodes) -> None:
    for size in (1, 2, 3, 6, 7, 8, 13):
        root = naive_root(0, size)
        for index in range(size):
            good = merkle.inclusion_proof(tree, index, size)
            for proof in wrong(good):
                with pytest.raises(VerificationError) as caught:
                    verify_inclusion(
                        LEAVES[index], index=index, size=size, proof=proof, root=root
                    )
                assert caught.value.code == "audit.inclusion"
            with pytest.raises(VerificationError):
                verify_inclusion(
                    LEAVES[index], index=index, size=size, proof=good, root=LEAVES[99]
                )
            with pytest.raises(VerificationError):
                verify_inclusion(
                    LEAVES[99], index=index, size=size, proof=good, root=root
                )


def test_the_refusal_of_an_inclusion_says_how_long_the_path_is(tree: Nodes) -> None:
    for size in range(1, 40):
        for index in range(size):
            good = merkle.inclusion_proof(tree, index, size)
            with pytest.raises(VerificationError) as caught:
                verify_inclusion(
                    LEAVES[index], index=index, size=size, proof=good, root=LEAVES[99]
                )
            assert caught.value.expected is not None
            assert caught.value.expected.startswith(f"{len(good)} hashes")


def test_a_changed_consistency_proof_is_refused(tree: Nodes) -> None:
    for second in (1, 2, 3, 6, 7, 8, 13):
        for first in range(second + 1):
            good = merkle.consistency_proof(tree, first, second)
            for proof in wrong(good):
                with pytest.raises(VerificationError) as caught:
                    verify_consistency(
                        first=first,
                        first_root=naive_root(0, first),
                        second=second,
                        second_root=naive_root(0, second),
                        proof=proof,
                    )
                assert caught.value.code == "audit.consistency"


@pytest.mark.parametrize(("first", "second"), [(0, 5), (3, 8), (4, 8), (8, 8)])
def test_consistency_with_another_root_is_refused(
    tree: Nodes, first: int, second: int
) -> None:
    proof = merkle.consistency_proof(tree, first, second)
    roots = {"first_root": naive_root(0, first), "second_root": naive_root(0, second)}
    for name in roots:
        if (first, name) == (0, "second_root"):
            continue  # any tree extends the empty one
        changed = {**roots, name: LEAVES[99]}
        with pytest.raises(VerificationError):
            verify_consistency(first=first, second=second, proof=proof, **changed)


def test_a_frontier_gives_every_root_in_a_stream() -> None:
    frontier = merkle.Frontier()
    for index in range(LARGEST):
        assert frontier.root() == naive_root(0, index)
        frontier.add(LEAVES[index])
    assert frontier.size == LARGEST
