"""Exports: the whole log as JSON lines, one canonical JSON object a line.

::

    {"checkpoint": note}
    {"keys": [vkey, …]}                 every key that ever was the log's, in order
    {"body": {…}, "hash": hex, "index": n, "leaf": text, "salt": base64}

`hash` is the leaf's hash as the tree keeps it, so that a leaf that was changed is named
and not only the root found wrong. `body` and `salt` are null where the reader of this
export may not see them. Lines end in a newline, and are the one canonical spelling:
there is no byte in the file that could be changed without being found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import BinaryIO, Protocol

from kbs.audit.checkpoint import MAX_NOTE, parse_checkpoint
from kbs.audit.entry import MAX_BODY, MAX_LEAF, SALT_SIZE
from kbs.audit.kinds import INSTANCE_WIDE
from kbs.audit.log import LogEntry
from kbs.audit.logkey import LogKey, parse_vkey
from kbs.audit.merkle import NodeId
from kbs.audit.proof import HASH_SIZE, leaf_hash
from kbs.core.encode import (
    MAX_INTEGER,
    b64,
    canonical_json,
    parse_b64,
    parse_hex,
    parse_json_object,
    require_integer,
    require_list,
    require_members,
    require_text,
)
from kbs.core.errors import IntegrityError, MalformedError

MAX_LINE = MAX_BODY + 16 * 1024
MAX_KEYS = 1024

_BATCH = 256
_BODY, _HASH, _NULL = b'{"body":', b',"hash":"', b"null"
_TAIL = frozenset({"hash", "index", "leaf", "salt"})


class Entries(Protocol):
    """What an export is written from: the part of a log below its checkpoint."""

    def read_entries(self, start: int, stop: int) -> Sequence[LogEntry]:
        """Return the entries start … stop-1 in order, fewer where the log ends."""
        ...

    def read_nodes(self, ids: Sequence[NodeId]) -> Mapping[NodeId, bytes]:
        """Return the hashes of those nodes that are stored."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryLine:
    """One entry of an export, to be written, or parsed and not checked yet.

    `hash` is that of the leaf in the tree. What is damaged is written as it is.
    """

    index: int
    leaf: bytes
    hash: bytes
    body: bytes | None
    salt: bytes | None

    def serialize(self) -> bytes:
        """Return the line: canonical JSON, unless leaf or body are damaged."""
        # Put together from the stored bytes, whose members are in canonical order.
        tail = b'%b","index":%d,"leaf":%b,"salt":' % (
            self.hash.hex().encode(),
            self.index,
            canonical_json(self.leaf.decode(errors="replace")),
        )
        if self.body is None or self.salt is None:
            return _BODY + _NULL + _HASH + tail + b"null}\n"
        salt = b'"%b"}\n' % b64(self.salt).encode()
        return _BODY + self.body + _HASH + tail + salt


def write_export(
    store: Entries,
    *,
    checkpoint: bytes,
    keys: Sequence[LogKey],
    may_read: Callable[[LogEntry], bool] = lambda _: True,
) -> Iterator[bytes]:
    """Yield the lines of an export of everything under `checkpoint`.

    Bodies for which `may_read` is false are withheld, those of the instance as a whole
    never. What is stored is written as it is: damage shows when the export is verified.

    Raises:
        IntegrityError: the log has fewer entries than the checkpoint says.
    """
    yield _line({"checkpoint": checkpoint.decode()})
    yield _line({"keys": [key.vkey for key in keys]})
    size = parse_checkpoint(checkpoint).checkpoint.size
    for start in range(0, size, _BATCH):
        stop = min(start + _BATCH, size)
        entries = store.read_entries(start, stop)
        if len(entries) != stop - start:
            raise IntegrityError(
                f"log entries {start} to {stop - 1}",
                got=f"{len(entries)} entries",
                expected=str(stop - start),
                hint="rows are missing in the database",
            )
        hashes = store.read_nodes([NodeId(0, entry.index) for entry in entries])
        for entry in entries:
            readable = entry.kind in INSTANCE_WIDE or may_read(entry)
            yield EntryLine(
                index=entry.index,
                leaf=entry.leaf,
                hash=hashes.get(NodeId(0, entry.index), leaf_hash(entry.leaf)),
                body=entry.body if readable else None,
                salt=entry.salt if readable else None,
            ).serialize()


