"""Known answers: the RFC 6962 test tree of Certificate Transparency, and Go's notes.

The tree, its roots and proofs are those of the reference implementation's own tests
(google/certificate-transparency, merkle_tree_test); the notes are the example in the
documentation of golang.org/x/mod/sumdb/note and the public key of sum.golang.org.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from kbs.audit import merkle
from kbs.audit.logkey import parse_vkey
from kbs.audit.merkle import NodeId
from kbs.audit.proof import EMPTY_ROOT, leaf_hash, verify_consistency, verify_inclusion
from kbs.core.encode import parse_b64

LEAVES = [
    bytes.fromhex(text)
    for text in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
L1 = "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7"
L4 = "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b"
N23 = "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e"
N45 = "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a"
N67 = "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0"
N4567 = "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4"

INCLUSION = [
    (0, 1, []),
    (0, 8, [L1, N23, N4567]),
    (5, 8, [L4, N67, ROOTS[4]]),
    (2, 3, [ROOTS[2]]),
    (1, 5, [ROOTS[1], N23, L4]),
]
CONSISTENCY = [
    (1, 1, []),
    (1, 8, [L1, N23, N4567]),
    (6, 8, [N45, N67, ROOTS[4]]),
    (2, 5, [N23, L4]),
]


class Nodes(dict[NodeId, bytes]):
    def read_nodes(self, ids: Sequence[NodeId]) -> Mapping[NodeId, bytes]:
        return {node: self[node] for node in ids if node in self}


@pytest.fixture(scope="module")
def tree() -> Nodes:
    nodes = Nodes()
    hashes = [leaf_hash(leaf) for leaf in LEAVES]
    nodes.update(merkle.append(nodes, 0, hashes).nodes)
    return nodes


def test_the_empty_tree_has_the_hash_of_nothing() -> None:
    assert EMPTY_ROOT.hex() == ROOTS[0]


@pytest.mark.parametrize("size", range(9))
def test_roots(tree: Nodes, size: int) -> None:
    assert merkle.root(tree, size).hex() == ROOTS[size]


@pytest.mark.parametrize(("index", "size", "path"), INCLUSION)
def test_inclusion_proofs(tree: Nodes, index: int, size: int, path: list[str]) -> None:
    proof = merkle.inclusion_proof(tree, index, size)
    assert [value.hex() for value in proof] == path
    verify_inclusion(
        leaf_hash(LEAVES[index]),
        index=index,
        size=size,
        proof=proof,
        root=bytes.fromhex(ROOTS[size]),
    )


@pytest.mark.parametrize(("first", "second", "path"), CONSISTENCY)
def test_consistency_proofs(
    tree: Nodes, first: int, second: int, path: list[str]
) -> None:
    proof = merkle.consistency_proof(tree, first, second)
    assert [value.hex() for value in proof] == path
    verify_consistency(
        first=first,
        first_root=bytes.fromhex(ROOTS[first]),
        second=second,
        second_root=bytes.fromhex(ROOTS[second]),
        proof=proof,
    )


@pytest.mark.parametrize(
    "vkey",
    [
        "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8",
        "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
    ],
)
def test_keys_of_others_have_the_hash_that_they_say(vkey: str) -> None:
    assert parse_vkey(vkey).vkey == vkey


def test_a_note_signed_by_the_go_implementation_verifies() -> None:
    key = parse_vkey(
        "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
    )
    text = (
        b"If you think cryptography is the answer to your problem,\n"
        b"then you don't know what your problem is.\n"
    )
    line = parse_b64(
        "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6K"
        "E6RyyBwJnAM=",
        "signature",
        limit=68,
    )
    assert line[:4] == key.key_hash
    assert key.is_signature(line[4:], text)
    assert not key.is_signature(line[4:], text[:-1])
