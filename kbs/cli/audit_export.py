"""Exports of the log: written from the broker, verified from a file or a stream."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import BinaryIO

from kbs.artifacts.files import reading, replacing
from kbs.audit.checkpoint import parse_checkpoint
from kbs.audit.export import parse_checkpoint_line, parse_keys_line, read_lines
from kbs.audit.logkey import LogKey, parse_vkey
from kbs.audit.report import ExportError, ExportReport
from kbs.audit.verification import verify_export
from kbs.cli.admin_client import AdminClient
from kbs.cli.profile import PROFILE_FILE, SECRET_MODE, load_profile
from kbs.cli.render import progress
from kbs.core.errors import KbsError, MalformedError, UnavailableError

_EXPORT = "/admin/v1/audit/export"
_STANDARD_OUTPUT = "standard output"
_BUFFER = 1024 * 1024
# `kbs.audit.export`: how the first line of every export begins.
_FIRST = b'{"checkpoint":'
# The checkpoint and the keys.
_HEAD_LINES = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """The report of an export, and what people should know beside it."""

    report: ExportReport
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, object]:
        """Return the JSON form."""
        return {**self.report.to_json(), "notes": list(self.notes)}


def write_export_file(client: AdminClient, path: Path) -> tuple[int, int]:
    """Write what the broker exports; return bytes and lines.

    Raises:
        UnavailableError: the export broke off, or there is no room for it; nothing is
            left behind.
        KbsError: the broker refuses, or the file cannot be written.
    """
    # The file first: an export that is asked for is in the log, wherever it ends.
    with replacing(path, mode=SECRET_MODE) as file, client.lines(_EXPORT) as source:
        return _copy(source, file, f"output {path}")


def write_export_stream(client: AdminClient, file: BinaryIO) -> tuple[int, int]:
    """Write what the broker exports to whoever reads; return bytes and lines.

    Raises:
        UnavailableError: the export broke off: what was written is not all of it.
        BrokenPipeError: the reader went away.
        KbsError: the broker refuses.
    """
    with client.lines(_EXPORT) as source:
        written = _copy(source, file, _STANDARD_OUTPUT)
        with _room(_STANDARD_OUTPUT):
            file.flush()
        return written


def _copy(source: Iterable[bytes], file: BinaryIO, what: str) -> tuple[int, int]:
    size = lines = 0
    under: int | None = None
    with progress("export", None) as advance:
        for line in source:
            if under is None:
                under = _entries_under(line)
            with _room(what):
                file.write(line)
            advance(len(line))
            size, lines = size + len(line), lines + 1
            if not line.endswith(b"\n"):
                raise UnavailableError(
                    "export", got="a line without its end", expected="all of it"
                )
    # A broker that fails half-way cannot take back that it began: the answer just ends.
    if under is None or lines != _HEAD_LINES + under:
        raise UnavailableError(
            "export",
            got=f"{max(0, lines - _HEAD_LINES)} entries",
            expected="all of them" if under is None else f"{under}, as it began with",
            hint="the broker broke off; its log says why",
            code="audit.export",
        )
    return size, lines


def _entries_under(line: bytes) -> int:
    try:
        return parse_checkpoint(parse_checkpoint_line(line)).checkpoint.size
    except MalformedError as exc:
        raise UnavailableError("export", got=f"a first line with {exc}") from exc


@contextmanager
def _room(what: str) -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as exc:
        raise UnavailableError(
            what, got=exc.strerror, expected="room", code="artifact.io"
        ) from exc


def verify_file(path: Path, profile: Path, log_key: str | None) -> Verified:
    """Verify an export offline, under the profile's log key where there is one.

    Raises:
        MalformedError: the file cannot be read or is no export, or the profile or key
            is damaged.
    """
    keys, last = trusted_keys(profile, log_key)
    notes = () if keys else ("no key is pinned: the export vouches for itself",)
    # `reading` gives the bare file, whose readline asks the system for every byte.
    with reading(path) as bare, io.BufferedReader(bare, _BUFFER) as file:
        size = path.stat().st_size
        lines = read_lines(file)
        head = tuple(islice(lines, 2))
        _require_export(path, head)
        if last is not None and _ends_before(head[0], last):
            notes = (
                *notes,
                "the export ends before the last checkpoint seen from this profile",
            )
            last = None
        with progress(f"verify {path.name}", size) as advance:
            told = _telling(chain(head, lines), advance)
            result = _verify(told, keys, last)
    return replace(result, notes=(*notes, *result.notes))


def trusted_keys(
    profile: Path, log_key: str | None
) -> tuple[tuple[LogKey, ...], bytes | None]:
    """Return the log key that counts, given or pinned, and the last checkpoint seen.

    Raises:
        MalformedError: key or profile are damaged.
    """
    if log_key is not None:
        return (parse_vkey(log_key),), None
    if not (profile / PROFILE_FILE).is_file():
        return (), None
    loaded = load_profile(profile)
    seen = loaded.last_checkpoint()
    return (loaded.log_key,), None if seen is None else seen[1]


def verify_stream(client: AdminClient) -> Verified:
    """Verify what the broker exports now; it must extend what was seen before.

    Raises:
        KbsError: the broker refuses, or does not answer.
    """
    seen = client.profile.last_checkpoint()
    last = None if seen is None else seen[1]
    with client.lines(_EXPORT) as source, progress("verify", None) as advance:
        return _verify(_telling(source, advance), (client.profile.log_key,), last)


def _verify(
    lines: Iterable[bytes], keys: tuple[LogKey, ...], previous: bytes | None
) -> Verified:
    try:
        report = verify_export(lines, keys=keys, previous=previous)
    except ExportError as exc:
        report = exc.report
    # Whoever may read every body learns so that the export hides some.
    notes = (report.withheld_words,) if report.withheld else ()
    return Verified(report=report, notes=notes)


def _require_export(path: Path, head: tuple[bytes, ...]) -> None:
    """Tell another file from an export that was damaged, even in its first line."""
    if not head:
        got = "an empty file"
    elif head[0].startswith(_FIRST) or _is_keys_line(head[-1]):
        return
    else:
        got = "another kind of file"
    raise MalformedError(
        f"export {path}", got=got, expected="what kbs audit export FILE wrote"
    )


def _is_keys_line(line: bytes) -> bool:
    try:
        parse_keys_line(line)
    except MalformedError:
        return False
    return True


def _telling(lines: Iterable[bytes], advance: Callable[[int], None]) -> Iterator[bytes]:
    for line in lines:
        advance(len(line))
        yield line


def _ends_before(first: bytes, note: bytes) -> bool:
    # An old export is no rollback; verification finds what is wrong with the line.
    try:
        exported = parse_checkpoint(parse_checkpoint_line(first)).checkpoint
    except KbsError:
        return False
    return exported.size < parse_checkpoint(note).checkpoint.size
