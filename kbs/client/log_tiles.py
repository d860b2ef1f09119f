"""The log's tree, read from its public tiles (https://c2sp.org/tlog-tiles) as needed.

Nothing here is verified: the proofs made from these hashes are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kbs.audit.merkle import NodeId
from kbs.audit.proof import HASH_SIZE, node_hash
from kbs.audit.tiles import HEIGHT, WIDTH, Tile
from kbs.client.transport import Transport
from kbs.core.errors import UnavailableError

NO_TILE = "audit.no_tile"
"""Code of the error for a log that says that it has no such tile."""

_OK = 200
_NOT_FOUND = 404


class TileNodes:
    """The log's tree of `size` leaves, read from its public tiles as needed."""

    def __init__(self, transport: Transport, size: int) -> None:
        """Fetch nothing yet."""
        self._transport = transport
        self._size = size
        self._tiles: dict[Tile, bytes] = {}

    def read_nodes(self, ids: Sequence[NodeId]) -> Mapping[NodeId, bytes]:
        """Return the hashes of these subtrees.

        Raises:
            UnavailableError: the log does not show a tile.
        """
        return {node: self._node(node) for node in ids}

    def _node(self, node: NodeId) -> bytes:
        # A tile has every eighth level; the levels between are folded from it.
        above = node.level % HEIGHT
        first = node.position << above
        level = node.level // HEIGHT
        index = first // WIDTH
        available = (self._size >> HEIGHT * level) - index * WIDTH
        hashes = self._tile(Tile(level, index, min(WIDTH, available)))
        start = (first % WIDTH) * HASH_SIZE
        row = [
            hashes[start + offset : start + offset + HASH_SIZE]
            for offset in range(0, HASH_SIZE << above, HASH_SIZE)
        ]
        while len(row) > 1:
            row = [
                node_hash(left, right)
                for left, right in zip(row[::2], row[1::2], strict=True)
            ]
        return row[0]

    def _tile(self, tile: Tile) -> bytes:
        if tile not in self._tiles:
            reply = self._transport.get(f"/v1/log/{tile.path}")
            if reply.status != _OK or len(reply.body) != tile.width * HASH_SIZE:
                raise UnavailableError(
                    f"log {tile.path}",
                    got=f"status {reply.status}, {len(reply.body)} bytes",
                    expected=f"{tile.width} hashes, to see that the log only grew",
                    code=NO_TILE if reply.status == _NOT_FOUND else None,
                )
            self._tiles[tile] = reply.body
        return self._tiles[tile]
