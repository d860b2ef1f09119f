"""Whether the log in the database is the one that was signed, and tells what governs.

`check_head` is cheap and made at every start; `check_log` reads every entry.
"""

from __future__ import annotations

import hashlib

from kbs.audit import merkle
from kbs.audit.checkpoint import Checkpoint, verify_checkpoint
from kbs.audit.entry import parse_leaf, verify_body
from kbs.audit.export import write_export
from kbs.audit.kinds import Kind
from kbs.audit.log import CLOCK_TOLERANCE, LogEntry, QueryFilter
from kbs.audit.logkey import LogKey
from kbs.audit.proof import leaf_hash, verify_inclusion
from kbs.audit.verification import verify_export
from kbs.broker.ports import Transaction
from kbs.core.encode import canonical_json
from kbs.core.errors import IntegrityError, KbsError
from kbs.governance.state import GovernanceState

_HINT = "restore the newest database; kbs audit verify says where it differs"


def check_head(tx: Transaction, key: LogKey, state: GovernanceState) -> None:
    """Return if the log ends at a signed checkpoint and tells of the last statement.

    A last statement that was exchanged for another signed one is found by this: only
    what was accepted is in the log.

    Raises:
        IntegrityError: the log is not what was signed, or tells of another statement.
    """
    try:
        checkpoint = _signed_head(tx, key)
        logged = _last_statement(tx, checkpoint) if state.head_seq else None
    except IntegrityError:
        raise
    except KbsError as exc:
        raise _damaged(str(exc)) from exc
    if logged is not None and logged != state.head_hash:
        raise IntegrityError(
            f"governance statement {state.head_seq}",
            got=f"hash {state.head_hash}",
            expected=f"{logged}, the last one that the log tells of",
            hint=_HINT,
            code="governance.unlogged",
        )


def prove_logged(tx: Transaction, key: LogKey, *, after: int) -> None:
    """Return if the log tells of every statement after a number, as it is stored.

    What the broker accepted is in its signed log; a statement that it refused, or
    never saw, can be written into the database but not into that. The time at which
    it is said to be accepted must be that of its entry.

    Raises:
        IntegrityError: one of them is not in the log.
    """
    rows = tx.governance.statements(after)
    if not rows:
        return
    try:
        note = latest_note(tx)
        checkpoint, _ = verify_checkpoint(note, origin=key.origin, keys=[key])
        told = _told(tx, checkpoint, len(rows))
    except IntegrityError:
        raise
    except KbsError as exc:
        raise _damaged(str(exc)) from exc
    for row in rows:
        entry = told.get(hashlib.sha256(row.envelope).digest())
        if entry is None or abs(entry.time - row.accepted) > CLOCK_TOLERANCE:
            raise IntegrityError(
                f"governance statement {row.seq}",
                got="one that the log does not tell of, or of another time",
                expected="a statement that this broker accepted and logged",
                hint=_HINT,
                code="governance.unlogged",
            )


def _told(tx: Transaction, checkpoint: Checkpoint, count: int) -> dict[bytes, LogEntry]:
    """Return the newest statement entries under a checkpoint, by envelope."""
    # The column only helps to find them; what counts is the leaf under the root.
    wanted = QueryFilter(kinds=(Kind.STATEMENT.value,), newest=True, limit=count)
    found = {}
    for entry in tx.log.query(wanted):
        if entry.index >= checkpoint.size:
            continue
        leaf = parse_leaf(entry.leaf)
        body = verify_body(leaf, entry.body, entry.salt)
        if leaf.kind is not Kind.STATEMENT:
            continue
        _require_included(tx, entry, checkpoint)
        envelope = canonical_json(
            {name: body.members[name] for name in ("statement", "signatures")}
        )
        found[hashlib.sha256(envelope).digest()] = entry
    return found


def check_log(tx: Transaction, key: LogKey) -> Checkpoint:
    """Read every entry and return the checkpoint that covers them all.

    Raises:
        IntegrityError: a byte of it is not what was signed; says where.
    """
    try:
        checkpoint = _signed_head(tx, key)
        note = latest_note(tx)
        lines = write_export(tx.log, checkpoint=note, keys=[key])
        verify_export(lines, keys=[key])
    except IntegrityError:
        raise
    except KbsError as exc:
        raise _damaged(str(exc)) from exc
    return checkpoint


def latest_note(tx: Transaction) -> bytes:
    """Return the latest checkpoint as it is stored.

    Raises:
        IntegrityError: there is none.
    """
    latest = tx.log.latest_checkpoint()
    if latest is None:
        raise _damaged("no checkpoint is stored")
    return latest.note


def _signed_head(tx: Transaction, key: LogKey) -> Checkpoint:
    checkpoint, _ = verify_checkpoint(latest_note(tx), origin=key.origin, keys=[key])
    size = tx.log.head().size
    root = merkle.root(tx.log, size)
    if (checkpoint.size, checkpoint.root) != (size, root):
        raise _damaged(
            f"{size} entries under {root.hex()}, but the latest checkpoint is over "
            f"{checkpoint.size} under {checkpoint.root.hex()}"
        )
    return checkpoint


def _last_statement(tx: Transaction, checkpoint: Checkpoint) -> str:
    """Return the hash of the last statement that the log tells of, proven."""
    wanted = QueryFilter(kinds=(Kind.STATEMENT.value,), newest=True, limit=1)
    found = tx.log.query(wanted)
    if not found:
        raise _damaged("it tells of no statement, and some are in force")
    return _logged_hash(tx, found[-1], checkpoint)


def _logged_hash(tx: Transaction, entry: LogEntry, checkpoint: Checkpoint) -> str:
    body = verify_body(parse_leaf(entry.leaf), entry.body, entry.salt)
    _require_included(tx, entry, checkpoint)
    return hashlib.sha256(canonical_json(body.members["statement"])).hexdigest()


def _require_included(tx: Transaction, entry: LogEntry, checkpoint: Checkpoint) -> None:
    verify_inclusion(
        leaf_hash(entry.leaf),
        index=entry.index,
        size=checkpoint.size,
        proof=merkle.inclusion_proof(tx.log, entry.index, checkpoint.size),
        root=checkpoint.root,
    )


def _damaged(why: str) -> IntegrityError:
    return IntegrityError("audit log", got=why, hint=_HINT, code="audit.log")
