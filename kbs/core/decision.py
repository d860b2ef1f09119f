"""What appraisal returns: a value that says why, never a boolean."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """Why something was not granted.

    `id` is a check or claim id (`snp.measurement`, `policy.none`, `deny.key`);
    `got` and `expected` are for administrators and the log only.
    """

    id: str
    detail: str
    policy: str | None = None
    rule: str | None = None
    got: str | None = None
    expected: str | None = None

    def to_json(self) -> dict[str, object]:
        """Return the full form, for administrators."""
        members = {
            "id": self.id,
            "detail": self.detail,
            "policy": self.policy,
            "rule": self.rule,
            "got": self.got,
            "expected": self.expected,
        }
        return {name: value for name, value in members.items() if value is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyRef:
    """Exactly which document decided: name, version and digest (hex SHA-256)."""

    name: str
    version: int
    digest: str

    def to_json(self) -> dict[str, object]:
        """Return the JSON form."""
        return {"name": self.name, "version": self.version, "digest": self.digest}


@dataclass(frozen=True, slots=True, kw_only=True)
class Granted:
    """Every policy that matches the key granted, each by one named rule."""

    by: tuple[tuple[PolicyRef, str], ...]

    def __post_init__(self) -> None:
        """Refuse to exist without a policy that granted."""
        if not self.by:
            message = "a grant without a policy cannot be made"
            raise ValueError(message)


@dataclass(frozen=True, slots=True, kw_only=True)
class Denied:
    """At least one reason stands against it; the first is the one to mend first."""

    reasons: tuple[Reason, ...]
    policies: tuple[PolicyRef, ...] = ()

    def __post_init__(self) -> None:
        """Refuse to exist without a reason."""
        if not self.reasons:
            message = "a denial without a reason cannot be made"
            raise ValueError(message)


Decision = Granted | Denied
