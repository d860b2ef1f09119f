"""Reference integrity manifests in files: the tag itself, or NVIDIA's service's answer.

The service answers with `{"id", "rim": base64, …}`; a tag by itself does not say under
which id it was published, so that the name of its file is taken where it is one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from kbs.cli.inputs import read_input
from kbs.core.checks import CheckLog, Status
from kbs.core.clock import SystemClock
from kbs.core.encode import (
    b64,
    canonical_json,
    parse_b64,
    parse_json_object,
    require_text,
)
from kbs.core.errors import MalformedError, VerificationError
from kbs.evidence.bundle import MAX_BUNDLE_BYTES
from kbs.evidence.model import StoredRim, Trust
from kbs.evidence.nvgpu.manifests import Sources, check_rim
from kbs.evidence.nvgpu.rim import RimHeader, read_header
from kbs.evidence.nvgpu.rim_xml import MAX_RIM_BYTES, is_rim, read_tag
from kbs.evidence.nvgpu.shelf import RimShelf
from kbs.pki.cache import LinkCache

_MAX_ID = 128
_ID = re.compile(r"NV_[A-Z]+_[A-Za-z0-9._-]+", re.ASCII)


def rim_in(data: bytes, what: str, name: str | None = None) -> StoredRim:
    """Return the manifest in a file; `name` is the file's, without its ending.

    Raises:
        MalformedError: it is none of the accepted profile.
    """
    rim_id = name if name is not None and _ID.fullmatch(name) else None
    document = data
    if data.lstrip()[:1] == b"{":
        members = parse_json_object(data, what, limit=4 * MAX_RIM_BYTES)
        rim_id = require_text(members.get("id"), f"{what} id", limit=_MAX_ID)
        document = parse_b64(members.get("rim"), f"{what} rim", limit=MAX_RIM_BYTES)
    if not is_rim(document):
        raise MalformedError(what, got="something else", expected="a RIM (SWID tag)")
    read_tag(document)
    return StoredRim(document, rim_id)


def document_in(data: bytes) -> bytes | None:
    """Return the manifest in an answer of NVIDIA's service; None for all else."""
    try:
        members = parse_json_object(data, "RIM", limit=4 * MAX_RIM_BYTES)
        document = parse_b64(members.get("rim"), "RIM", limit=MAX_RIM_BYTES)
    except MalformedError:
        return None
    return document if "id" in members and is_rim(document) else None


@dataclass(frozen=True, slots=True)
class CheckedRim:
    """A manifest that NVIDIA signed, ready for the broker's table."""

    stored: StoredRim
    header: RimHeader
    stale: str

    @property
    def item(self) -> bytes:
        """What the broker takes it as."""
        return canonical_json(
            {"id": self.stored.rim_id or "", "rim": b64(self.stored.document)}
        )

    def to_json(self) -> dict[str, object]:
        """Return what was found."""
        return {
            "id": self.stored.rim_id,
            "product": self.header.product,
            "version": self.header.version,
            "sha256": self.stored.digest.hex(),
            "stale": self.stale or None,
        }

    def line(self) -> str:
        """Return the same for people."""
        name = self.stored.rim_id or "without an id"
        text = f"{self.header.product} {self.header.version}, {name}"
        return f"{text}; warning: {self.stale}" if self.stale else text


def checked_rims(paths: tuple[Path, ...], rim_id: str | None) -> list[CheckedRim]:
    """Read manifests and check that NVIDIA signed them; the broker checks it again.

    Raises:
        MalformedError: a file holds no manifest, or --id stands beside several.
        VerificationError: its signature or its signer's chain does not hold.
    """
    if rim_id is not None and len(paths) != 1:
        raise MalformedError(
            "--id", got=f"{len(paths)} files", expected="one", code="usage"
        )
    return [_checked(path, rim_id) for path in paths]


def _checked(path: Path, rim_id: str | None) -> CheckedRim:
    data = read_input(path, "RIM", limit=MAX_BUNDLE_BYTES)
    stored = rim_in(data, f"RIM {path}", rim_id or name_in(path))
    trust = Trust(now=SystemClock().now(), require_revocation=False)
    log = CheckLog()
    shelf = RimShelf()
    check_rim(stored, Sources(trust=trust, shelf=shelf, cache=LinkCache()), log)
    failed = [one for one in log.checks if one.status is Status.FAIL]
    if failed:
        raise VerificationError(
            f"RIM {path}: {failed[0].id}",
            got=failed[0].detail,
            expected="a manifest that NVIDIA signed",
            checks=log.checks,
        )
    stale = [one.detail for one in log.checks if one.status is Status.UNCHECKED]
    return CheckedRim(stored, read_header(stored.document), "; ".join(stale))


def name_in(path: Path) -> str:
    """Return a file's name without its ending, of which versions have none."""
    return re.sub(r"\.(?:xml|swidtag|json)\Z", "", path.name, flags=re.IGNORECASE)