def readable_by(tenants: tuple[str, ...] | None) -> Callable[[LogEntry], bool]:
    """Return which bodies an auditor of these tenants may read (None: all of them).

    A body is proven whole or not at all, so all of its tenants must be the auditor's:
    one that concerns another tenant as well says what that one expects.
    """
    if tenants is None:
        return lambda _: True
    return lambda entry: bool(entry.tenants) and set(tenants).issuperset(entry.tenants)


def read_lines(stream: BinaryIO) -> Iterator[bytes]:
    """Yield lines with their ends, cut where one is longer than any export has."""
    while line := stream.readline(MAX_LINE + 1):
        yield line


def parse_checkpoint_line(line: bytes) -> bytes:
    """Return the note of the first line.

    Raises:
        MalformedError: it is not such a line.
    """
    members = require_members(_parse_line(line), "first line", required={"checkpoint"})
    return _encoded(members["checkpoint"], "checkpoint", limit=MAX_NOTE)


def parse_keys_line(line: bytes) -> tuple[LogKey, ...]:
    """Return the keys of the second line.

    Raises:
        MalformedError: it is not such a line, or a key in it is damaged.
    """
    members = require_members(_parse_line(line), "second line", required={"keys"})
    keys = require_list(members["keys"], "log keys", limit=MAX_KEYS)
    if not keys:
        raise MalformedError("log keys", got="none", expected="at least one")
    return tuple(parse_vkey(key) for key in keys)


def parse_entry_line(line: bytes) -> EntryLine:
    """Read the line of an entry.

    The bytes of the body are returned as they stand: its leaf commits to them, and
    `kbs.audit.entry.verify_body` refuses any other spelling of it.

    Raises:
        MalformedError: it is not the canonical spelling of such a line.
    """
    # No quote stands unescaped inside the leaf, so the last `,"hash":"` is the member.
    head, separator, rest = line.rpartition(_HASH)
    if not (separator and head.startswith(_BODY)):
        raise MalformedError(
            "entry line", got="no body and hash", expected="both first"
        )
    tail = _parse_line(b"{" + separator[1:] + rest)
    members = require_members(tail, "entry line", required=_TAIL)
    body, salt = head[len(_BODY) :], members["salt"]
    if (body == _NULL) != (salt is None):
        raise MalformedError("entry line", got="one of body and salt", expected="both")
    return EntryLine(
        index=require_integer(members["index"], "index", least=0, most=MAX_INTEGER),
        leaf=_encoded(members["leaf"], "leaf", limit=MAX_LEAF),
        hash=parse_hex(members["hash"], "hash", size=HASH_SIZE),
        body=None if salt is None else body,
        salt=None if salt is None else parse_b64(salt, "salt", limit=SALT_SIZE),
    )


def _line(document: object) -> bytes:
    return canonical_json(document) + b"\n"


def _parse_line(line: bytes) -> object:
    if not line.endswith(b"\n"):
        raise MalformedError(
            "JSON", got=f"{len(line)} bytes without an end", expected="a newline"
        )
    members = parse_json_object(line[:-1], "JSON", limit=MAX_LINE)
    if _line(members) != line:
        raise MalformedError("JSON", got="another spelling", expected="canonical JSON")
    return members


def _encoded(value: object, what: str, *, limit: int) -> bytes:
    # No lone surrogate gets here: the line was valid UTF-8 and spelled canonically.
    return require_text(value, what, limit=limit).encode()
