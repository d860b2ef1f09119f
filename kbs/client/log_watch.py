"""The guest's eye on the log: every receipt is verified, and the log only ever grows.

Which key signs the log is said by the challenge, under the response key that the guest
pinned. A key that the owner named, and the one of the last contact, must agree with it:
a log key is replaced by an announcement in the log, which guests do not follow yet. The
receipt must be about this very answer, and its checkpoint must extend the last one that
this guest saw: a log that was rolled back or forked is noticed here.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kbs.audit.checkpoint import MAX_NOTE, Checkpoint, verify_checkpoint
from kbs.audit.entry import Body
from kbs.audit.kinds import Kind
from kbs.audit.kinds import Outcome as EntryOutcome
from kbs.audit.logkey import LogKey, parse_vkey
from kbs.audit.merkle import consistency_proof
from kbs.audit.proof import verify_consistency
from kbs.audit.receipt import (
    Receipt,
    VerifiedReceipt,
    read_receipt,
    verify_receipt,
)
from kbs.channel.answer import Answer, Outcome
from kbs.client.log_tiles import NO_TILE, TileNodes
from kbs.client.transport import Transport
from kbs.core.errors import (
    KbsError,
    MalformedError,
    UnavailableError,
    VerificationError,
)

# As what the log may record an answer (`kbs.audit.events.Release`). Auditors find a
# grant that should not have been by its kind; a denial does not say what was asked.
_KINDS = {
    Outcome.GRANTED: frozenset({Kind.RELEASE_GRANTED}),
    Outcome.CHECKED: frozenset({Kind.RELEASE_PROBE}),
    Outcome.DENIED: frozenset({Kind.RELEASE_DENIED, Kind.RELEASE_PROBE}),
}

_OTHER = "the receipt is another answer's"
_UNLIKE = "the log does not say what the broker did; tell whoever owns the key"

# Waiting does not mend it (`kbs.client.retry`).
_STATE = "guest.state"


@dataclass(frozen=True, slots=True)
class WatchedReceipt:
    """A receipt that holds, by a log that only grew since it was last seen."""

    receipt: VerifiedReceipt

    def to_json(self) -> dict[str, object]:
        """Return what --json shows."""
        return {
            "index": self.receipt.index,
            "size": self.receipt.checkpoint.size,
            "entry": self.receipt.leaf.id,
            "log_key": self.receipt.key.vkey,
        }


class LogWatch:
    """Remembers one broker's log in a folder; without a folder, it forgets.

    `pinned` is the log's key where the owner insists on one. `warn` is told when
    nothing can be remembered, and when a denial's receipt does not hold.
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
        self._trusted: dict[str, LogKey] = {}

    def trust(self, origin: str, vkey: str) -> LogKey:
        """Take the log's key from a challenge that the pinned broker signed.

        Asked before evidence is made, so that nothing goes to a broker whose log is
        not the one that was seen before.

        Raises:
            MalformedError: it is no log key.
            VerificationError: it is another log's, or another one than was pinned or
                seen before.
            UnavailableError: the state folder cannot be read.
        """
        key = parse_vkey(vkey)
        if key.origin != origin:
            raise VerificationError(
                "broker's log key",
                got=f"one of the log {key.origin}",
                expected=f"one of {origin}",
                code="audit.log_key",
            )
        if self._pinned is not None and self._pinned != key:
            raise _other_key(key, self._pinned.vkey, "--log-key names another one")
        kept = self._read(origin, "log_key")
        if kept is not None and kept.strip() != key.vkey.encode():
            folder = _folder(self._state or Path(), origin)
            raise _other_key(
                key,
                kept.decode("ascii", "replace").strip()[:400],
                f"it was another one when this guest last saw the log, says {folder}; "
                "a replacement is announced in the log, which guests do not follow yet",
            )
        self._trusted[origin] = key
        return key

    def verify(self, answer: Answer, receipt: Receipt) -> WatchedReceipt:
        """Return the receipt of an answer if log and answer agree on it.

        1. The broker's log, under the key that its challenge named, has the entry.
        2. The entry is of the kind that this answer has, and about this answer.
        3. The log extends what we saw of it.

        Raises:
            VerificationError: one of these does not hold.
            UnavailableError: the log does not show what is needed to say so.
        """
        key = self._trusted.get(answer.audience)
        keys = [] if key is None else [key]
        verified = verify_receipt(receipt, keys=keys, origin=answer.audience)
        _require_same_answer(answer, verified.body)
        _require_same_outcome(answer, verified.leaf.kind, verified.body)
        if self._require_growth(verified.key, verified.checkpoint):
            self._remember(verified.key, verified.checkpoint, receipt.checkpoint)
        return WatchedReceipt(verified)

    def verify_denial(self, answer: Answer, receipt: object) -> WatchedReceipt | None:
        """Return a denial's receipt if it holds; else None, and a warning says why.

        The denial stands in either case, by the broker's signature. Its receipt has no
        body, so it proves that the log holds an entry of this kind and that it grew,
        not that the entry is about this answer.
        """
        if receipt is None:
            self._warn(
                f"denial {answer.decision} has no receipt: right only where the "
                "evidence is not genuine, which leaves no entry of its own"
            )
            return None
        try:
            return self.verify(answer, read_receipt(receipt))
        except KbsError as exc:
            self._warn(f"receipt of denial {answer.decision} does not hold: {exc}")
            return None

    def _require_growth(self, key: LogKey, now: Checkpoint) -> bool:
        """Check `now` against what was seen; return whether it is worth remembering."""
        seen = self._seen(now.origin, key)
        if seen is None:
            return True
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
            is_hidden = exc.code == NO_TILE and second is seen
            if isinstance(exc, VerificationError) or is_hidden:
                raise _rolled_back(now, seen) from exc
            raise
        return now.size >= seen.size

    def _seen(self, origin: str, key: LogKey) -> Checkpoint | None:
        note = self._read(origin, "checkpoint")
        if note is None:
            return None
        try:
            return verify_checkpoint(note, origin=origin, keys=[key])[0]
        except (MalformedError, VerificationError) as exc:
            folder = _folder(self._state or Path(), origin)
            raise UnavailableError(
                f"state {folder / 'checkpoint'}",
                got=str(exc)[:200],
                expected="the last checkpoint that this guest saw",
                hint="the file was damaged; whoever removes the folder forgets the log",
                code=_STATE,
            ) from exc

    def _remember(self, key: LogKey, now: Checkpoint, note: bytes) -> None:
        if self._state is None:
            return
        # Another guest of this machine may have seen more while the tiles were read.
        seen = self._seen(now.origin, key)
        if seen is not None and seen.size > now.size:
            return
        folder = _folder(self._state, now.origin)
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _replace(folder / "checkpoint", note)
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
                f"state {path}",
                got=exc.strerror,
                hint="name a folder by --state",
                code=_STATE,
            ) from exc


