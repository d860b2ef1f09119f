"""An export, checked offline and in a stream: every byte, and where one is wrong.

Found are: lines that are not canonical, entries that are missing, out of place or
changed (each line carries the hash of its leaf, and the leaf commits to the body), a
root other than the checkpoint's, times that run backwards, and what
`kbs.audit.history` knows. Memory does not grow with the log.

What it cannot find: that the log's key signed another tree for somebody else. Whoever
kept an earlier checkpoint gives it as `previous`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime

from kbs.audit.checkpoint import Checkpoint, verify_checkpoint
from kbs.audit.entry import parse_leaf, verify_body
from kbs.audit.export import (
    EntryLine,
    parse_checkpoint_line,
    parse_entry_line,
    parse_keys_line,
)
from kbs.audit.history import History
from kbs.audit.kinds import INSTANCE_WIDE, Kind
from kbs.audit.log import CLOCK_TOLERANCE
from kbs.audit.logkey import LogKey
from kbs.audit.merkle import Frontier
from kbs.audit.proof import leaf_hash
from kbs.audit.report import ExportError, ExportReport
from kbs.core.clock import format_time
from kbs.core.errors import KbsError

Progress = Callable[[int, int], None]
"""Told how many entries are checked, and how many there are to check."""

_PROGRESS_STEP = 1024
_FIRST_ENTRY_LINE = 3


def verify_export(
    lines: Iterable[bytes],
    *,
    keys: Sequence[LogKey] = (),
    origin: str | None = None,
    previous: bytes | None = None,
    progress: Progress | None = None,
) -> ExportReport:
    """Check an export line by line (`kbs.audit.export.read_lines` reads a file).

    `keys` are those that the caller trusts: the checkpoint must be signed by one of
    them or by a successor that the log announces. Without any, the export's own keys
    are taken, and the report says so. `previous` is an earlier checkpoint (a note)
    which this log must extend.

    Raises:
        ExportError: anything is wrong; its report says what and where.
    """
    run = _Verification(tuple(keys), origin, previous, progress)
    report = run.verify(lines)
    if not report.holds:
        raise ExportError(report)
    return report


class _Verification:
    """One pass over an export."""

    def __init__(
        self,
        trusted: tuple[LogKey, ...],
        origin: str | None,
        previous: bytes | None,
        progress: Progress | None,
    ) -> None:
        self._trusted = trusted
        self._origin = origin if origin or not trusted else trusted[0].origin
        self._previous_note = previous
        self._progress = progress or (lambda _done, _total: None)
        self._report = ExportReport(pinned=bool(trusted))
        self._checkpoint: Checkpoint | None = None
        self._keys: tuple[LogKey, ...] | None = None
        self._previous: Checkpoint | None = None
        self._previous_root: bytes | None = None
        self._frontier = Frontier()
        self._whole = True  # every leaf so far is in the frontier, unchanged
        self._judged = True  # every body so far was read or rightly withheld
        self._after_gap: int | None = None
        self._line = _FIRST_ENTRY_LINE - 1

    def verify(self, lines: Iterable[bytes]) -> ExportReport:
        source = iter(lines)
        self._read_head(next(source, b""), next(source, b""))
        self._history = History(self._report.origin)
        self._keep_root()
        for number, line in enumerate(source, start=_FIRST_ENTRY_LINE):
            self._line = number
            self._read_entry(line)
            if self._report.entries % _PROGRESS_STEP == 0:
                self._progress(self._report.entries, self._report.size or 0)
        self._finish()
        self._progress(self._report.entries, self._report.size or 0)
        return self._report

    # -- the first two lines

    def _read_head(self, first: bytes, second: bytes) -> None:
        note: bytes | None = None
        try:
            note = parse_checkpoint_line(first)
        except KbsError as exc:
            self._report.add("audit.checkpoint", str(exc), line=1)
        try:
            self._keys = parse_keys_line(second)
        except KbsError as exc:
            self._report.add("audit.keys", str(exc), line=2)
        known = (*(self._keys or ()), *self._trusted)
        self._report.origin = self._origin or (known[0].origin if known else "")
        if note is not None:
            self._read_checkpoint(note, known)
        self._read_previous(known)

    def _read_checkpoint(self, note: bytes, known: tuple[LogKey, ...]) -> None:
        if not known:
            # The second line is damaged, which was said; the first may be good.
            self._report.unchecked.add("audit.checkpoint")
            return
        try:
            checkpoint, key = verify_checkpoint(
                note, origin=self._report.origin, keys=known, only_known=True
            )
        except KbsError as exc:
            self._report.add("audit.checkpoint", str(exc), line=1)
            return
        self._checkpoint = checkpoint
        self._report.size = checkpoint.size
        self._report.root = checkpoint.root
        self._report.key = key

    def _read_previous(self, known: tuple[LogKey, ...]) -> None:
        if self._previous_note is None:
            self._report.skipped.add("audit.previous")
            return
        try:
            self._previous, _ = verify_checkpoint(
                self._previous_note, origin=self._report.origin, keys=known
            )
        except KbsError as exc:
            self._report.add("audit.previous", f"the checkpoint given: {exc}")

    # -- entries

    def _read_entry(self, line: bytes) -> None:
        expected = self._report.entries
        self._report.entries += 1
        try:
            entry = parse_entry_line(line)
        except KbsError as exc:
            self._whole = self._judged = False
            self._report.add("audit.entries", str(exc), line=self._line, at=expected)
            return
        self._check_index(entry, expected)
        if self._take_leaf(entry):
            self._read_content(entry)

    def _check_index(self, entry: EntryLine, expected: int) -> None:
        if entry.index == expected:
            return
        self._whole = self._judged = False
        if entry.index == self._after_gap:
            # Entries are missing, which was said at the line before.
            self._report.entries = entry.index + 1
            return
        # Either this number is wrong or lines are missing: the next line tells.
        self._after_gap = entry.index + 1
        self._report.add(
            "audit.entries",
            f"index: got {entry.index}, expected {expected}",
            line=self._line,
            at=expected,
        )

    def _take_leaf(self, entry: EntryLine) -> bool:
        """Grow the tree; a leaf that was changed is not read any further."""
        found = leaf_hash(entry.leaf)
        if found != entry.hash:
            self._whole = self._judged = False
            self._report.add(
                "audit.entries",
                f"leaf: got hash {found.hex()}, expected {entry.hash.hex()}",
                line=self._line,
                at=entry.index,
            )
        self._frontier.add(found)
        self._keep_root()
        return found == entry.hash

    def _read_content(self, entry: EntryLine) -> None:
        try:
            leaf = parse_leaf(entry.leaf)
        except KbsError as exc:
            self._judged = False
            self._report.add("audit.entries", str(exc), line=self._line, at=entry.index)
            return
        self._report.kinds[leaf.kind.value] += 1
        self._check_time(entry.index, leaf.time)
        if entry.body is None or entry.salt is None:
            self._withhold(entry.index, leaf.kind)
            return
        try:
            body = verify_body(leaf, entry.body, entry.salt)
        except KbsError as exc:
            self._judged = False
            self._report.add("audit.body", str(exc), line=self._line, at=entry.index)
            return
        self._report.bodies += 1
        if self._judged:
            for message in self._history.problems_of(entry.index, body):
                self._report.add(
                    "audit.history", message, line=self._line, at=entry.index
                )

    def _withhold(self, index: int, kind: Kind) -> None:
        self._report.withheld += 1
        if kind in INSTANCE_WIDE:
            self._judged = False
            self._report.add(
                "audit.body",
                f"body: got none, expected that of {kind.value}, which is withheld "
                "from nobody",
                line=self._line,
                at=index,
            )
        if self._history.withheld(kind):
            self._report.skipped.add("audit.history")

    def _check_time(self, index: int, time: datetime) -> None:
        latest = self._report.latest_time
        if self._report.first_time is None:
            self._report.first_time = time
        if latest is not None and time < latest - CLOCK_TOLERANCE:
            self._report.add(
                "audit.time",
                f"time: got {format_time(time)}, expected at most 60 s before "
                f"{format_time(latest)}",
                line=self._line,
                at=index,
            )
        self._report.latest_time = time if latest is None else max(time, latest)

    def _keep_root(self) -> None:
        if self._previous is not None and self._frontier.size == self._previous.size:
            self._previous_root = self._frontier.root()

    # -- what only the whole file shows

    def _finish(self) -> None:
        self._check_size()
        self._check_root()
        self._check_previous()
        self._check_keys()
        if not self._judged:
            self._report.unchecked.add("audit.history")

    def _check_size(self) -> None:
        size, found = self._report.size, self._report.entries
        if size is not None and found != size:
            self._whole = False
            self._report.add(
                "audit.entries",
                f"entries: got {found}, expected {size}, as the checkpoint says",
                line=_FIRST_ENTRY_LINE + size if found > size else self._line + 1,
                at=min(found, size),
            )

    def _check_root(self) -> None:
        if self._checkpoint is None or not self._whole:
            self._report.unchecked.add("audit.root")
            return
        found = self._frontier.root()
        if found != self._checkpoint.root:
            self._report.add(
                "audit.root",
                f"root: got {found.hex()}, expected {self._checkpoint.root.hex()}, as "
                "the checkpoint says; every line agrees with itself, so an entry was "
                "rewritten together with its hash",
            )

    def _check_previous(self) -> None:
        if self._previous is None:
            return
        earlier = self._previous
        if earlier.size > self._report.entries:
            self._report.add(
                "audit.previous",
                f"size: got {self._report.entries}, expected at least {earlier.size}, "
                "as the earlier checkpoint says: the log was rolled back",
            )
        elif not self._whole:
            self._report.unchecked.add("audit.previous")
        elif self._previous_root != earlier.root:
            self._report.add(
                "audit.previous",
                f"the first {earlier.size} entries are not those of the earlier "
                f"checkpoint, whose root is {earlier.root.hex()}",
            )

    def _check_keys(self) -> None:
        if not self._judged or self._keys is None or self._checkpoint is None:
            self._report.unchecked.add("audit.keys")
            return
        told = tuple(self._history.log_keys)
        if told != self._keys:
            self._report.add(
                "audit.keys",
                f"keys: got {_hashes(self._keys)}, expected {_hashes(told)}, as the "
                "entries announce them",
                line=2,
            )
        elif self._report.key not in self._successors(told):
            self._report.add(
                "audit.keys",
                f"signed by {_hashes([self._report.key] if self._report.key else [])}, "
                f"expected {_hashes(self._trusted)} or a successor",
                line=1,
            )

    def _successors(self, told: tuple[LogKey, ...]) -> tuple[LogKey, ...]:
        """Return the keys that are trusted, or that a trusted one led to."""
        if not self._trusted:
            return told
        places = [place for place, key in enumerate(told) if key in self._trusted]
        return (*self._trusted, *(told[min(places) :] if places else ()))


def _hashes(keys: Iterable[LogKey]) -> str:
    return ", ".join(f"{key.origin}+{key.key_hash.hex()}" for key in keys) or "none"
