"""What the use cases of this door share."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from kbs.broker.collateral import CollateralTable
from kbs.broker.identity import Identity
from kbs.broker.journal import Journal
from kbs.broker.lines import DecisionLines
from kbs.broker.ports import Database
from kbs.broker.refusals import RefusalCounter
from kbs.broker.vault import Vault
from kbs.core.clock import Clock
from kbs.core.encode import canonical_json


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """What attesting and fetching share."""

    database: Database
    identity: Identity
    vault: Vault
    journal: Journal
    collateral: CollateralTable
    refusals: RefusalCounter
    lines: DecisionLines
    clock: Clock
    development: bool
    steps: Callable[[str], None] = lambda _: None
    """Told of each step as it is reached."""


def recipient_digest(jwk: dict[str, str]) -> str:
    """Return what the log says of the key that things are sealed to."""
    return hashlib.sha256(canonical_json(jwk)).hexdigest()
