"""Remembers what was found of manifests, by the digest of the document.

The same bytes have the same signature for ever, so a remembered answer cannot go stale.
Dates, revocation and trust are not remembered. Losing it costs time only.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from threading import Lock

from kbs.core.errors import MalformedError, VerificationError
from kbs.evidence.model import StoredRim
from kbs.evidence.nvgpu.rim import Rim, RimHeader, read_header, verify_rim

_DEFAULT_LIMIT = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadRim:
    """One manifest as found: `rim` when its signature holds, else `fault` says why."""

    header: RimHeader
    rim: Rim | None = None
    fault: str = ""


class RimShelf:
    """What was found of the manifests seen last."""

    __slots__ = ("_known", "_limit", "_lock")

    def __init__(self, limit: int = _DEFAULT_LIMIT) -> None:
        """Start empty; remember at most `limit` manifests."""
        self._limit = limit
        self._known: OrderedDict[bytes, ReadRim | str] = OrderedDict()
        self._lock = Lock()

    def read(self, stored: StoredRim) -> ReadRim | str:
        """Return what a manifest is, or why it is none."""
        with self._lock:
            known = self._known.get(stored.digest)
            if known is not None:
                self._known.move_to_end(stored.digest)
                return known
        found = _read(stored.document)
        with self._lock:
            self._known[stored.digest] = found
            while len(self._known) > self._limit:
                self._known.popitem(last=False)
        return found


def _read(document: bytes) -> ReadRim | str:
    try:
        header = read_header(document)
    except MalformedError as exc:
        return str(exc)
    try:
        return ReadRim(header=header, rim=verify_rim(document))
    except VerificationError as exc:
        return ReadRim(header=header, fault=str(exc))
    except MalformedError as exc:
        return str(exc)