def _other_key(offered: LogKey, expected: str, why: str) -> VerificationError:
    return VerificationError(
        f"log key of {offered.origin}",
        got=offered.vkey,
        expected=expected,
        hint=f"{why}; ask the broker's administrator whether it was replaced",
        code="audit.log_key",
    )


def _rolled_back(now: Checkpoint, seen: Checkpoint) -> VerificationError:
    return VerificationError(
        f"log {now.origin}",
        got=f"{now.size} entries with root {now.root.hex()}",
        expected=f"a log with the {seen.size} entries under root {seen.root.hex()} "
        "that this guest saw before",
        hint="the log was rolled back or rewritten; ask the broker's administrator",
        code="audit.rollback",
    )


def _require_same_answer(answer: Answer, body: Body | None) -> None:
    if body is None:
        # The body tells why a key was denied: that is for administrators.
        if answer.outcome is Outcome.GRANTED and not answer.denied:
            raise _another("body", "none", "that of the grant", _OTHER)
        return
    for name, expected in (("decision", answer.decision), ("answer", answer.digest())):
        got = body.members.get(name)
        if got != expected:
            raise _another(name, got, expected, _OTHER)


def _require_same_outcome(answer: Answer, kind: Kind, body: Body | None) -> None:
    """Require that auditors read of this answer what it is."""
    kinds = _KINDS[answer.outcome]
    if kind not in kinds:
        raise _another("kind", kind, " or ".join(sorted(kinds)), _UNLIKE)
    keys = ", ".join(str(ref) for ref in answer.keys)
    if body is not None and (recorded := _granted(body)) != keys:
        raise _another("keys", recorded, keys, _UNLIKE)


def _granted(body: Body) -> str:
    listed = body.members.get("keys")
    return ", ".join(
        f"{one['id']}@{one.get('version')}"
        for one in (listed if isinstance(listed, list) else [])
        if one["decision"] == EntryOutcome.GRANTED
    )


def _another(what: str, got: object, expected: str, hint: str) -> VerificationError:
    return VerificationError(
        f"receipt {what}",
        got=str(got)[:300],
        expected=expected[:300],
        hint=hint,
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
