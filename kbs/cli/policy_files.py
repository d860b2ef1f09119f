"""Policies in files, read as registration would."""

from __future__ import annotations

from pathlib import Path

from kbs.cli.inputs import read_input
from kbs.core.ids import ScopedName, parse_scoped_name
from kbs.evidence.registry import vocabulary
from kbs.governance.contents import digest_of
from kbs.governance.objects import MAX_OBJECT_BYTES, measure_workload_policy
from kbs.governance.statement import Kind
from kbs.policy.parse import ParsedPolicy, parse_release_policy
from kbs.policy.yaml import MAX_BYTES


def load_policy(path: Path) -> ParsedPolicy:
    """Read a release policy from a file.

    Raises:
        PolicyError: it is none; every problem has line and column.
        MalformedError: it cannot be read.
    """
    return _parse(read_input(path, "policy", limit=MAX_BYTES), path)


def load_document(
    path: Path, workload: str | None
) -> tuple[Kind, ScopedName, bytes, str]:
    """Return kind, name, source and digest of a policy, or of a workload policy.

    Raises:
        PolicyError: it is no release policy, and no workload policy is meant.
        MalformedError: it cannot be read, or the name is none.
    """
    source = read_input(path, "policy", limit=MAX_OBJECT_BYTES)
    if workload is not None:
        measure_workload_policy(source)
        subject = parse_scoped_name(workload, "--workload")
        return Kind.WORKLOAD_POLICY, subject, source, digest_of(source)
    parsed = _parse(source, path)
    subject = ScopedName(parsed.policy.tenant, parsed.policy.name)
    return Kind.RELEASE_POLICY, subject, source, parsed.digest


def _parse(source: bytes, path: Path) -> ParsedPolicy:
    return parse_release_policy(source, vocabulary=vocabulary(), what=str(path))
