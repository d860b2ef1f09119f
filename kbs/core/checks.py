"""What a verifier reports of every single check, and what they add up to."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    """How one check ended."""

    PASS = "pass"  # noqa: S105 - the word of the contract, no password
    FAIL = "fail"
    SKIPPED = "skipped"
    UNCHECKED = "unchecked"


class Verdict(StrEnum):
    """What all checks of a bundle add up to."""

    VERIFIED = "verified"
    REFUSED = "refused"
    UNCHECKED = "unchecked"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One named check; `id` is stable, `item` the index in the bundle.

    `got` and `expected` are for administrators and the log; a workload sees `id`
    and `status` only.
    """

    id: str
    status: Status
    detail: str = ""
    item: int | None = None
    got: str | None = None
    expected: str | None = None

    def to_json(self) -> dict[str, object]:
        """Return the full form, for administrators."""
        document: dict[str, object] = {
            "id": self.id,
            "item": self.item,
            "status": self.status.value,
            "detail": self.detail,
        }
        if self.got is not None:
            document["got"] = self.got
        if self.expected is not None:
            document["expected"] = self.expected
        return document

    def at(self, item: int) -> Check:
        """Return this check with the item's index set."""
        # `dataclasses.replace` costs three times as much, for each check of each item.
        return Check(
            id=self.id,
            status=self.status,
            detail=self.detail,
            item=item,
            got=self.got,
            expected=self.expected,
        )


class CheckLog:
    """Collects checks in order; a verifier fills one and never stops at the first."""

    __slots__ = ("_checks", "_item")

    def __init__(self, item: int | None = None) -> None:
        """Start empty; the checks are about this item of a bundle, if about one."""
        self._item = item
        self._checks: list[Check] = []

    def passed(self, check_id: str, detail: str = "") -> None:
        """Record that a check held."""
        # The many; the others go by a call more.
        self._checks.append(
            Check(id=check_id, status=Status.PASS, detail=detail, item=self._item)
        )

    def failed(
        self,
        check_id: str,
        detail: str,
        *,
        got: str | None = None,
        expected: str | None = None,
    ) -> None:
        """Record that a check was made and did not hold."""
        self._add(check_id, Status.FAIL, detail, got, expected)

    def compared(
        self, check_id: str, subject: str, got: object, expected: object
    ) -> bool:
        """Record pass if the two are equal, else fail with both; return which."""
        if got == expected:
            self.passed(check_id, subject)
            return True
        self.failed(check_id, subject, got=str(got), expected=str(expected))
        return False

    def skipped(self, check_id: str, detail: str) -> None:
        """Record that a check does not apply here, and why."""
        self._add(check_id, Status.SKIPPED, detail)

    def unchecked(self, check_id: str, detail: str) -> None:
        """Record that a check applies but its inputs are not to be had."""
        self._add(check_id, Status.UNCHECKED, detail)

    def _add(
        self,
        check_id: str,
        status: Status,
        detail: str,
        got: str | None = None,
        expected: str | None = None,
    ) -> None:
        self._checks.append(
            Check(
                id=check_id,
                status=status,
                detail=detail,
                item=self._item,
                got=got,
                expected=expected,
            )
        )

    def status_of(self, check_id: str) -> Status | None:
        """Return the last status recorded under this id."""
        for check in reversed(self._checks):
            if check.id == check_id:
                return check.status
        return None

    @property
    def checks(self) -> tuple[Check, ...]:
        """Everything recorded so far, in order."""
        return tuple(self._checks)


def verdict(checks: tuple[Check, ...]) -> Verdict:
    """Any fail refuses; else any unchecked is unchecked; nothing checked refuses."""
    statuses = {check.status for check in checks}
    if Status.FAIL in statuses or Status.PASS not in statuses:
        if Status.UNCHECKED in statuses and Status.FAIL not in statuses:
            return Verdict.UNCHECKED
        return Verdict.REFUSED
    if Status.UNCHECKED in statuses:
        return Verdict.UNCHECKED
    return Verdict.VERIFIED
