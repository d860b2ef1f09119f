"""Which bytes prove an RCAR request: that protocol's own formulas, SHA-384.

::

    device   SHA-384(JCS({"nonce", "tee-pubkey"}))
    primary  SHA-384(JCS({"additional-evidence", "nonce", "tee-pubkey"}))

The primary covers every device through the text of `additional_evidence`, byte for
byte. JCS starts with `{` and the bindings of v1 do not, so neither passes for the
other (`binding.md`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kbs.channel.tee_key import TeeKey
from kbs.core.encode import canonical_json


@dataclass(frozen=True, slots=True)
class RcarBinding:
    """The bindings of one message, in the shape that bundle verification asks for."""

    nonce: str
    tee_key: TeeKey
    additional: str

    def primary(self, kind: str, devices: Sequence[tuple[str, str]]) -> bytes:
        """Return what the primary must carry; the same for every kind."""
        del kind, devices  # covered by the text of the additional evidence
        return _digest({"additional-evidence": self.additional, **self._common()})

    def device(self, kind: str) -> bytes:
        """Return what every device must carry."""
        del kind
        return _digest(self._common())

    def carried(self, kind: str, digest: bytes) -> bytes | None:
        """Return the digest as it is for VMs of Azure: extraData is not cut there."""
        return digest if kind == "azure" else None

    def beside(self) -> Mapping[str, bytes]:
        """Return nothing: the protocol has no evidence with further fields."""
        return {}

    def _common(self) -> dict[str, object]:
        return {"nonce": self.nonce, "tee-pubkey": self.tee_key.to_json()}


def _digest(value: dict[str, object]) -> bytes:
    return hashlib.sha384(canonical_json(value)).digest()
