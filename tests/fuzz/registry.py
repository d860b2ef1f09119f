"""Every fuzz target, by name. A family of evidence adds its `TARGETS` here."""

from __future__ import annotations

from collections.abc import Mapping

from tests.fuzz import (
    clouds,
    documents,
    evidence,
    intel,
    keys,
    nvidia,
    services,
    tokens,
)
from tests.fuzz.target import Target

TARGETS: Mapping[str, Target] = {
    target.name: target
    for module in (evidence, intel, clouds, nvidia, services, tokens, keys, documents)
    for target in module.TARGETS
}
