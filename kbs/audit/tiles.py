"""The log as C2SP tlog-tiles: files that never change, for monitors and witnesses.

https://c2sp.org/tlog-tiles: tile (L, N) holds up to 256 hashes of level 8·L, from
position 256·N on; an entry bundle holds the 256 leaves below a level-0 tile, each with
a 16-bit length in front. A partial tile names its width, so its bytes are fixed too.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from kbs.audit.merkle import NodeId, NodeStore
from kbs.audit.proof import MAX_SIZE
from kbs.core.errors import IntegrityError, MalformedError, NotFoundError
from kbs.core.reader import Reader

# C2SP tlog-tiles: "Tiles are of height 8"; a full one is 256 hashes wide.
HEIGHT = 8
WIDTH = 1 << HEIGHT

# Bundles carry the length of a leaf in 16 bits.
MAX_LEAF = 2**16 - 1

# Level 7 is the highest that a tree of 2^63 leaves has; the specification allows 63.
_PATH = re.compile(
    r"tile/(?P<level>[0-7]|entries)"
    r"/(?P<index>(?:x[0-9]{3}/){0,6}[0-9]{3})"
    r"(?:\.p/(?P<width>[1-9][0-9]{0,2}))?",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class Tile:
    """What a path asks for; `level` None is an entry bundle. Full is 256 wide."""

    level: int | None
    index: int
    width: int = WIDTH

    @property
    def path(self) -> str:
        """The one path of this tile."""
        level = "entries" if self.level is None else str(self.level)
        partial = f".p/{self.width}" if self.width < WIDTH else ""
        return f"tile/{level}/{_write_index(self.index)}{partial}"

    @property
    def start(self) -> int:
        """Position of its first hash (or leaf) on its level."""
        return self.index * WIDTH

    def require_within(self, size: int) -> None:
        """Refuse a tile that the tree of `size` leaves does not have yet.

        Raises:
            NotFoundError: it has fewer complete subtrees on that level.
        """
        available = size >> HEIGHT * (self.level or 0)
        if self.start + self.width > available:
            raise NotFoundError(
                self.path,
                got=f"{max(0, available - self.start)} of {self.width} hashes",
                expected=f"a tile of the tree of {size} leaves",
            )


def parse_path(path: str) -> Tile:
    """Accept `tile/L/N`, `tile/L/N.p/W`, `tile/entries/N` or `tile/entries/N.p/W`.

    Raises:
        MalformedError: anything else; 256 is written as the full tile.
    """
    match = _PATH.fullmatch(path)
    if match is None:
        raise MalformedError("tile path", got=repr(path)[:80], expected="tile/L/N")
    level = None if match["level"] == "entries" else int(match["level"])
    width = int(match["width"] or WIDTH)
    tile = Tile(level, int(re.sub("[x/]", "", match["index"])), width)
    if tile.path != path or tile.start > MAX_SIZE:
        raise MalformedError("tile path", got=repr(path)[:80], expected=tile.path)
    return tile


def read_tile(store: NodeStore, tile: Tile, size: int) -> bytes:
    """Return the hashes of a tile of the tree of `size` leaves.

    Raises:
        NotFoundError: an entry bundle, or the tree has no such tile yet.
        IntegrityError: a stored node is missing.
    """
    if tile.level is None:
        raise NotFoundError(tile.path, expected="a tile of hashes")
    tile.require_within(size)
    ids = [
        NodeId(tile.level * HEIGHT, tile.start + offset) for offset in range(tile.width)
    ]
    nodes = store.read_nodes(ids)
    missing = [node for node in ids if node not in nodes]
    if missing:
        raise IntegrityError(
            tile.path,
            got=f"no node {missing[0].position} of level {missing[0].level}",
            expected=f"{tile.width} hashes",
        )
    return b"".join(nodes[node] for node in ids)


def entry_bundle(leaves: Sequence[bytes]) -> bytes:
    """Return the bundle of these leaves.

    Raises:
        MalformedError: more than 256 leaves, or one that is too long.
    """
    if len(leaves) > WIDTH:
        raise MalformedError(
            "entry bundle", got=f"{len(leaves)} leaves", expected=f"at most {WIDTH}"
        )
    for leaf in leaves:
        if len(leaf) > MAX_LEAF:
            raise MalformedError(
                "leaf", got=f"{len(leaf)} bytes", expected=f"at most {MAX_LEAF}"
            )
    return b"".join(len(leaf).to_bytes(2, "big") + leaf for leaf in leaves)


def parse_bundle(data: bytes) -> tuple[bytes, ...]:
    """Read the leaves of a bundle.

    Raises:
        MalformedError: it is cut short, or holds more than 256 leaves.
    """
    reader = Reader(data, "entry bundle")
    leaves: list[bytes] = []
    while reader.remaining:
        if len(leaves) == WIDTH:
            raise MalformedError(
                "entry bundle", got="more leaves", expected=f"at most {WIDTH}"
            )
        leaves.append(reader.sized(2, f"leaf {len(leaves)}", limit=MAX_LEAF))
    return tuple(leaves)


def _write_index(index: int) -> str:
    # 1234067 is x001/x234/067: groups of three digits, x before all but the last.
    digits = str(index)
    digits = digits.zfill(-(-len(digits) // 3) * 3)
    groups = [digits[start : start + 3] for start in range(0, len(digits), 3)]
    return "/".join([f"x{group}" for group in groups[:-1]] + groups[-1:])
