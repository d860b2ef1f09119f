"""Exports of the log: written from the broker, verified from a file or a stream."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import BinaryIO

from kbs.artifacts.files import reading, replacing
from kbs.audit.checkpoint import parse_checkpoint
from kbs.audit.export import MAX_LINE, parse_checkpoint_line
from kbs.audit.logkey import LogKey, parse_vkey
from kbs.audit.report import ExportError, ExportReport
from kbs.audit.verification import verify_export
from kbs.cli.admin_client import AdminClient
from kbs.cli.profile import PROFILE_FILE, SECRET_MODE, load_profile
from kbs.cli.render import progress
from kbs.core.errors import KbsError, MalformedError, UnavailableError

_EXPORT = "/admin/v1/audit/export"


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
    size = lines = 0
    # The file first: an export that is asked for is in the log, wherever it ends.
    with (
        replacing(path, mode=SECRET_MODE) as file,
        client.lines(_EXPORT) as source,
        progress("export", None) as advance,
    ):
        for line in source:
            _write(file, line, path)
            advance(len(line))
            size, lines = size + len(line), lines + 1
            if not line.endswith(b"\n"):
                raise UnavailableError(
                    "export", got="a line without its end", expected="all of it"
                )
    return size, lines


def _write(file: BinaryIO, line: bytes, path: Path) -> None:
    try:
        file.write(line)
    except OSError as exc:
        raise UnavailableError(
            f"output {path}", got=exc.strerror, expected="room", code="artifact.io"
        ) from exc


def verify_file(path: Path, profile: Path, log_key: str | None) -> Verified:
    """Verify an export offline, under the profile's log key where there is one.

    Raises:
        MalformedError: the file cannot be read, or the profile or key is damaged.
    """
    keys: tuple[LogKey, ...] = ()
    last: bytes | None = None
    if log_key is not None:
        keys = (parse_vkey(log_key),)
    elif (profile / PROFILE_FILE).is_file():
        loaded = load_profile(profile)
        keys = (loaded.log_key,)
        seen = loaded.last_checkpoint()
        last = None if seen is None else seen[1]
    notes = () if keys else ("no key is pinned: the export vouches for itself",)
    with reading(path) as file:
        size = path.stat().st_size
        if size == 0:
            raise MalformedError(
                f"export {path}", got="an empty file", expected="kbs audit export FILE"
            )
        lines = _lines(file.readline)
        first = next(lines, b"")
        if last is not None and _ends_before(first, last):
            notes = (
                *notes,
                "the export ends before the last checkpoint seen from this profile",
            )
            last = None
        with progress(f"verify {path.name}", size) as advance:
            told = _telling(chain([first] if first else [], lines), advance)
            result = _verify(told, keys, last)
    return replace(result, notes=notes)


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
        return Verified(report=exc.report)
    return Verified(report=report)


def _lines(readline: Callable[[int], bytes | None]) -> Iterator[bytes]:
    while line := readline(MAX_LINE + 1):
        yield line


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
