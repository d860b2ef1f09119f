"""Changes of the authority document: read what is in force, change it, sign it.

A change is made from the authority in force at one head of the chain, and signed for
the place right after that head. Whoever was slower makes his change again from the
newer document, so that two administrators never undo each other.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from kbs.cli.admin_client import AdminClient, Head
from kbs.cli.authority_edits import Edit, meaning, spellings
from kbs.cli.governed import list_objects, see_accepted
from kbs.core.encode import MAX_INTEGER, parse_hex, require_integer
from kbs.core.errors import ConflictError, ForbiddenError
from kbs.core.ids import ScopedName
from kbs.governance.authority import Administrator, Authority, Role, parse_authority
from kbs.governance.contents import check_digest, digest_of
from kbs.governance.rules import AUTHORITY_NAME
from kbs.governance.statement import EVERY_TENANT, Action, Kind

_SUBJECT = ScopedName(EVERY_TENANT, AUTHORITY_NAME)
# How many are tried until one is a document that was never in force.
_MAX_SPELLINGS = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthorityInForce:
    """The authority document that is in force, with its version and digest."""

    content: Authority
    version: int
    digest: str

    def to_json(self) -> dict[str, object]:
        """Return the JSON form."""
        return {
            "version": self.version,
            "digest": self.digest,
            **self.content.to_json(),
        }


def authority_in_force(document: object) -> AuthorityInForce:
    """Read what a broker's head says of the authority.

    Raises:
        MalformedError: it lacks its shape, or its digest is another.
    """
    members = document if isinstance(document, dict) else {}
    content = parse_authority(members.get("authority"))
    digest = parse_hex(members.get("authority_digest"), "authority digest", size=32)
    check_digest(content.canonical(), digest.hex(), "authority")
    version = require_integer(
        members.get("authority_version"), "authority version", least=1, most=MAX_INTEGER
    )
    return AuthorityInForce(content=content, version=version, digest=digest.hex())


def change_authority(
    client: AdminClient, edit: Edit
) -> tuple[AuthorityInForce, dict[str, object]]:
    """Change the authority, and see the log grow; return it and the statement.

    Raises:
        ConflictError: nothing would change, or nobody could change it any more.
        ForbiddenError: one key does not suffice, or it would take its own right away.
        KbsError: as `edit`, or the broker refuses, or does not answer.
    """

    def once(head: Head) -> tuple[AuthorityInForce, dict[str, object]]:
        before = authority_in_force(head.document)
        changed = edit(before.content)
        _require_signable(before.content, changed, client.profile.keyid)
        # The same strictness as the broker's, before anything is sent.
        parse_authority(changed.to_json())
        return _sign(client, head, before, changed)

    done = client.at_head(once)
    see_accepted(client)
    return done


def _sign(
    client: AdminClient, head: Head, before: AuthorityInForce, changed: Authority
) -> tuple[AuthorityInForce, dict[str, object]]:
    content = _never_in_force(client, before, changed)
    data = content.canonical()
    digest = digest_of(data)
    stored = client.store_object(
        Kind.AUTHORITY,
        tenant=_SUBJECT.tenant,
        name=_SUBJECT.name,
        source=data,
        digest=digest,
    )
    version = require_integer(
        stored["version"],
        "stored version",
        least=before.version + 1,
        most=MAX_INTEGER,
    )
    accepted = client.submit_after(
        head, Action.ACTIVATE, Kind.AUTHORITY, _SUBJECT, version=version, digest=digest
    )
    return AuthorityInForce(content=content, version=version, digest=digest), accepted


def _never_in_force(
    client: AdminClient, before: AuthorityInForce, changed: Authority
) -> Authority:
    """Return the same authority as a document that needs no version of the past.

    A broker takes a document that it knows for the version that it was, and an
    authority's version only rises: after adding and removing somebody, the document
    would be one of the past.
    """
    if meaning(changed) == meaning(before.content):
        raise ConflictError(
            "authority",
            got="what is in force already",
            expected="a change",
            code="statement.active",
        )
    past = {
        one.digest
        for one in list_objects(client, Kind.AUTHORITY, _SUBJECT)
        if one.version <= before.version
    }
    for candidate in itertools.islice(spellings(changed), _MAX_SPELLINGS):
        if digest_of(candidate.canonical()) not in past:
            return candidate
    raise ConflictError(
        "authority",
        got="a document that was in force before, in every spelling",
        expected="one that never was",
        hint="change something else with it, such as who may use shared/",
        code="authority.repeated",
    )


def _require_signable(before: Authority, after: Authority, keyid: str) -> None:
    # The broker refuses all of this too; here nothing is stored for it.
    if before.threshold > 1:
        raise ForbiddenError(
            "authority",
            got=f"threshold {before.threshold}",
            expected="1: this command signs with one key",
            code="authority.threshold",
        )
    if not any(_may_change(one) for one in after.administrators):
        raise ConflictError(
            "authority",
            got="nobody left who may change it",
            expected="at least one key with policy-admin in every repository",
            hint="nothing could ever change again",
            code="authority.last",
        )
    signer, remaining = before.find(keyid), after.find(keyid)
    is_able = signer is not None and _may_change(signer)
    if is_able and (remaining is None or not _may_change(remaining)):
        raise ForbiddenError(
            "authority",
            got="a change that takes from your own key the right to make it",
            expected="the signature of a key that keeps the right",
            hint="have another administrator sign it",
            code="authority.self",
        )


def _may_change(administrator: Administrator) -> bool:
    return administrator.may(Role.POLICY_ADMIN, EVERY_TENANT)
