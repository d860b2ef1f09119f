from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from kbs.audit import merkle
from kbs.audit.merkle import Frontier, NodeId
from kbs.audit.proof import leaf_hash, node_hash
from kbs.audit.tiles import Tile, entry_bundle, parse_bundle, parse_path, read_tile
from kbs.core.errors import IntegrityError, MalformedError, NotFoundError


class Nodes(dict[NodeId, bytes]):
    def read_nodes(self, ids: Sequence[NodeId]) -> Mapping[NodeId, bytes]:
        return {node: self[node] for node in ids if node in self}


SIZE = 256 * 256 + 300


@pytest.fixture(scope="module")
def tree() -> Nodes:
    nodes = Nodes()
    hashes = [leaf_hash(index.to_bytes(4, "big")) for index in range(SIZE)]
    nodes.update(merkle.append(nodes, 0, hashes).nodes)
    return nodes


@pytest.mark.parametrize(
    ("path", "tile"),
    [
        ("tile/0/000", Tile(0, 0)),
        ("tile/0/x001/x234/067", Tile(0, 1234067)),
        ("tile/3/x001/000.p/17", Tile(3, 1000, 17)),
        ("tile/7/999", Tile(7, 999)),
        ("tile/entries/255.p/255", Tile(None, 255, 255)),
        ("tile/entries/x999/999", Tile(None, 999999)),
    ],
)
def test_a_path_is_read_and_written_the_same(path: str, tile: Tile) -> None:
    assert parse_path(path) == tile
    assert tile.path == path


@pytest.mark.parametrize(
    "path",
    [
        "",
        "tile/0/0",
        "tile/0/00",
        "tile/0/0000",
        "tile/0/x000/001",
        "tile/0/001/002",
        "tile/0/x001/x002",
        "tile/8/000",
        "tile/00/000",
        "tile/-1/000",
        "tile/0/000.p/0",
        "tile/0/000.p/256",
        "tile/0/000.p/999",
        "tile/0/000.p/01",
        "tile/0/000.p/",
        "tile/0/000\n",
        "/tile/0/000",
        "tile/data/000",
        "tile/entries/٠٠٠",
        "tile/0/x999/x999/x999/x999/x999/x999/999",
        "tile/0/../000",
    ],
)
def test_another_spelling_of_a_path_is_refused(path: str) -> None:
    with pytest.raises(MalformedError):
        parse_path(path)


def test_the_tiles_of_the_lowest_level_hold_the_leaf_hashes(tree: Nodes) -> None:
    full = read_tile(tree, parse_path("tile/0/001"), SIZE)
    assert full == b"".join(tree[NodeId(0, 256 + offset)] for offset in range(256))


def test_partial_tiles_give_the_root_of_the_tree(tree: Nodes) -> None:
    """Size 65836 is one full tile of level 1, one full and one partial of level 0."""
    top = read_tile(tree, parse_path("tile/2/000.p/1"), SIZE)
    middle = read_tile(tree, parse_path("tile/1/001.p/1"), SIZE)
    last = read_tile(tree, parse_path("tile/0/257.p/44"), SIZE)
    frontier = Frontier()
    for place in range(44):
        frontier.add(last[32 * place : 32 * place + 32])
    root = node_hash(top, node_hash(middle, frontier.root()))
    assert root == merkle.root(tree, SIZE)


@pytest.mark.parametrize(
    "path",
    [
        "tile/0/257",
        "tile/0/257.p/45",
        "tile/0/258.p/1",
        "tile/1/001.p/2",
        "tile/2/000.p/2",
        "tile/2/000",
        "tile/3/000.p/1",
        "tile/7/000.p/1",
        "tile/entries/000",
    ],
)
def test_a_tile_that_is_not_there_yet_is_not_found(tree: Nodes, path: str) -> None:
    with pytest.raises(NotFoundError):
        read_tile(tree, parse_path(path), SIZE)


def test_a_bundle_must_be_within_the_tree_as_well() -> None:
    parse_path("tile/entries/001.p/44").require_within(300)
    with pytest.raises(NotFoundError) as caught:
        parse_path("tile/entries/001.p/45").require_within(300)
    assert caught.value.got == "44 of 45 hashes"


def test_a_tile_with_a_missing_node_is_damage(tree: Nodes) -> None:
    damaged = Nodes(tree)
    del damaged[NodeId(0, 300)]
    with pytest.raises(IntegrityError, match="no node 300 of level 0"):
        read_tile(damaged, parse_path("tile/0/001"), SIZE)


def test_a_bundle_is_leaves_with_16_bit_lengths() -> None:
    assert entry_bundle([b"ab", b""]) == b"\x00\x02ab\x00\x00"
    assert parse_bundle(b"\x00\x02ab\x00\x00") == (b"ab", b"")
    assert parse_bundle(b"") == ()


def test_a_bundle_holds_256_leaves_of_65535_bytes_at_most() -> None:
    assert len(parse_bundle(entry_bundle([b""] * 256))) == 256
    with pytest.raises(MalformedError):
        entry_bundle([b""] * 257)
    with pytest.raises(MalformedError):
        parse_bundle(bytes(2 * 257))
    assert parse_bundle(entry_bundle([bytes(65535)])) == (bytes(65535),)
    with pytest.raises(MalformedError):
        entry_bundle([bytes(65536)])


@pytest.mark.parametrize("data", [b"\x00", b"\x00\x02a", b"\x00\x00\x00"])
def test_a_bundle_that_was_cut_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedError):
        parse_bundle(data)
