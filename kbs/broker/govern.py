"""Changing what is in force: store a version, accept a signed statement, show both.

Storing puts nothing in force. A statement does, if the authority's keys signed it; the
signatures decide, not who carries it here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Protocol

from kbs.audit.events import GovernanceChange
from kbs.broker.acceptance import (
    check_one_group,
    check_values,
    refuse_mistyped,
    require_undenied,
    require_unmoved,
    require_unused,
    stored_content,
)
from kbs.broker.actors import Actor
from kbs.broker.commit import Work
from kbs.broker.governance import Governance
from kbs.broker.journal import Journal
from kbs.broker.objects import read_source
from kbs.broker.pending import PendingSeal
from kbs.broker.ports import Database, StoredObject, StoredStatement, Transaction
from kbs.broker.reading import read_latest
from kbs.broker.snapshot import Proven, Snapshot
from kbs.broker.view import GovernedView
from kbs.core.clock import Clock, format_time
from kbs.core.encode import b64, parse_b64, require_members
from kbs.core.errors import (
    ConflictError,
    IntegrityError,
    KbsError,
    MalformedError,
    NotFoundError,
)
from kbs.core.ids import ScopedName, parse_name
from kbs.governance.authority import Role
from kbs.governance.chain import extend
from kbs.governance.contents import read_attestation_key
from kbs.governance.objects import MAX_OBJECT_BYTES
from kbs.governance.rules import SIGNERS
from kbs.governance.state import GovernanceState
from kbs.governance.statement import (
    ACTIONS,
    BRINGING,
    EVERY_TENANT,
    Envelope,
    Kind,
    Statement,
    parse_envelope,
)
from kbs.policy.context import missing_names
from kbs.policy.parse import parse_release_policy
from kbs.policy.references import reference_faults

InForceName = tuple[str, ScopedName, int, str]
"""Kind, name, version and digest of an object."""


class Mark(Protocol):
    """Writes the high-water mark now."""

    def write(self) -> None:
        """Make the mark durable before a statement is acknowledged."""
        ...


class Governing:
    """The use cases of policy administrators."""

    def __init__(
        self,
        *,
        database: Database,
        governance: Governance,
        journal: Journal,
        clock: Clock,
        mark: Mark,
        seal: PendingSeal,
    ) -> None:
        """Use what the composition root made."""
        self._seal = seal
        self._database = database
        self._governance = governance
        self._journal = journal
        self._clock = clock
        self._mark = mark

    def prove(self, tx: Transaction) -> GovernanceState:
        """Return what is in force if all of it is what was signed.

        Raises:
            IntegrityError: it is not.
        """
        return self._governance.reload(tx).state

    def watch(self) -> None:
        """Prove everything in force anew; what is found is reported, not raised."""
        with suppress(KbsError), self._database.read() as tx:
            self.prove(tx)

    def head(self, actor: Actor) -> dict[str, object]:
        """Return what the next statement must follow, and the authority in force."""
        actor.require_any()
        state = read_latest(self._database, self._governance.snapshot).state
        return {
            "instance": state.instance,
            "seq": state.head_seq,
            "prev": state.head_hash,
            "authority": state.authority.content.to_json(),
            "authority_version": state.authority.version,
            "authority_digest": state.authority.digest,
        }

    def statements(self, actor: Actor, *, after: int) -> dict[str, object]:
        """Return the envelopes after a number, as canonical JSON texts."""
        actor.require_any()
        with self._database.read() as tx:
            rows = tx.governance.statements(after)
        return {
            "statements": [
                {
                    "seq": row.seq,
                    "accepted": format_time(row.accepted),
                    "envelope": row.envelope.decode("utf-8"),
                }
                for row in rows
            ]
        }

    def store(self, actor: Actor, body: dict[str, object]) -> dict[str, object]:
        """Validate a governed object and keep it as the next version of its name.

        Raises:
            MalformedError: it is not what its kind must be; says line and column.
            ForbiddenError: no role in its tenant.
        """
        members = require_members(
            body, "object", required={"kind", "tenant", "name", "source"}
        )
        kind = _parse_kind(members["kind"])
        tenant = _parse_tenant(members["tenant"], kind)
        name = parse_name(members["name"], f"{kind} name")
        source = parse_b64(members["source"], "source", limit=MAX_OBJECT_BYTES)
        # It puts nothing in force, but it fills the database: for those who sign.
        actor.require_one_of({*SIGNERS[kind], Role.APPROVER}, tenant)
        content = read_source(
            kind, source, subject=ScopedName(tenant, name), governance=self._governance
        )

        draft = StoredObject(
            kind=kind.value,
            tenant=tenant,
            name=name,
            version=1,
            digest=content.digest,
            content=content.data,
            source=source,
            registered=self._clock.now(),
        )

        def keep(work: Work) -> StoredObject:
            return _keep(work.tx, draft)

        stored = self._journal.administer(
            actor,
            "object.store",
            keep,
            target=f"{kind} {tenant}/{name}",
            tenant=None if tenant == EVERY_TENANT else tenant,
            detail=f"digest {content.digest}",
        ).value
        return {**_row_json(stored), "warnings": list(content.warnings)}

    def accept(self, actor: Actor, body: dict[str, object]) -> dict[str, object]:
        """Accept a signed statement; it is in force, and marked, when this returns.

        Raises:
            MalformedError: no envelope, or its object cannot be put in force.
            ForbiddenError: the signatures do not suffice.
            ConflictError: the chain moved on, or the object does not fit.
        """
        actor.require_any()
        members = require_members(body, "statement", required={"envelope"})
        envelope = parse_envelope(members["envelope"])
        # Proven outside the write transaction: what a transaction sees that is then
        # rolled back must never be taken for what is in force.
        snapshot = read_latest(self._database, self._governance.snapshot)
        done = self._journal.change(lambda work: self._accept(work, envelope, snapshot))
        statement = envelope.statement
        self._require_in_force(statement.seq, envelope.canonical())
        self._mark.write()
        return {
            "seq": statement.seq,
            "statement": statement.hash(),
            "action": statement.action.value,
            "kind": statement.kind.value,
            "tenant": statement.tenant,
            "name": statement.name,
            "version": statement.version,
            "digest": statement.digest,
            "entry": done.placed[0].entry.id,
        }

    def _require_in_force(self, seq: int, envelope: bytes) -> None:
        """Prove what is about to be acknowledged, from what is now stored."""
        snapshot = read_latest(self._database, self._governance.snapshot)
        if snapshot.envelopes.get(seq) != envelope:
            raise IntegrityError(
                f"governance statement {seq}",
                got="another row than was just accepted",
                expected="the envelope that was signed",
                hint="the database was changed; nothing is released until it is mended",
                code="governance.tampered",
            )

    def _accept(self, work: Work, envelope: Envelope, snapshot: Snapshot) -> None:
        statement = envelope.statement
        now = self._clock.now()
        require_unmoved(work.tx, snapshot)
        self._governance.confirm(work.tx, snapshot, ())
        content = None
        if statement.action in BRINGING:
            content = stored_content(work.tx, statement)
        after = extend(snapshot.state, envelope, content, accepted=now)
        if content is None:
            require_unused(statement, snapshot)
            require_undenied(statement, snapshot)
        else:
            self._check_usable(work.tx, statement, content, after, snapshot)
            if statement.kind is Kind.REFERENCE_SET:
                check_values(statement, snapshot, after, self._governance.vocabulary)
        work.tx.governance.append(
            StoredStatement(statement.seq, envelope.canonical(), now)
        )
        document = envelope.to_json()
        signatures = document["signatures"]
        work.append(
            self._journal.entry(
                GovernanceChange(
                    statement=statement.to_json(),
                    signatures=signatures if isinstance(signatures, list) else [],
                )
            )
        )

    def _check_usable(
        self,
        tx: Transaction,
        statement: Statement,
        content: bytes,
        after: GovernanceState,
        snapshot: Snapshot,
    ) -> None:
        # What could never be decided, or was never proven, is refused now and not
        # when a workload boots.
        if statement.kind is Kind.RELEASE_POLICY:
            self._check_policy(statement, content, after, snapshot)
        elif statement.kind is Kind.AK:
            key = read_attestation_key(content)
            check_one_group(statement.subject, key, after)
            self._seal.settle(tx, statement.subject, key, self._clock.now())

    def _check_policy(
        self,
        statement: Statement,
        content: bytes,
        after: GovernanceState,
        snapshot: Snapshot,
    ) -> None:
        parsed = parse_release_policy(
            content, vocabulary=self._governance.vocabulary, what="release policy"
        )
        require_undenied(statement, snapshot, parsed.policy.releases)
        view = GovernedView(after, statement.tenant)
        missing = missing_names(parsed.dependencies, view)
        if missing:
            raise ConflictError(
                f"policy {statement.subject}",
                got="; ".join(missing),
                expected="everything it names in force in its tenant or in shared/",
                hint="register what is missing, then activate again",
                code="policy.dependencies",
            )
        refuse_mistyped(
            f"policy {statement.subject}",
            reference_faults(parsed.policy, view, self._governance.vocabulary),
        )

    def objects(
        self, actor: Actor, kind: str | None, tenant: str | None, name: str | None
    ) -> dict[str, object]:
        """List versions of governed objects, with what is in force marked."""
        actor.require_any()
        kinds = [_parse_kind(kind)] if kind is not None else list(Kind)
        tenant = None if tenant is None else _parse_any_tenant(tenant)
        name = None if name is None else parse_name(name, "object name")

        def read(tx: Transaction) -> tuple[GovernanceState, list[StoredObject]]:
            state = self._governance.snapshot(tx).state
            return state, [
                row
                for one in kinds
                for row in tx.governance.objects(one.value, tenant, name)
                if row.tenant == EVERY_TENANT or actor.may_see(row.tenant)
            ]

        state, rows = read_latest(self._database, read)
        active = _active(state)
        return {
            "seq": state.head_seq,
            "objects": [
                {**_row_json(row), "active": _named(row) in active} for row in rows
            ],
        }

    def show(
        self, actor: Actor, kind: str, tenant: str, name: str, version: int
    ) -> dict[str, object]:
        """Return one version: source and content as base64.

        Raises:
            NotFoundError: there is none, or the caller may not see it.
        """
        actor.require_any()

        def read(
            tx: Transaction,
        ) -> tuple[set[InForceName], Sequence[StoredObject]]:
            return _active(self._governance.snapshot(tx).state), tx.governance.objects(
                _parse_kind(kind).value,
                _parse_any_tenant(tenant),
                parse_name(name, "object name"),
            )

        active, rows = read_latest(self._database, read)
        for row in rows:
            visible = row.tenant == EVERY_TENANT or actor.may_see(row.tenant)
            if row.version == version and visible:
                return {
                    **_row_json(row),
                    "active": _named(row) in active,
                    "source": b64(row.source),
                    "content": b64(row.content),
                }
        raise NotFoundError(f"{kind} {tenant}/{name} version {version}")


def _keep(tx: Transaction, draft: StoredObject) -> StoredObject:
    versions = tx.governance.objects(draft.kind, draft.tenant, draft.name)
    newest = max((row.version for row in versions), default=0)
    for row in versions:
        # The same document again is the version that it already is; but an
        # authority's version only rises, so that an older one comes back as a new one.
        may_return = draft.kind != Kind.AUTHORITY or row.version == newest
        if row.digest == draft.digest and may_return:
            return row
    stored = replace(draft, version=newest + 1)
    tx.governance.insert_object(stored)
    return stored


def _parse_kind(value: object) -> Kind:
    if isinstance(value, str) and value in {kind.value for kind in ACTIONS}:
        return Kind(value)
    raise MalformedError(
        "kind", got=repr(value)[:40], expected=", ".join(kind.value for kind in Kind)
    )


def _parse_tenant(value: object, kind: Kind) -> str:
    if value == EVERY_TENANT and kind in {Kind.DENY, Kind.AUTHORITY}:
        return EVERY_TENANT
    return parse_name(value, f"{kind} tenant")


def _parse_any_tenant(value: str) -> str:
    return value if value == EVERY_TENANT else parse_name(value, "tenant")


def _row_json(row: StoredObject) -> dict[str, object]:
    return {
        "kind": row.kind,
        "tenant": row.tenant,
        "name": row.name,
        "version": row.version,
        "digest": row.digest,
        "registered": format_time(row.registered),
    }


def _named(row: StoredObject) -> InForceName:
    return (row.kind, ScopedName(row.tenant, row.name), row.version, row.digest)


def _active(state: GovernanceState) -> set[InForceName]:
    groups: tuple[tuple[Kind, Iterable[Proven]], ...] = (
        (Kind.RELEASE_POLICY, state.release_policies.values()),
        (Kind.WORKLOAD_POLICY, state.workload_policies.values()),
        (Kind.REFERENCE_SET, state.reference_sets.values()),
        (Kind.AK, state.aks.values()),
        (Kind.CA, state.cas.values()),
        (Kind.TOKEN_ISSUER, state.token_issuers.values()),
        (Kind.DENY, state.denials.values()),
        (Kind.AUTHORITY, (state.authority,)),
    )
    return {
        (kind.value, one.subject, one.version, one.digest)
        for kind, group in groups
        for one in group
    }
