"""Governed objects at the broker: find versions, read one, put it in force or out.

What the broker says an object is, is checked before anything is signed: a content must
have the digest under which it is listed.
"""

from __future__ import annotations

from dataclasses import dataclass

from kbs.cli.admin_client import AdminClient
from kbs.cli.seen_log import follow_log
from kbs.core.encode import parse_b64, parse_hex, require_list, require_object
from kbs.core.errors import ConflictError, NotFoundError, UnavailableError
from kbs.core.ids import ScopedName
from kbs.governance.contents import check_digest
from kbs.governance.objects import MAX_OBJECT_BYTES
from kbs.governance.statement import Action, Kind

LISTED = ("kind", "name", "version", "active", "registered", "digest")
"""Columns of a table of versions, see `Listed.row`."""

_MAX_LISTED = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """One version of an object as the broker lists it."""

    kind: Kind
    tenant: str
    name: str
    version: int
    digest: str
    registered: str
    active: bool

    @property
    def subject(self) -> ScopedName:
        """Its name inside its tenant."""
        return ScopedName(self.tenant, self.name)

    @property
    def row(self) -> tuple[object, ...]:
        """The cells of the columns `LISTED`."""
        return (
            self.kind,
            self.subject,
            self.version,
            self.active,
            self.registered,
            self.digest,
        )

    def to_json(self) -> dict[str, object]:
        """Return the JSON form."""
        return {
            "kind": self.kind.value,
            "tenant": self.tenant,
            "name": self.name,
            "version": self.version,
            "digest": self.digest,
            "registered": self.registered,
            "active": self.active,
        }


def list_objects(
    client: AdminClient, kind: Kind | None = None, subject: ScopedName | None = None
) -> list[Listed]:
    """Return the versions that the broker has, in its order.

    Raises:
        KbsError: the broker refuses, or does not answer.
    """
    answer = client.get(
        "/admin/v1/objects",
        {
            "kind": None if kind is None else kind.value,
            "tenant": None if subject is None else subject.tenant,
            "name": None if subject is None else subject.name,
        },
    )
    rows = require_list(answer.get("objects"), "objects", limit=_MAX_LISTED)
    return [_listed(row) for row in rows]


def choose(found: list[Listed], subject: ScopedName, version: int | None) -> Listed:
    """Return one version of an object: the given one, else the newest.

    Raises:
        NotFoundError: there is none.
    """
    wanted = [one for one in found if version in (None, one.version)]
    if not wanted:
        which = "" if version is None else f" version {version}"
        known = ", ".join(str(one.version) for one in found)
        raise NotFoundError(
            f"{subject}{which}",
            got="no such object",
            expected=f"versions {known}" if known else None,
            code="object.none",
        )
    return max(wanted, key=lambda one: one.version)


def choose_active(
    found: list[Listed], subject: ScopedName, version: int | None = None
) -> Listed:
    """Return the version that is in force: the only one, or the given one.

    Raises:
        ConflictError: none is, or several are and none was named.
    """
    active = [one for one in found if one.active and version in (None, one.version)]
    if len(active) != 1:
        versions = ", ".join(str(one.version) for one in active)
        raise ConflictError(
            str(subject),
            got=f"versions {versions} in force" if active else "none in force",
            expected="one" if not active else "one of them: --version N",
            code="object.active",
        )
    return active[0]


def read_object(client: AdminClient, one: Listed) -> tuple[bytes, bytes]:
    """Return source and content of a version; the content has its digest.

    Raises:
        UnavailableError: the broker shows another content.
        KbsError: it refuses, or does not answer.
    """
    answer = client.get(
        f"/admin/v1/objects/{one.kind.value}/{one.tenant}/{one.name}/{one.version}"
    )
    content = parse_b64(answer.get("content"), "content", limit=MAX_OBJECT_BYTES)
    source = parse_b64(answer.get("source"), "source", limit=MAX_OBJECT_BYTES)
    check_digest(content, one.digest, f"{one.kind} {one.subject}")
    return source, content


def put(client: AdminClient, action: Action, one: Listed) -> dict[str, object]:
    """Sign a statement about a version, and see the log grow.

    Raises:
        ConflictError: it does not fit what is in force.
        VerificationError: the log was rolled back or rewritten.
        KbsError: the broker refuses, or does not answer.
    """
    accepted = client.sign_and_submit(
        action,
        one.kind,
        tenant=one.tenant,
        name=one.name,
        version=one.version,
        digest=one.digest,
    )
    see_accepted(client)
    return accepted


def take_out(
    client: AdminClient, action: Action, kind: Kind, subject: ScopedName
) -> tuple[Listed, dict[str, object]]:
    """Take the one version in force out of force; return it and what became of it.

    Raises:
        ConflictError: none is in force, or several are.
        KbsError: the broker refuses, or does not answer.
    """
    one = choose_active(list_objects(client, kind, subject), subject)
    statement = put(client, action, one)
    return one, {**one.to_json(), "active": False, "statement": statement}


def see_accepted(client: AdminClient) -> None:
    """See the log grow after a statement was accepted.

    Raises:
        UnavailableError: the log cannot be seen; the statement is in force.
        VerificationError: the log was rolled back or rewritten.
    """
    try:
        follow_log(client)
    except UnavailableError as exc:
        raise UnavailableError(
            f"{exc.what}: the statement was accepted, but the log cannot be seen",
            got=exc.got,
            expected=exc.expected,
            code=exc.code,
        ) from exc


def register(
    client: AdminClient,
    kind: Kind,
    subject: ScopedName,
    *,
    source: bytes,
    digest: str,
) -> tuple[Listed, list[str]]:
    """Store an object as its next version; return it and the broker's warnings.

    Raises:
        KbsError: the broker refuses, or does not answer.
    """
    stored = client.store_object(
        kind, tenant=subject.tenant, name=subject.name, source=source, digest=digest
    )
    warnings = require_list(stored.get("warnings", []), "warnings", limit=1000)
    return _listed({**stored, "active": False}), [str(one) for one in warnings]


def _listed(row: object) -> Listed:
    members = require_object(row, "object")
    version = members.get("version")
    if not isinstance(version, int):
        raise UnavailableError("object version", got=repr(version)[:40])
    return Listed(
        kind=Kind(str(members.get("kind"))),
        tenant=str(members.get("tenant")),
        name=str(members.get("name")),
        version=version,
        digest=parse_hex(members.get("digest"), "object digest", size=32).hex(),
        registered=str(members.get("registered", "")),
        active=members.get("active") is True,
    )
