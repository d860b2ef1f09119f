"""Evidence of an SEV-SNP guest through Linux's configfs-tsm.

Linux: Documentation/ABI/testing/configfs-tsm-report. One folder below the report folder
is one request: `inblob` takes REPORT_DATA, `outblob` gives the report, `auxblob` the
host's certificate table (AMD/Linux GHCB 56421, section 4.1.8.1). `generation` counts
the writes, so that an answer to somebody else's question is noticed.
"""

from __future__ import annotations

import secrets
import uuid
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from kbs.client.attester import Collected, require_binding
from kbs.core.encode import b64
from kbs.core.errors import MalformedError, UnavailableError
from kbs.core.reader import Reader
from kbs.evidence.snp.abi import parse_report

REPORT_FOLDER = Path("/sys/kernel/config/tsm/report")
PROVIDER = "sev_guest"

# AMD 56860, table 23: REPORT_DATA has 64 bytes; binding.md: P, then zeros.
_REPORT_DATA_SIZE = 64
_ATTEMPTS = 5
_ATTRIBUTE_LIMIT = 64 * 1024

# GHCB 56421, table 7: GUID, offset and length of each certificate, then zeros.
_TABLE_LIMIT = 16
_CRL_GUID = uuid.UUID("92f81bc3-5811-4d3d-97ff-d19f88dc67ea")
CERTIFICATE_GUIDS = {
    uuid.UUID("63da758d-e664-4564-adc5-f4b93be8accd"): "VCEK",
    uuid.UUID("a8074bc2-a25a-483e-aae6-39c045a0b8a1"): "VLEK",
    uuid.UUID("4ab7b379-bbac-4fe4-a02f-05aef327c782"): "ASK",
    uuid.UUID("c0b406a4-a803-4952-9743-3fb6014cd0ae"): "ARK",
}


class TsmEntry(Protocol):
    """One report request: a folder with attributes."""

    def read(self, attribute: str) -> bytes:
        """Return an attribute's value."""
        ...

    def write(self, attribute: str, value: bytes) -> None:
        """Set an attribute."""
        ...

    def remove(self) -> None:
        """Give the request back."""
        ...


class TsmReports(Protocol):
    """The folder of requests."""

    def create(self) -> TsmEntry:
        """Make a new request.

        Raises:
            UnavailableError: the kernel offers none.
        """
        ...


@dataclass(frozen=True, slots=True)
class ConfigfsEntry:
    """A request in configfs."""

    folder: Path

    def read(self, attribute: str) -> bytes:
        """Return an attribute's value."""
        with (self.folder / attribute).open("rb") as file:
            return file.read(_ATTRIBUTE_LIMIT)

    def write(self, attribute: str, value: bytes) -> None:
        """Set an attribute, in one write as configfs wants it."""
        with (self.folder / attribute).open("wb", buffering=0) as file:
            file.write(value)

    def remove(self) -> None:
        """Remove the folder; its attributes go with it."""
        self.folder.rmdir()


@dataclass(frozen=True, slots=True)
class ConfigfsReports:
    """The kernel's folder of requests."""

    root: Path = REPORT_FOLDER

    def create(self) -> TsmEntry:
        """Make a new request with a random name.

        Raises:
            UnavailableError: there is no such folder, or it may not be used.
        """
        folder = self.root / f"kbs-{secrets.token_hex(8)}"
        try:
            folder.mkdir(mode=0o700)
        except OSError as exc:
            raise UnavailableError(
                f"configfs-tsm at {self.root}",
                got=exc.strerror,
                expected="the report folder of a confidential guest",
                hint="mount configfs, load sev-guest, run as root",
            ) from exc
        return ConfigfsEntry(folder)


@dataclass(frozen=True, slots=True)
class SnpAttester:
    """Asks the AMD secure processor for reports."""

    reports: TsmReports = field(default_factory=ConfigfsReports)

    @property
    def kind(self) -> str:
        """The `kind` of its item."""
        return "snp"

    def collect(self, binding: bytes) -> Collected:
        """Return a report whose REPORT_DATA is the binding and 16 zero bytes.

        Raises:
            UnavailableError: the kernel or the secure processor does not answer.
        """
        report_data = require_binding(binding).ljust(_REPORT_DATA_SIZE, b"\0")
        entry = self.reports.create()
        try:
            report, table = _request(entry, report_data)
        except OSError as exc:
            raise UnavailableError(
                "SNP report", got=exc.strerror or type(exc).__name__
            ) from exc
        finally:
            with suppress(OSError):
                entry.remove()
        if parse_report(report).report_data != report_data:
            raise UnavailableError(
                "SNP report", got="another REPORT_DATA", expected="the one asked for"
            )
        certificates, crl = parse_certificate_table(table)
        item: dict[str, object] = {
            "kind": self.kind,
            "report": b64(report),
            "certificates": [b64(der) for der in certificates],
        }
        if crl is not None:
            item["crl"] = b64(crl)
        return Collected(item, report)


def parse_certificate_table(data: bytes) -> tuple[tuple[bytes, ...], bytes | None]:
    """Return the certificates (DER) of a host's table, and its CRL if there is one.

    The host fills the table and is not trusted: it can only leave things out. Entries
    with GUIDs of other vendors are passed over.

    Raises:
        MalformedError: an entry points outside, or the table does not end.
    """
    certificates: list[bytes] = []
    crl = None
    for guid, value in _entries(data):
        if guid in CERTIFICATE_GUIDS:
            certificates.append(value)
        elif guid == _CRL_GUID:
            crl = value
    return tuple(certificates), crl


def _entries(data: bytes) -> list[tuple[uuid.UUID, bytes]]:
    entries: list[tuple[uuid.UUID, bytes]] = []
    if not data:
        return entries
    reader = Reader(data, "certificate table")
    while True:
        # Digits in the order they are written, not EFI's mixed order: hosts make the
        # table with uuid_parse().
        guid = uuid.UUID(bytes=reader.take(16, "GUID"))
        offset = reader.little(4, "offset")
        size = reader.little(4, "length")
        if not guid.int:
            return entries
        if offset + size > len(data) or len(entries) == _TABLE_LIMIT:
            raise MalformedError(
                f"certificate table entry {guid}",
                got=f"offset {offset}, length {size}",
                expected=f"at most {_TABLE_LIMIT} entries within {len(data)} bytes",
            )
        entries.append((guid, data[offset : offset + size]))


def _request(entry: TsmEntry, report_data: bytes) -> tuple[bytes, bytes]:
    provider = entry.read("provider").strip().decode("ascii", "replace")
    if provider != PROVIDER:
        raise UnavailableError(
            "configfs-tsm provider", got=provider[:40], expected=PROVIDER
        )
    for _ in range(_ATTEMPTS):
        before = _generation(entry)
        entry.write("inblob", report_data)
        report, table = entry.read("outblob"), entry.read("auxblob")
        # One write, ours, counts one; more is another program in the same folder.
        if _generation(entry) == before + 1:
            return report, table
    raise UnavailableError(
        "configfs-tsm generation",
        got=f"changes by others during each of {_ATTEMPTS} reports",
        expected="one write, ours",
    )


def _generation(entry: TsmEntry) -> int:
    text = entry.read("generation").strip()
    if not text.isdigit():
        raise UnavailableError(
            "configfs-tsm generation", got=repr(text)[:40], expected="a number"
        )
    return int(text)
