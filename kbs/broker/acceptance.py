"""What a statement must fit besides its signatures, read inside its transaction.

The chain's own rules are `kbs.governance.draft`; these need the database: the stored
version that is meant, the groups that an AK is in. What a guest proved is
`kbs.broker.pending`.
"""

from __future__ import annotations

from kbs.broker.governance import Snapshot
from kbs.broker.ports import Transaction
from kbs.core.errors import ConflictError, NotFoundError
from kbs.core.ids import ScopedName
from kbs.governance.attestation_key import AttestationKey
from kbs.governance.contents import digest_of
from kbs.governance.state import GovernanceState
from kbs.governance.statement import Statement


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
