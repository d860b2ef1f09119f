"""Evidence that proves nothing, for trying things out.

The broker takes it in development mode only, and says so in every decision.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from kbs.client.attester import Collected, require_binding
from kbs.core.encode import b64, canonical_json


@dataclass(frozen=True, slots=True)
class SampleAttester:
    """Says whatever `claims` says; anyone can."""

    claims: Mapping[str, object] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """The `kind` of its item."""
        return "sample"

    def collect(self, binding: bytes) -> Collected:
        """Return an item whose report_data is the binding."""
        item: dict[str, object] = {
            "kind": self.kind,
            "report_data": b64(require_binding(binding)),
        }
        if self.claims:
            item["claims"] = dict(self.claims)
        return Collected(item, canonical_json(item))
