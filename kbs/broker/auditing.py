"""Reading the log: query, show, prove, export; tiles for everyone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from kbs.audit import merkle
from kbs.audit.entry import parse_body
from kbs.audit.export import readable_by, write_export
from kbs.audit.kinds import INSTANCE_WIDE, Kind, Outcome
from kbs.audit.log import LogEntry, QueryFilter
from kbs.audit.merkle import NodeId
from kbs.audit.receipt import Receipt
from kbs.audit.tiles import entry_bundle, parse_path, read_tile
from kbs.broker.actors import Actor
from kbs.broker.checking import check_head, check_log
from kbs.broker.evidence import EvidenceLocker
from kbs.broker.governance import Governance
from kbs.broker.identity import Identity
from kbs.broker.journal import Journal
from kbs.broker.ports import Database, Transaction
from kbs.broker.upkeep import Upkeep
from kbs.core.clock import format_time, parse_time
from kbs.core.encode import b64, parse_hex
from kbs.core.errors import (
    ForbiddenError,
    IntegrityError,
    MalformedError,
    NotFoundError,
    UnavailableError,
)
from kbs.core.ids import parse_hex32, parse_key_id, parse_scoped_name
from kbs.governance.authority import Role

LOG = "audit log"
"""The source of faults that reading the whole log shows."""

SAMPLES_SEARCHED = 1000
"""Aggregate entries looked through for the sample of one decision."""

MAX_INDEX_DIGITS = 18
"""Digits of an index, so that it fits every database's integers."""

OUTCOME_KINDS: Mapping[str, tuple[str, ...]] = {
    Outcome.GRANTED.value: (Kind.RELEASE_GRANTED.value,),
    Outcome.DENIED.value: (Kind.RELEASE_DENIED.value, Kind.REFUSALS.value),
}
"""What `decision=granted` and `decision=denied` mean."""


