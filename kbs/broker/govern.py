"""Changing what is in force: store a version, accept a signed statement, show both.

Storing puts nothing in force. A statement does, if the authority's keys signed it; the
signatures decide, not who carries it here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Protocol

from kbs.audit.events import GovernanceChange
from kbs.broker.actors import Actor
from kbs.broker.commit import Work
from kbs.broker.governance import Governance, Proven
from kbs.broker.journal import Journal
from kbs.broker.objects import read_source
from kbs.broker.ports import Database, StoredObject, StoredStatement, Transaction
from kbs.broker.view import GovernedView
from kbs.core.clock import Clock, format_time
from kbs.core.encode import b64, parse_b64, require_members
from kbs.core.errors import ConflictError, MalformedError, NotFoundError
from kbs.core.ids import ScopedName, parse_name
from kbs.governance.attestation_key import Enrolment
from kbs.governance.chain import extend
from kbs.governance.contents import digest_of, read_attestation_key
from kbs.governance.objects import MAX_OBJECT_BYTES
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


class Mark(Protocol):
    """Writes the high-water mark now."""

    def write(self) -> None:
        """Make the mark durable before a statement is acknowledged."""
        ...


class Governing:
    """The use cases of policy administrators."""

    def __init__(
        self,
        database: Database,
        governance: Governance,
        journal: Journal,
        clock: Clock,
        mark: Mark,
    ) -> None:
        """Use what the composition root made."""
        self._database = database
        self._governance = governance
        self._journal = journal
        self._clock = clock
        self._mark = mark

    def prove(self, tx: Transaction) -> None:
        """Return if everything in force is what was signed.

        Raises:
            IntegrityError: it is not.
        """
        self._governance.reload(tx)

    def head(self, actor: Actor) -> dict[str, object]:
        """Return what the next statement must follow, and the authority in force."""
        actor.require_any()
        with self._database.read() as tx:
            state = self._governance.snapshot(tx).state
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
        # Signing needs a role of its own; storing needs any role in the tenant.
        actor.require_tenant(tenant)
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
        done = self._journal.change(lambda work: self._accept(work, envelope))
        self._mark.write()
        statement = envelope.statement
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

    def _accept(self, work: Work, envelope: Envelope) -> None:
        statement = envelope.statement
        now = self._clock.now()
        snapshot = self._governance.snapshot(work.tx)
        content = None
        if statement.action in BRINGING:
            content = _stored_content(work.tx, statement)
        after = extend(snapshot.state, envelope, content, accepted=now)
        if content is not None:
            self._check_usable(work.tx, statement, content, after)
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
    ) -> None:
        # What could never be decided, or was never proven, is refused now and not
        # when a workload boots.
        if statement.kind is Kind.RELEASE_POLICY:
            self._check_policy(statement, content, after)
        elif statement.kind is Kind.AK:
            _check_enrolment(tx, statement, content)

    def _check_policy(
        self, statement: Statement, content: bytes, after: GovernanceState
    ) -> None:
        parsed = parse_release_policy(
            content, vocabulary=self._governance.vocabulary, what="release policy"
        )
        view = GovernedView(after, statement.tenant)
        missing = missing_names(parsed.policy.dependencies(), view)
        if missing:
            raise ConflictError(
                f"policy {statement.subject}",
                got="; ".join(missing),
                expected="everything it names in force in its tenant or in shared/",
                hint="register what is missing, then activate again",
                code="policy.dependencies",
            )

    def objects(
        self, actor: Actor, kind: str | None, tenant: str | None, name: str | None
    ) -> dict[str, object]:
        """List versions of governed objects, with what is in force marked."""
        actor.require_any()
        kinds = [_parse_kind(kind)] if kind is not None else list(Kind)
        with self._database.read() as tx:
            state = self._governance.snapshot(tx).state
            rows = [
                row
                for one in kinds
                for row in tx.governance.objects(one.value, tenant, name)
                if row.tenant == EVERY_TENANT or actor.may_see(row.tenant)
            ]
        active = _active(state)
        return {
            "seq": state.head_seq,
            "objects": [
                {**_row_json(row), "active": (row.kind, row.digest) in active}
                for row in rows
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
        with self._database.read() as tx:
            active = _active(self._governance.snapshot(tx).state)
            rows = tx.governance.objects(_parse_kind(kind).value, tenant, name)
        for row in rows:
            visible = row.tenant == EVERY_TENANT or actor.may_see(row.tenant)
            if row.version == version and visible:
                return {
                    **_row_json(row),
                    "active": (row.kind, row.digest) in active,
                    "source": b64(row.source),
                    "content": b64(row.content),
                }
        raise NotFoundError(f"{kind} {tenant}/{name} version {version}")


def _keep(tx: Transaction, draft: StoredObject) -> StoredObject:
    versions = tx.governance.objects(draft.kind, draft.tenant, draft.name)
    for row in versions:
        if row.digest == draft.digest:
            # The same document again is the version that it already is.
            return row
    newest = max((row.version for row in versions), default=0)
    stored = replace(draft, version=newest + 1)
    tx.governance.insert_object(stored)
    return stored


def _stored_content(tx: Transaction, statement: Statement) -> bytes:
    content = tx.governance.contents([statement.digest]).get(statement.digest)
    if content is None or digest_of(content) != statement.digest:
        raise NotFoundError(
            f"{statement.kind} {statement.subject} version {statement.version}",
            got="no stored object with this digest",
            expected=statement.digest,
            hint="store the object first, then sign its digest",
            code="statement.content",
        )
    return content


def _check_enrolment(tx: Transaction, statement: Statement, content: bytes) -> None:
    key = read_attestation_key(content)
    if key.how is Enrolment.MANUAL:
        return
    for pending in tx.enrolments.list((statement.tenant,)):
        if pending.ak_name == key.name and pending.group == key.group:
            tx.enrolments.remove(pending.id)
            return
    raise ConflictError(
        f"ak {statement.subject}",
        got="no pending enrolment of this key in this group",
        expected="one that the guest proved by credential activation",
        hint="run `kbs guest enroll` again, or register the key by hand",
        code="enrolment.missing",
    )


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


def _row_json(row: StoredObject) -> dict[str, object]:
    return {
        "kind": row.kind,
        "tenant": row.tenant,
        "name": row.name,
        "version": row.version,
        "digest": row.digest,
        "registered": format_time(row.registered),
    }


def _active(state: GovernanceState) -> set[tuple[str, str]]:
    groups: tuple[tuple[Kind, Iterable[Proven]], ...] = (
        (Kind.RELEASE_POLICY, state.release_policies.values()),
        (Kind.WORKLOAD_POLICY, state.workload_policies.values()),
        (Kind.REFERENCE_SET, state.reference_sets.values()),
        (Kind.AK, state.aks.values()),
        (Kind.CA, state.cas.values()),
        (Kind.DENY, state.denials.values()),
        (Kind.AUTHORITY, (state.authority,)),
    )
    return {(kind.value, one.digest) for kind, group in groups for one in group}
