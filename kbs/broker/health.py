"""Whether keys can be released, and what is missing if not.

Anybody may ask, as often as the rate limit lets them: what is looked at is in memory,
or one small row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from kbs.broker.collateral import CollateralTable
from kbs.broker.commit import refuse_clock_behind
from kbs.broker.governance import Governance
from kbs.broker.intel_collateral import lacking_documents
from kbs.broker.ports import Database, Transaction
from kbs.broker.refresh import Refresher
from kbs.broker.snapshot import Snapshot
from kbs.broker.vault import Vault
from kbs.core.clock import Clock
from kbs.core.errors import KbsError, UnavailableError
from kbs.evidence.model import GivenCollateral
from kbs.evidence.snp.products import ProductLine
from kbs.governance.objects import Purpose
from kbs.pki.cache import LinkCache
from kbs.pki.certificates import describe
from kbs.pki.crl import is_current, standing
from kbs.policy.analysis import families_of

DISK_RESERVE_BYTES = 64 * 1024 * 1024
"""Free bytes below which the broker says that it is not ready."""


NO_COLLATERAL = (
    "none imported: SNP evidence must bring its certificates, "
    "and revocation cannot be checked"
)

# Families of claims whose evidence has a report of SNP in it.
_ON_SNP = frozenset({"snp", "azure_snp"})

_LOOK_SECONDS = 60
_Looked = tuple[Snapshot, GivenCollateral, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """Something that is not there; `blocking` if nothing is released without it."""

    what: str
    detail: str
    blocking: bool = True

    def to_json(self) -> dict[str, object]:
        """Return the JSON form."""
        return {"what": self.what, "detail": self.detail, "blocking": self.blocking}


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthReport:
    """What was found; `notes` are for information."""

    missing: tuple[Missing, ...]
    notes: tuple[tuple[str, str], ...]
    development: bool
    kek: str

    @property
    def ready(self) -> bool:
        """Whether keys can be released."""
        return not any(one.blocking for one in self.missing)

    def to_json(self) -> dict[str, object]:
        """Return the JSON form."""
        return {
            "ready": self.ready,
            "missing": [one.to_json() for one in self.missing],
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
        collateral: CollateralTable,
        clock: Clock,
        free_bytes: Callable[[], int],
        unwritten: Callable[[], UnavailableError | None],
        development: bool,
        refresher: Refresher | None = None,
    ) -> None:
        """Ask `free_bytes` how much room the data folder has.

        `unwritten` says why the last write failed, if it did.
        """
        self._refresher = refresher
        self._database = database
        self._governance = governance
        self._vault = vault
        self._collateral = collateral
        self._links = LinkCache()
        self._unlisted: tuple[_Looked, int] | None = None
        self._needing: tuple[Snapshot, bool] | None = None
        self._named: tuple[Snapshot, frozenset[str]] | None = None
        self._clock = clock
        self._free_bytes = free_bytes
        self._unwritten = unwritten
        self._development = development

    def report(self) -> HealthReport:
        """Return what is missing now."""
        missing: list[Missing] = []
        notes: list[tuple[str, str]] = []
        self._look_at_database(missing, notes)
        unwritten = self._unwritten()
        if unwritten is not None and all(one.what != "database" for one in missing):
            missing.append(Missing(what="database", detail=unwritten.code))
        free = self._free_bytes()
        if free < DISK_RESERVE_BYTES:
            detail = f"{free} bytes free, expected at least {DISK_RESERVE_BYTES}"
            missing.append(Missing(what="disk", detail=detail))
        if self._refresher is not None:
            # Details, like who asks a vendor what, are for the broker's own log.
            late = len(self._refresher.overdue())
            if late:
                text = f"{late} items could not be fetched anew yet: see the log"
                missing.append(Missing(what="refresh", detail=text, blocking=False))
        if self._development:
            notes.append(("development", "sample evidence is accepted"))
        return HealthReport(
            missing=tuple(missing),
            notes=tuple(notes),
            development=self._development,
            kek=self._vault.provider,
        )

    def _look_at_database(
        self, missing: list[Missing], notes: list[tuple[str, str]]
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
                self._look_at_collateral(tx, snapshot, missing, notes)
                if not snapshot.policies:
                    notes.append(("policies", "none active: everything is denied"))
        except KbsError as exc:
            what = {
                "clock.behind": "clock",
                "keys.kek": "key-encryption key",
                "keys.ciphertext": "key-encryption key",
                "collateral.tampered": "collateral",
                "trust.away": "trust folder",
            }.get(exc.code, "governance" if "governance" in exc.code else "database")
            # Details are for the broker's own log; strangers learn what is missing.
            missing.append(Missing(what=what, detail=exc.code))

    def _look_at_collateral(
        self,
        tx: Transaction,
        snapshot: Snapshot,
        missing: list[Missing],
        notes: list[tuple[str, str]],
    ) -> None:
        table = self._collateral.current(tx)
        lacking = self._lines_without_list(table)
        if len(lacking) == len(ProductLine) and self._needs_lists(snapshot):
            detail = (
                f"no AMD revocation list that is current now for {', '.join(lacking)}: "
                "SNP evidence that brings none is answered 503"
            )
            # Evidence may bring a list of its own, and other evidence needs none.
            missing.append(Missing(what="collateral", detail=detail, blocking=False))
        elif not (table.certificates() or table.revocation_lists()):
            notes.append(("collateral", NO_COLLATERAL))
        elif lacking and self._needs_lists(snapshot):
            notes.append(
                ("collateral", f"no current AMD list for {', '.join(lacking)}")
            )
        documents = lacking_documents(
            table, self._families(snapshot), self._clock.now()
        )
        if documents:
            detail = (
                f"no {', '.join(documents)} of Intel that stands now: evidence that "
                "brings none is answered 503"
            )
            missing.append(Missing(what="collateral", detail=detail, blocking=False))
        unlisted = self._cas_without_list(snapshot, table)
        if unlisted:
            # Anybody may ask, so no tenant is named.
            detail = (
                f"{unlisted} registered CAs of attestation keys without a revocation "
                "list that is current now: keys that they certify are answered 503"
            )
            missing.append(Missing(what="collateral", detail=detail, blocking=False))

    def _cas_without_list(self, snapshot: Snapshot, table: GivenCollateral) -> int:
        now, lists = self._clock.now(), table.revocation_lists()
        # Asked for by anybody: looked at anew once a minute, or when either changed.
        state = (snapshot, table, int(now.timestamp()) // _LOOK_SECONDS)
        known = self._unlisted
        if known is not None and _is_same(known[0], state):
            return known[1]
        count = sum(
            standing((), ca.certificate, lists, now=now, cache=self._links).current
            is None
            for ca in snapshot.cas
            if ca.purpose == Purpose.AK
        )
        self._unlisted = (state, count)
        return count

    def _lines_without_list(self, table: GivenCollateral) -> tuple[str, ...]:
        # Who signed a list is for the verifier to say, which has the chain.
        now = self._clock.now()
        issuers = {
            describe(crl.issuer)
            for crl in table.revocation_lists()
            if is_current(crl, now)
        }
        return tuple(
            line.value for line in ProductLine if f"ARK-{line.value}" not in issuers
        )

    def _needs_lists(self, snapshot: Snapshot) -> bool:
        known = self._needing
        if known is None or known[0] is not snapshot:
            known = (snapshot, self._names_snp(snapshot))
            self._needing = known
        return known[1]

    def _families(self, snapshot: Snapshot) -> frozenset[str]:
        known = self._named
        if known is None or known[0] is not snapshot:
            families = {
                family
                for policies in snapshot.policies.values()
                for policy in policies
                for rule in policy.parsed.policy.allow
                for family in families_of(rule, self._governance.vocabulary)
            }
            known = (snapshot, frozenset(families))
            self._named = known
        return known[1]

    def _names_snp(self, snapshot: Snapshot) -> bool:
        return any(
            not _ON_SNP.isdisjoint(families_of(rule, self._governance.vocabulary))
            for policies in snapshot.policies.values()
            for policy in policies
            if not policy.parsed.policy.tolerate_missing_revocation
            for rule in policy.parsed.policy.allow
        )


def _is_same(known: _Looked, now: _Looked) -> bool:
    # Snapshots are compared by identity: what is in them may be large.
    return known[0] is now[0] and known[1] is now[1] and known[2] == now[2]
