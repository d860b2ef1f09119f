"""Which stored policy a name on the command line means: `TENANT/NAME`, or `NAME`.

A bare name will do where one tenant only has a policy of that name (`contract.md`,
section 1); where several have, nobody guesses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kbs.cli.governed import list_objects
from kbs.core.errors import ConflictError, NotFoundError
from kbs.core.ids import ScopedName, parse_name, parse_scoped_name
from kbs.governance.statement import Kind

if TYPE_CHECKING:
    from kbs.cli.admin_client import AdminClient
    from kbs.cli.governed import Listed


POLICIES = (Kind.RELEASE_POLICY, Kind.WORKLOAD_POLICY)
"""Kinds of policies, in the order in which a name is looked up."""


def find_policy(
    client: AdminClient, name: str, *, workload: bool
) -> tuple[ScopedName, list[Listed]]:
    """Return the versions of a release policy, else of a workload policy.

    Raises:
        NotFoundError: no tenant has a policy of this bare name.
        ConflictError: several have.
        KbsError: it is no name, or the broker refuses.
    """
    kinds = (Kind.WORKLOAD_POLICY,) if workload else POLICIES
    subject = parse_scoped_name(name, "policy") if "/" in name else None
    bare = parse_name(name, "policy") if subject is None else subject.name
    found: list[Listed] = []
    for kind in kinds:
        found = found or [
            one for one in list_objects(client, kind, subject) if one.name == bare
        ]
    return subject or _only_subject(bare, found), found


def _only_subject(name: str, found: list[Listed]) -> ScopedName:
    subjects = sorted({one.subject for one in found}, key=str)
    if not subjects:
        raise NotFoundError(
            f"policy {name}",
            got="no tenant has a policy of this name",
            expected="NAME or TENANT/NAME of a stored policy: kbs policy list",
            code="object.none",
        )
    if len(subjects) > 1:
        raise ConflictError(
            f"policy {name}",
            got=f"several: {', '.join(map(str, subjects))}",
            expected="one of them as TENANT/NAME",
            code="object.ambiguous",
        )
    return subjects[0]
