"""The chain of statements, proven from a pinned genesis to what is in force.

Whoever can write the database can stop releases but not cause one: every object in
force is proven by a signed statement whose digest its content has, the statements form
one gapless chain, and the chain begins at an authority whose digest is pinned outside
the database. `replay` proves a stored chain when it is loaded; `extend` judges one new
statement. Both are pure, and both apply the same rules.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime

from kbs.core.errors import IntegrityError, KbsError, MalformedError
from kbs.core.ids import ScopedName
from kbs.governance.contents import check_digest, read_authority
from kbs.governance.draft import Draft
from kbs.governance.rules import AUTHORITY_NAME
from kbs.governance.state import GovernanceState, InForce, StoredStatement
from kbs.governance.statement import (
    BRINGING,
    EVERY_TENANT,
    Envelope,
    Kind,
    read_envelope,
)

ContentLoader = Callable[[Kind, str], bytes | None]
"""Returns the content with this digest, or None if it is not stored."""


def start(authority: bytes, *, genesis_digest: str, instance: str) -> GovernanceState:
    """Return the state before the first statement.

    Raises:
        IntegrityError: the authority is not the one whose digest is pinned.
    """
    try:
        check_digest(authority, genesis_digest, "genesis authority")
        document = read_authority(authority)
    except MalformedError as exc:
        raise IntegrityError(str(exc), code="governance.genesis") from exc
    subject = ScopedName(EVERY_TENANT, AUTHORITY_NAME)
    return GovernanceState(
        instance=instance,
        head_seq=0,
        head_hash=genesis_digest,
        authority=InForce(
            subject=subject,
            version=1,
            digest=genesis_digest,
            seq=0,
            content=document,
        ),
        release_policies={},
        workload_policies={},
        reference_sets={},
        aks={},
        cas={},
        token_issuers={},
        denials={},
        seen={(Kind.AUTHORITY, subject, 1): genesis_digest},
    )


def replay(
    statements: Iterable[StoredStatement],
    *,
    genesis_digest: str,
    instance: str,
    load: ContentLoader,
) -> GovernanceState:
    """Return what a stored chain proves to be in force.

    Raises:
        IntegrityError: any fault; names the statement and what differs.
    """
    authority = load(Kind.AUTHORITY, genesis_digest)
    if authority is None:
        raise IntegrityError(
            "genesis authority",
            got="none stored",
            expected=f"digest {genesis_digest}",
            code="governance.genesis",
        )
    state = start(authority, genesis_digest=genesis_digest, instance=instance)
    draft = Draft(state)
    for seq, stored in enumerate(statements, start=1):
        try:
            envelope = read_envelope(stored.envelope)
            statement = envelope.statement
            content = None
            if statement.action in BRINGING:
                content = load(statement.kind, statement.digest)
            draft.accept(envelope, content, stored.accepted)
        except KbsError as exc:
            raise IntegrityError(
                f"governance statement {seq}: {exc}", code="governance.chain"
            ) from exc
    return draft.state()


def extend(
    state: GovernanceState,
    envelope: Envelope,
    content: bytes | None,
    *,
    accepted: datetime,
) -> GovernanceState:
    """Return the state after one more statement, or say why it is not accepted.

    `content` is what the digest stands for; only statements that put an object in
    force need it.

    Raises:
        ConflictError: the chain moved on, or what is in force does not fit.
        ForbiddenError: another instance, not the time, or not enough signatures.
        MalformedError: the content lacks its form or is not what was signed.
    """
    draft = Draft(state)
    draft.accept(envelope, content, accepted)
    return draft.state()
