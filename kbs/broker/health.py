"""Whether keys can be released, and what is missing if not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from kbs.broker.commit import refuse_clock_behind
from kbs.broker.governance import Governance
from kbs.broker.ports import Database
from kbs.broker.vault import Vault
from kbs.core.clock import Clock
from kbs.core.errors import KbsError

DISK_RESERVE_BYTES = 64 * 1024 * 1024
"""Free bytes below which the broker says that it is not ready."""


NO_COLLATERAL = (
    "none imported: SNP evidence must bring its certificates, "
    "and revocation cannot be checked"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthReport:
    """What was found; `missing` stops releases, `notes` do not."""

    missing: tuple[tuple[str, str], ...]
    notes: tuple[tuple[str, str], ...]
    development: bool
    kek: str

    @property
    def ready(self) -> bool:
        """Whether keys can be released."""
        return not self.missing

    def to_json(self) -> dict[str, object]:
        """Return the JSON form."""
        return {
            "ready": self.ready,
            "missing": [{"what": what, "detail": text} for what, text in self.missing],
            "notes": [{"what": what, "detail": text} for what, text in self.notes],
            "development": self.development,
            "kek": self.kek,
        }


class Health:
    """Looks at everything that a release needs."""

    def __init__(
        self,
        *,
        database: Database,
        governance: Governance,
        vault: Vault,
        clock: Clock,
        free_bytes: Callable[[], int],
        development: bool,
    ) -> None:
        """Ask `free_bytes` how much room the data folder has."""
        self._database = database
        self._governance = governance
        self._vault = vault
        self._clock = clock
        self._free_bytes = free_bytes
        self._development = development

    def report(self) -> HealthReport:
        """Return what is missing now."""
        missing: list[tuple[str, str]] = []
        notes: list[tuple[str, str]] = []
        self._look_at_database(missing, notes)
        free = self._free_bytes()
        if free < DISK_RESERVE_BYTES:
            missing.append(
                ("disk", f"{free} bytes free, expected at least {DISK_RESERVE_BYTES}")
            )
        if self._development:
            notes.append(("development", "sample evidence is accepted"))
        return HealthReport(
            missing=tuple(missing),
            notes=tuple(notes),
            development=self._development,
            kek=self._vault.provider,
        )

    def _look_at_database(
        self, missing: list[tuple[str, str]], notes: list[tuple[str, str]]
    ) -> None:
        try:
            with self._database.read() as tx:
                refuse_clock_behind(self._clock.now(), tx.log.head().time)
                snapshot = self._governance.snapshot(tx)
                keys = tx.broker_keys.list("response")
                if keys:
                    self._vault.open(
                        keys[-1].sealed,
                        purpose="broker-key.response",
                        blob_id=str(keys[-1].version),
                    )
                if not tx.collateral.list():
                    notes.append(("collateral", NO_COLLATERAL))
                if not snapshot.policies:
                    notes.append(("policies", "none active: everything is denied"))
        except KbsError as exc:
            what = {
                "clock.behind": "clock",
                "keys.kek": "key-encryption key",
                "keys.ciphertext": "key-encryption key",
            }.get(exc.code, "governance" if "governance" in exc.code else "database")
            # Details are for the broker's own log; strangers learn what is missing.
            missing.append((what, exc.code))
