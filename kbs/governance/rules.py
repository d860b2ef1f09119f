"""Who may sign what: the table of roles, and the tenants that a kind may name."""

from __future__ import annotations

from collections.abc import Mapping

from kbs.core.errors import ForbiddenError, MalformedError
from kbs.governance.authority import Administrator, Authority, Role
from kbs.governance.signature import verify_signature
from kbs.governance.statement import EVERY_TENANT, Action, Envelope, Kind, Statement

AUTHORITY_NAME = "authority"
"""The one name of the one authority document."""

_POLICY = frozenset({Role.POLICY_ADMIN})
_POLICY_OR_KEY = frozenset({Role.POLICY_ADMIN, Role.KEY_ADMIN})

SIGNERS: Mapping[Kind, frozenset[Role]] = {
    Kind.RELEASE_POLICY: _POLICY,
    Kind.WORKLOAD_POLICY: _POLICY,
    Kind.REFERENCE_SET: _POLICY,
    Kind.AK: _POLICY,
    Kind.CA: _POLICY,
    Kind.TOKEN_ISSUER: _POLICY,
    # To stop something must be easy: whoever holds either role may.
    Kind.DENY: _POLICY_OR_KEY,
    Kind.AUTHORITY: _POLICY,
}
"""Any of these roles, in the statement's tenant (`*`: a role in every repository)."""


def signers_of(statement: Statement) -> frozenset[Role]:
    """Return the roles of which a signer needs one.

    To lift a deny entry widens access again, which is for those who may grant it.
    """
    if statement.action is Action.LIFT:
        return _POLICY
    return SIGNERS[statement.kind]


_INSTANCE_WIDE = frozenset({Kind.DENY, Kind.AUTHORITY})


def check_tenant(statement: Statement) -> None:
    """Return if the statement's kind may concern its tenant.

    Raises:
        MalformedError: `*` for what belongs to one tenant, or an authority that is
            not the instance's one.
    """
    if statement.kind is Kind.AUTHORITY:
        if (statement.tenant, statement.name) != (EVERY_TENANT, AUTHORITY_NAME):
            raise MalformedError(
                "authority statement",
                got=str(statement.subject),
                expected=f"{EVERY_TENANT}/{AUTHORITY_NAME}",
            )
    elif statement.tenant == EVERY_TENANT and statement.kind not in _INSTANCE_WIDE:
        raise MalformedError(
            f"{statement.kind} tenant", got=EVERY_TENANT, expected="a tenant's name"
        )


def check_signatures(
    envelope: Envelope, authority: Authority, successor: Authority | None = None
) -> None:
    """Return if enough of the right keys signed; every signature must verify.

    A change of the authority passes its successor too: it needs the threshold of the
    old one by old keys and that of the new one by new keys. A key in both counts for
    both.

    Raises:
        ForbiddenError: an unknown key, a signature that does not verify, or fewer
            signatures by keys with the role than the threshold asks for.
    """
    authorities = [authority] if successor is None else [authority, successor]
    for signature in envelope.signatures:
        signer = _find(authorities, signature.keyid)
        verify_signature(envelope.statement, signature, signer.public_key)
    for one in authorities:
        _check_threshold(envelope, one)


def _find(authorities: list[Authority], keyid: str) -> Administrator:
    for authority in authorities:
        found = authority.find(keyid)
        if found is not None:
            return found
    raise ForbiddenError(
        "statement signature",
        got=f"key {keyid[:16]}…",
        expected="a key of the authority in force",
        code="statement.signer",
    )


def _check_threshold(envelope: Envelope, authority: Authority) -> None:
    statement = envelope.statement
    roles = signers_of(statement)
    signers = [authority.find(one.keyid) for one in envelope.signatures]
    count = sum(
        1
        for signer in signers
        if signer is not None
        and any(signer.may(role, statement.tenant) for role in roles)
    )
    if count < authority.threshold:
        raise ForbiddenError(
            f"{statement.action} {statement.kind} {statement.subject}",
            got=f"{count} signatures by keys that may sign it",
            expected=f"{authority.threshold} by keys with "
            + " or ".join(sorted(roles))
            + f" in {statement.tenant}",
            code="statement.threshold",
        )
