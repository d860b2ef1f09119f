"""What a statement must fit besides its signatures, read inside its transaction.

The chain's own rules are `kbs.governance.draft`; these need the database: the stored
version that is meant; and what is in force beside it: the groups that an AK is in, the
policies that name an object. What a guest proved is `kbs.broker.pending`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from kbs.broker.ports import Transaction
from kbs.broker.snapshot import ActivePolicy, Snapshot
from kbs.broker.view import GovernedView
from kbs.core.claims import Vocabulary
from kbs.core.errors import ConflictError, NotFoundError
from kbs.core.ids import ScopedName
from kbs.governance.attestation_key import AttestationKey
from kbs.governance.contents import digest_of
from kbs.governance.objects import DenyTarget
from kbs.governance.state import GovernanceState
from kbs.governance.statement import Kind, Statement
from kbs.policy.context import candidates
from kbs.policy.references import reference_faults


def require_unmoved(tx: Transaction, snapshot: Snapshot) -> None:
    """Return if no statement was accepted since the snapshot was proven.

    Raises:
        ConflictError: one was.
    """
    head = tx.governance.head()
    if head != snapshot.state.head_seq:
        raise ConflictError(
            "statement seq and prev",
            got=f"a chain that is at {head} by now",
            expected=f"still at {snapshot.state.head_seq}",
            hint="read the head again and sign anew",
            code="statement.sequence",
        )


def stored_content(tx: Transaction, statement: Statement) -> bytes:
    """Return the content of the very version that a statement names.

    Raises:
        NotFoundError: no such version is stored under this kind and name.
    """
    # The very version that was validated as this kind under this name: the digest
    # alone would let one kind's bytes come into force as another's.
    rows = tx.governance.objects(statement.kind, statement.tenant, statement.name)
    for row in rows:
        named = (row.version, row.digest) == (statement.version, statement.digest)
        if named and digest_of(row.content) == statement.digest:
            return row.content
    raise NotFoundError(
        f"{statement.kind} {statement.subject} version {statement.version}",
        got="no stored version with this digest",
        expected=statement.digest,
        hint="store the object first, then sign its version and digest",
        code="statement.content",
    )


def check_one_group(
    subject: ScopedName, key: AttestationKey, after: GovernanceState
) -> None:
    """Return if an AK is in no other group of its tenant.

    Raises:
        ConflictError: it is.
    """
    # In two groups of one tenant, a host would pass for either kind.
    for other in after.aks.values():
        if (
            other.subject.tenant == subject.tenant
            and other.content.name == key.name
            and other.content.group != key.group
        ):
            raise ConflictError(
                f"ak {subject}",
                got=f"group {key.group}",
                expected=f"group {other.content.group}, as {other.subject} has it",
                hint=f"remove {other.subject} first: an AK is in one group of a tenant",
                code="enrolment.group",
            )


def require_unused(statement: Statement, snapshot: Snapshot) -> None:
    """Return if no active policy of its tenant names what a statement takes away.

    Raises:
        ConflictError: one does.
    """
    # Its name would go on to mean an object of `shared/` that is called the same.
    users = [
        str(policy.subject)
        for policy in snapshot.policies.get(statement.tenant, ())
        if any(
            statement.subject in candidates(name, statement.tenant, shared=False)
            for name in _names(policy, statement)
        )
    ]
    if users:
        raise ConflictError(
            f"{statement.kind} {statement.subject}",
            got=f"one that is named by {', '.join(users)}",
            expected="an object that no active policy of its tenant names",
            hint="activate policies without it, or deactivate them, first; "
            "kbs deny stops releases at once",
            code="object.in_use",
        )


def require_undenied(
    statement: Statement, snapshot: Snapshot, releases: Collection[str] = ()
) -> None:
    """Return if no key gets out from under a policy that a deny entry names.

    `releases` are the globs that the policy would have by the statement; none, if it is
    taken away.

    Raises:
        ConflictError: an entry names it, and globs that it has would be gone.
    """
    # An entry stops the keys that the policy in force matches: without the policy they
    # would leave under whatever other policy grants them (decisions, section 2.3).
    if statement.kind is not Kind.RELEASE_POLICY:
        return
    lost = [
        glob.text
        for policy in snapshot.policies.get(statement.tenant, ())
        if policy.subject == statement.subject
        for glob in policy.globs
        if glob.text not in releases
    ]
    if not lost:
        return
    entries = [
        str(name)
        for name, entry in sorted(snapshot.state.denials.items())
        if entry.content.target is DenyTarget.POLICY
        and entry.content.value == str(statement.subject)
    ]
    if entries:
        raise ConflictError(
            f"policy {statement.subject}",
            got=f"one that deny entry {', '.join(entries)} names, without "
            + ", ".join(lost),
            expected="a policy that governs what it did, or no deny entry",
            hint="those keys could leave under another policy; lift the entry first "
            "(kbs deny lift)",
            code="policy.denied",
        )


def _names(policy: ActivePolicy, statement: Statement) -> Iterable[str]:
    """Return the names of a statement's kind that a policy has in its rules."""
    named = policy.parsed.dependencies
    if statement.kind is Kind.REFERENCE_SET:
        return named.references
    if statement.kind is Kind.CA:
        return named.cas
    if statement.kind is Kind.WORKLOAD_POLICY:
        version = statement.version
        return {name for name, wanted in named.workload_policies if wanted == version}
    return ()


def check_values(
    statement: Statement,
    snapshot: Snapshot,
    after: GovernanceState,
    vocabulary: Vocabulary,
) -> None:
    """Return if active policies can compare with a reference set as it would be.

    Raises:
        ConflictError: a value is not written as a claim's are, so that policies which
            name the set could not be decided, or is one of zeros that fixes nothing.
    """
    wrong: dict[str, None] = {}
    for tenant, policies in snapshot.policies.items():
        view, before = GovernedView(after, tenant), snapshot.view(tenant)
        for policy in policies:
            # A policy that was undecidable before must not keep others from changing.
            known = reference_faults(policy.parsed.policy, before, vocabulary)
            found = reference_faults(policy.parsed.policy, view, vocabulary)
            wrong.update(dict.fromkeys(one for one in found if one not in known))
    refuse_mistyped(f"{statement.kind} {statement.subject}", tuple(wrong))


def refuse_mistyped(what: str, complaints: tuple[str, ...]) -> None:
    """Return if there is no complaint about the values of reference sets.

    Raises:
        ConflictError: there is.
    """
    if complaints:
        raise ConflictError(
            what,
            got="; ".join(complaints),
            expected="values written as the claims are that policies compare with "
            "them, and no zeros where they say what boots",
            hint="correct the values: kbs ref add values NAME … --replace",
            code="reference.type",
        )