class Auditing:
    """The use cases of auditors, within their tenants."""

    QUERY_ARGUMENTS = (
        "key",
        "decision",
        "kind",
        "policy",
        "since",
        "until",
        "after",
        "newest",
    )

    def __init__(
        self,
        *,
        database: Database,
        governance: Governance,
        identity: Identity,
        locker: EvidenceLocker,
        upkeep: Upkeep,
        journal: Journal,
    ) -> None:
        """Use what the composition root made."""
        self._journal = journal
        self._database = database
        self._governance = governance
        self._identity = identity
        self._locker = locker
        self._upkeep = upkeep

    def latest_checkpoint(self) -> bytes:
        """Return the latest signed checkpoint.

        Raises:
            NotFoundError: the log is empty.
        """
        with self._database.read() as tx:
            found = tx.log.latest_checkpoint()
        if found is None:
            raise NotFoundError("checkpoint", got="an empty log")
        return found.note

    def tile(self, path: str) -> bytes:
        """Return a tile of hashes, or a bundle of leaves.

        Raises:
            MalformedError: no path of a tile.
            NotFoundError: the log is not that long.
        """
        tile = parse_path(path)
        with self._database.read() as tx:
            size = tx.log.head().size
            if tile.level is not None:
                return read_tile(tx.log, tile, size)
            tile.require_within(size)
            entries = tx.log.read_entries(tile.start, tile.start + tile.width)
        return entry_bundle([entry.leaf for entry in entries])

    def query(
        self, actor: Actor, wanted: Mapping[str, str | None], *, limit: int
    ) -> dict[str, object]:
        """Return entries that match, as far as the auditor's tenants reach.

        Of an entry that concerns other tenants too, only the auditor's own keys show.
        """
        actor.require_anywhere(Role.AUDITOR)
        self._upkeep.flush()
        tenants = actor.tenants(Role.AUDITOR)
        selected = _filter(wanted, tenants, limit)
        with self._database.read() as tx:
            entries = tx.log.query(selected) if _may_ask(selected) else ()
            size = tx.log.head().size
        return {
            "size": size,
            "entries": [_entry_json(entry, tenants) for entry in entries],
        }

    def show(self, actor: Actor, wanted: str) -> dict[str, object]:
        """Return one entry by its id, its decision's id, or that of a sample.

        Raises:
            NotFoundError: there is none, or it concerns other tenants only.
        """
        actor.require_anywhere(Role.AUDITOR)
        self._upkeep.flush()
        with self._database.read() as tx:
            entry, sample = self._find(tx, actor, wanted)
        document = _entry_json(entry, actor.tenants(Role.AUDITOR))
        if sample is not None:
            document["sample"] = sample
        return document

    def prove(self, actor: Actor, wanted: str) -> dict[str, object]:
        """Return the receipt of one entry under the latest checkpoint.

        Raises:
            NotFoundError: there is none.
        """
        actor.require_anywhere(Role.AUDITOR)
        with self._database.read() as tx:
            entry, _ = self._find(tx, actor, wanted)
            # An aggregate holds the samples of every tenant's callers, and a release
            # may concern several tenants.
            whole = _may_read(entry, actor.tenants(Role.AUDITOR))
            latest = tx.log.latest_checkpoint()
            if latest is None or latest.size <= entry.index:
                raise UnavailableError("checkpoint", got="none over this entry yet")
            receipt = Receipt(
                leaf=entry.leaf,
                index=entry.index,
                checkpoint=latest.note,
                inclusion=merkle.inclusion_proof(tx.log, entry.index, latest.size),
                body=entry.body if whole else None,
                salt=entry.salt if whole else None,
            )
        return receipt.to_json()

    def export(self, actor: Actor) -> Iterator[bytes]:
        """Yield the whole log as JSON lines; other tenants' bodies are withheld."""
        actor.require_anywhere(Role.AUDITOR)
        self._upkeep.flush()
        self._log_reading(actor, "audit.export", None)
        return self._export(actor.tenants(Role.AUDITOR))

    def _export(self, tenants: tuple[str, ...] | None) -> Iterator[bytes]:
        with self._database.read() as tx:
            latest = tx.log.latest_checkpoint()
        if latest is None:
            return
        try:
            yield from write_export(
                _Apart(self._database),
                checkpoint=latest.note,
                keys=[self._identity.log_key],
                may_read=readable_by(tenants),
            )
        except IntegrityError as exc:
            # The reader was told 200 long ago; who may act on it hears of it here.
            self._governance.declare(LOG, exc)
            raise

    def consistency(self, actor: Actor, first: int, second: int) -> dict[str, object]:
        """Return the proof that the tree of one size extends that of another.

        Raises:
            MalformedError: sizes out of order, or beyond the log.
        """
        actor.require_any()
        with self._database.read() as tx:
            size = tx.log.head().size
            if not 0 < first <= second <= size:
                raise MalformedError(
                    "sizes", got=f"{first}, {second}", expected=f"0 < a <= b <= {size}"
                )
            proof = merkle.consistency_proof(tx.log, first, second)
        return {"first": first, "second": second, "proof": [b64(one) for one in proof]}

    def evidence(self, actor: Actor, digest: str) -> dict[str, object]:
        """Return recorded evidence, decrypted.

        Raises:
            NotFoundError: it is not kept.
            ForbiddenError: it concerns tenants that the auditor's role does not reach.
        """
        actor.require_anywhere(Role.AUDITOR)
        wanted = parse_hex(digest, "evidence digest", size=32)
        with self._database.read() as tx:
            found = tx.evidence.find(wanted)
            if found is None:
                raise NotFoundError(f"evidence {digest}", got="none kept")
            entry, _ = self._find(tx, actor, found.decision)
            if not _may_read(entry, actor.tenants(Role.AUDITOR)):
                raise ForbiddenError(
                    f"evidence {digest}",
                    got=f"administrator {actor.name}",
                    expected="an auditor of every tenant whose keys it was sent for",
                    code="admin.role",
                )
            data = self._locker.open(tx, wanted)
        self._log_reading(actor, "audit.evidence", f"evidence {digest}")
        return {"digest": digest, "decision": found.decision, "bundle": b64(data)}

    def _log_reading(self, actor: Actor, action: str, target: str | None) -> None:
        # Device identities and bodies leave the broker: who took them is on record.
        self._journal.administer(actor, action, lambda _: None, target=target)

    def integrity(self, actor: Actor) -> dict[str, object]:
        """Read and verify governance and the whole log anew.

        Raises:
            IntegrityError: something is not what was signed.
        """
        actor.require_anywhere(Role.AUDITOR)
        with self._database.read() as tx:
            snapshot = self._governance.reload(tx)
            try:
                check_head(tx, self._identity.log_key, snapshot.state)
                checkpoint = check_log(tx, self._identity.log_key)
            except IntegrityError as exc:
                self._governance.declare(LOG, exc)
                raise
        self._governance.declare(LOG, None)
        return {
            "statements": snapshot.state.head_seq,
            "entries": checkpoint.size,
            "root": checkpoint.root.hex(),
        }

    def _find(
        self, tx: Transaction, actor: Actor, wanted: str
    ) -> tuple[LogEntry, dict[str, object] | None]:
        tenants = actor.tenants(Role.AUDITOR)
        entry = tx.log.find_entry(wanted)
        if entry is None:
            found = tx.log.query(QueryFilter(decision=wanted, limit=1))
            entry = found[0] if found else None
        if entry is not None and _may_list(entry, tenants):
            return entry, None
        if entry is None:
            sampled = _find_sample(tx, wanted)
            if sampled is not None:
                return sampled
        raise NotFoundError(
            f"entry {wanted}",
            got="no entry, decision or sample of this id",
            hint="refusals that never authenticated are kept as samples only",
        )


