"""The guest's eye on the log: every receipt is verified, and the log only ever grows.

Which key signs the log is taken from a file that the owner pinned, else from the last
contact, else from the broker itself and kept from then on. The receipt must be about
this very answer, and its checkpoint must extend the last one that this guest saw: a log
that was rolled back or forked is noticed here.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kbs.audit.checkpoint import MAX_NOTE, Checkpoint, verify_checkpoint
from kbs.audit.entry import Body
from kbs.audit.logkey import LogKey, parse_vkey
from kbs.audit.merkle import NodeId, consistency_proof
from kbs.audit.proof import HASH_SIZE, node_hash, verify_consistency
from kbs.audit.receipt import Receipt, VerifiedReceipt, verify_receipt
from kbs.audit.tiles import HEIGHT, WIDTH, Tile
from kbs.channel.answer import Answer, Outcome
from kbs.client.refusal import error_of
from kbs.client.transport import Transport
from kbs.core.errors import MalformedError, UnavailableError, VerificationError

_OK = 200
_NOT_FOUND = 404
_NO_TILE = "audit.no_tile"


@dataclass(frozen=True, slots=True)
class WatchedReceipt:
    """A receipt that holds; `pinned` when the owner named the log's key."""

    receipt: VerifiedReceipt
    pinned: bool

    def to_json(self) -> dict[str, object]:
        """Return what --json shows."""
        return {
            "index": self.receipt.index,
            "size": self.receipt.checkpoint.size,
            "entry": self.receipt.leaf.id,
            "log_key": self.receipt.key.vkey,
            "pinned": self.pinned,
        }


class LogWatch:
    """Remembers one broker's log in a folder; without a folder, it forgets.

    `warn` is told when nothing can be remembered.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        state: Path | None = None,
        pinned: LogKey | None = None,
        warn: Callable[[str], None] = lambda _text: None,
    ) -> None:
        """Read nothing yet."""
        self._transport = transport
        self._state = state
        self._pinned = pinned
        self._warn = warn

    def verify(self, answer: Answer, receipt: Receipt) -> WatchedReceipt:
        """Return the receipt of an answer if log and answer agree on it.

        1. The log of this broker, under the key that we know, has the entry.
        2. The entry is about this answer.
        3. The log extends what we saw of it.

        Raises:
            VerificationError: one of these does not hold.
            UnavailableError: the log does not show what is needed to say so.
        """
        key = self._log_key(answer.audience)
        try:
            verified = verify_receipt(receipt, keys=[key], origin=answer.audience)
        except VerificationError as exc:
            raise self._other_signer(exc) from exc
        _require_same_decision(answer, verified.body)
        if self._require_growth(key, verified.checkpoint):
            self._remember(answer.audience, key, receipt.checkpoint)
        return WatchedReceipt(verified, self._pinned is not None)

    def _log_key(self, origin: str) -> LogKey:
        if self._pinned is not None:
            return self._pinned
        kept = self._read(origin, "log_key")
        if kept is not None:
            return parse_vkey(kept.decode("utf-8", "replace").strip())
        reply = self._transport.get("/v1/broker")
        if reply.status != _OK:
            raise error_of(reply)
        try:
            return parse_vkey(reply.json().get("log_key"))
        except MalformedError as exc:
            raise UnavailableError("broker's log key", got=str(exc)) from exc

    def _other_signer(self, exc: VerificationError) -> VerificationError:
        if exc.code != "audit.checkpoint.signer":
            return exc
        kept = "--log-key" if self._pinned is not None else f"the state {self._state}"
        return VerificationError(
            exc.what,
            got=exc.got,
            expected=exc.expected,
            hint=f"another key signs the log than {kept} says; "
            "ask the broker's administrator whether it was replaced",
            code=exc.code,
        )

    def _require_growth(self, key: LogKey, now: Checkpoint) -> bool:
        """Check `now` against what was seen; return whether it is worth remembering."""
        note = self._read(now.origin, "checkpoint")
        if note is None:
            return True
        seen, _ = verify_checkpoint(note, origin=now.origin, keys=[key])
        # A retry gets the receipt of its first answer, which may be older than what
        # another request saw meanwhile: then it must be what that one grew from.
        first, second = sorted((seen, now), key=lambda checkpoint: checkpoint.size)
        try:
            tiles = TileNodes(self._transport, second.size)
            verify_consistency(
                first=first.size,
                first_root=first.root,
                second=second.size,
                second_root=second.root,
                proof=consistency_proof(tiles, first.size, second.size),
            )
        except (VerificationError, UnavailableError) as exc:
            is_hidden = exc.code == _NO_TILE and second is seen
            if isinstance(exc, VerificationError) or is_hidden:
                raise _rolled_back(now, seen) from exc
            raise
        return now.size >= seen.size

    def _remember(self, origin: str, key: LogKey, note: bytes) -> None:
        if self._state is None:
            return
        folder = _folder(self._state, origin)
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _replace(folder / "checkpoint", note)
            if self._pinned is None:
                _replace(folder / "log_key", key.vkey.encode() + b"\n")
        except OSError as exc:
            self._warn(f"cannot remember the log in {folder}: {exc.strerror}")

    def _read(self, origin: str, name: str) -> bytes | None:
        if self._state is None:
            return None
        path = _folder(self._state, origin) / name
        try:
            with path.open("rb") as file:
                return file.read(MAX_NOTE)
        except FileNotFoundError:
            return None
        except OSError as exc:
            raise UnavailableError(
                f"state {path}", got=exc.strerror, hint="name a folder by --state"
            ) from exc


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
                    code=_NO_TILE if reply.status == _NOT_FOUND else None,
                )
            self._tiles[tile] = reply.body
        return self._tiles[tile]


def _rolled_back(now: Checkpoint, seen: Checkpoint) -> VerificationError:
    return VerificationError(
        f"log {now.origin}",
        got=f"{now.size} entries with root {now.root.hex()}",
        expected=f"a log with the {seen.size} entries under root {seen.root.hex()} "
        "that this guest saw before",
        hint="the log was rolled back or rewritten; ask the broker's administrator",
        code="audit.rollback",
    )


def _require_same_decision(answer: Answer, body: Body | None) -> None:
    if body is None:
        # The body tells why a key was denied: that is for administrators.
        if answer.outcome is Outcome.GRANTED and not answer.denied:
            raise VerificationError(
                "receipt",
                got="no body",
                expected="that of the grant",
                code="audit.receipt.answer",
            )
        return
    for name, expected in (("decision", answer.decision), ("answer", answer.digest())):
        got = body.members.get(name)
        if got != expected:
            raise VerificationError(
                f"receipt {name}",
                got=str(got)[:80],
                expected=expected,
                hint="the receipt is another answer's",
                code="audit.receipt.answer",
            )


def _folder(state: Path, origin: str) -> Path:
    # Origins have slashes; a digest is a plain name of fixed length.
    return state / hashlib.sha256(origin.encode()).hexdigest()[:16]


def _replace(path: Path, data: bytes) -> None:
    partial = path.with_name(f".{path.name}-{secrets.token_hex(8)}.partial")
    try:
        with partial.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
