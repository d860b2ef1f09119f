"""What the verification of an export found, for people and for programs."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime

from kbs.audit.logkey import LogKey
from kbs.core.checks import Check, Status
from kbs.core.clock import format_time
from kbs.core.errors import VerificationError

CHECKS = (
    "audit.checkpoint",
    "audit.keys",
    "audit.entries",
    "audit.body",
    "audit.time",
    "audit.history",
    "audit.root",
    "audit.previous",
)
"""The ids of all checks of an export."""

MAX_PROBLEMS = 100
"""Problems kept; further ones are only counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that is wrong: which check, which line of the file, which entry."""

    check: str
    line: int | None
    index: int | None
    message: str

    def __str__(self) -> str:
        """Say where, then what."""
        places = []
        if self.line is not None:
            places.append(f"line {self.line}")
        if self.index is not None:
            places.append(f"entry {self.index}")
        return f"{', '.join(places) or 'export'}: {self.message}"


@dataclass(slots=True, kw_only=True)
class ExportReport:
    """What was checked and found; `pinned` says whether the caller vouched for a key.

    `bodies` were checked against their leaves, `withheld` were not in the export.
    `unchecked` are checks that something else that is wrong stood in the way of,
    `skipped` those that nobody asked for, or that withheld bodies stand in the way of.
    """

    origin: str = ""
    size: int | None = None
    root: bytes | None = None
    key: LogKey | None = None
    pinned: bool = False
    entries: int = 0
    bodies: int = 0
    withheld: int = 0
    first_time: datetime | None = None
    latest_time: datetime | None = None
    kinds: Counter[str] = field(default_factory=Counter)
    problems: list[Problem] = field(default_factory=list)
    problem_count: int = 0
    unchecked: set[str] = field(default_factory=set)
    skipped: set[str] = field(default_factory=set)

    def add(
        self,
        check: str,
        message: str,
        *,
        line: int | None = None,
        at: int | None = None,
    ) -> None:
        """Note that something is wrong, on this line, about the entry `at`."""
        self.problem_count += 1
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(
                Problem(check=check, line=line, index=at, message=message)
            )

    @property
    def holds(self) -> bool:
        """Whether nothing is wrong."""
        return self.problem_count == 0

    def checks(self) -> tuple[Check, ...]:
        """Return a check for each id; `item` of a failed one is the entry's index."""
        failed = [
            Check(
                id=problem.check,
                status=Status.FAIL,
                detail=str(problem),
                item=problem.index,
            )
            for problem in self.problems
        ]
        bad = {check.id for check in failed}
        rest = [
            Check(id=check, status=self._status(check), detail=self._detail(check))
            for check in CHECKS
            if check not in bad
        ]
        return (*failed, *rest)

    @property
    def withheld_words(self) -> str:
        """Say what the export has not, or nothing where it has all of it."""
        if not self.withheld:
            return ""
        return (
            f"{self.withheld} of {self.withheld + self.bodies} bodies are not in the "
            "export: what they say was not checked"
        )

    def _detail(self, check: str) -> str:
        told = check == "audit.body" or (
            check == "audit.history" and check in self.skipped
        )
        return self.withheld_words if told else ""

    def _status(self, check: str) -> Status:
        if check in self.unchecked:
            return Status.UNCHECKED
        return Status.SKIPPED if check in self.skipped else Status.PASS

    def to_json(self) -> dict[str, object]:
        """Return the JSON form."""
        first, latest = self.first_time, self.latest_time
        return {
            "consistent": self.holds,
            "origin": self.origin,
            "size": self.size,
            "root": None if self.root is None else self.root.hex(),
            "key": None if self.key is None else self.key.vkey,
            "pinned": self.pinned,
            "entries": self.entries,
            "bodies": self.bodies,
            "withheld": self.withheld,
            "first_time": None if first is None else format_time(first),
            "latest_time": None if latest is None else format_time(latest),
            "kinds": dict(sorted(self.kinds.items())),
            "problem_count": self.problem_count,
            "problems": [
                {
                    "check": problem.check,
                    "line": problem.line,
                    "index": problem.index,
                    "message": problem.message,
                }
                for problem in self.problems
            ],
            "checks": [check.to_json() for check in self.checks()],
        }


class ExportError(VerificationError):
    """The export is not consistent; `report` says everything that is wrong."""

    code = "audit.export"

    def __init__(self, report: ExportReport) -> None:
        """Say the first problem, and how many there are."""
        self.report = report
        more = report.problem_count - 1
        super().__init__(
            str(report.problems[0]),
            checks=report.checks(),
            hint=f"and {more} more" if more else None,
        )