class _Apart:
    """Reads what never changes again, a transaction for each piece.

    Whoever reads an export slowly would hold one for as long: connections are few, and
    what a snapshot sees is not erased from the files.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def read_entries(self, start: int, stop: int) -> Sequence[LogEntry]:
        with self._database.read() as tx:
            return tx.log.read_entries(start, stop)

    def read_nodes(self, ids: Sequence[NodeId]) -> Mapping[NodeId, bytes]:
        with self._database.read() as tx:
            return tx.log.read_nodes(ids)


def _may_list(entry: LogEntry, tenants: tuple[str, ...] | None) -> bool:
    """Whether an auditor may know of an entry: it concerns one of their tenants."""
    if tenants is None or Kind(entry.kind) in INSTANCE_WIDE:
        return True
    return not set(tenants).isdisjoint(entry.tenants)


def _may_read(entry: LogEntry, tenants: tuple[str, ...] | None) -> bool:
    """Whether an auditor may have a body: it concerns nobody but their tenants."""
    return Kind(entry.kind) in INSTANCE_WIDE or readable_by(tenants)(entry)


def _may_ask(wanted: QueryFilter) -> bool:
    # Who could ask which entries name another tenant's key would read what is withheld.
    named = [name for name in (wanted.key, wanted.policy) if name is not None]
    return wanted.tenants is None or all(
        name.partition("/")[0] in wanted.tenants for name in named
    )


def _find_sample(
    tx: Transaction, wanted: str
) -> tuple[LogEntry, dict[str, object]] | None:
    aggregates = tx.log.query(
        QueryFilter(kinds=(Kind.REFUSALS.value,), newest=True, limit=SAMPLES_SEARCHED)
    )
    for entry in reversed(aggregates):
        samples = parse_body(entry.body).members.get("samples")
        for sample in samples if isinstance(samples, list) else []:
            if isinstance(sample, dict) and sample.get("decision") == wanted:
                return entry, sample
    return None


def _filter(
    wanted: Mapping[str, str | None], tenants: tuple[str, ...] | None, limit: int
) -> QueryFilter:
    key, kind, decision = wanted.get("key"), wanted.get("kind"), wanted.get("decision")
    kinds: tuple[str, ...] | None = None if kind is None else (_kind(kind),)
    if decision is not None and decision in OUTCOME_KINDS:
        outcome = OUTCOME_KINDS[decision]
        kinds = outcome if kinds is None else tuple({*kinds}.intersection(outcome))
        decision = None
    policy, since, until = (wanted.get(name) for name in ("policy", "since", "until"))
    return QueryFilter(
        key=None if key is None else str(parse_key_id(key)),
        tenants=tenants,
        decision=None if decision is None else parse_hex32(decision, "decision"),
        kinds=kinds,
        policy=None if policy is None else str(parse_scoped_name(policy, "policy")),
        since=None if since is None else parse_time(since, "since"),
        until=None if until is None else parse_time(until, "until"),
        after_index=_index(wanted.get("after")),
        newest=_flag(wanted.get("newest"), "newest"),
        limit=max(1, limit),
    )


def _index(text: str | None) -> int | None:
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= MAX_INDEX_DIGITS):
        raise MalformedError("after", got=repr(text)[:40], expected="an index")
    return int(text)


def _flag(text: str | None, what: str) -> bool:
    if text not in (None, "true", "false"):
        raise MalformedError(what, got=repr(text)[:40], expected="true or false")
    return text == "true"


def _kind(text: str) -> str:
    if text not in {kind.value for kind in Kind}:
        raise MalformedError(
            "kind",
            got=repr(text)[:40],
            expected=", ".join(kind.value for kind in Kind),
        )
    return text


def _entry_json(entry: LogEntry, tenants: tuple[str, ...] | None) -> dict[str, object]:
    members = parse_body(entry.body).members
    if not _may_read(entry, tenants):
        members = {"withheld": True, **_own_keys(members, tenants or ())}
    return {
        "index": entry.index,
        "id": entry.id,
        "kind": entry.kind,
        "decision": entry.decision,
        "body": _body_json(entry, members),
    }


def _own_keys(
    members: Mapping[str, object], tenants: tuple[str, ...]
) -> dict[str, object]:
    """Return what of a shared body is about keys of these tenants."""
    keys = members.get("keys")
    own = [
        key
        for key in (keys if isinstance(keys, list) else [])
        if str(key.get("id")).partition("/")[0] in tenants
    ]
    return {"keys": own} if own else {}


def _body_json(entry: LogEntry, members: Mapping[str, object]) -> dict[str, object]:
    return {
        "id": entry.id,
        "time": format_time(entry.time),
        "kind": entry.kind,
        **members,
    }
