"""A value of a document together with its place, so that every complaint has one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from kbs.core.encode import MAX_INTEGER
from kbs.core.errors import MalformedError
from kbs.policy.yaml import Document, Path

# As much of a string as a message shows.
_SHOWN = 60


class PolicyError(MalformedError):
    """A document that cannot be accepted; `problems` has every one that was found."""

    code = "policy.malformed"

    def __init__(self, problems: tuple[MalformedError, ...]) -> None:
        """Speak with the first problem's words and say how many follow."""
        first = problems[0]
        self.problems = problems
        hint = first.hint
        if len(problems) > 1:
            more = f"and {len(problems) - 1} more"
            hint = more if hint is None else f"{hint}; {more}"
        super().__init__(first.what, got=first.got, expected=first.expected, hint=hint)


class Problems:
    """Collects complaints so that one run shows all of them."""

    __slots__ = ("_found",)

    def __init__(self) -> None:
        """Start without any."""
        self._found: list[MalformedError] = []

    @contextmanager
    def collected(self) -> Iterator[None]:
        """Keep a `MalformedError` of the block instead of letting it out."""
        try:
            yield
        except PolicyError as exc:
            self._found.extend(exc.problems)
        except MalformedError as exc:
            self._found.append(exc)

    def add(self, problem: MalformedError) -> None:
        """Keep one more."""
        self._found.append(problem)

    def finish(self) -> None:
        """Let all of them out.

        Raises:
            PolicyError: there was at least one.
        """
        if self._found:
            raise PolicyError(tuple(self._found))


@dataclass(frozen=True, slots=True)
class Located:
    """One value of a document and the path to it."""

    document: Document
    value: object
    path: Path = ()

    def where(self, *, at_name: bool = False) -> str:
        """Return `policy.yaml line 12 column 7`."""
        places = self.document.names if at_name else self.document.values
        place = places.get(self.path) or self.document.values[self.path]
        return f"{self.document.what} {place}"

    def fault(
        self,
        subject: str,
        *,
        got: str | None = None,
        expected: str | None = None,
        hint: str | None = None,
        at_name: bool = False,
    ) -> MalformedError:
        """Return the error to raise about this value."""
        return MalformedError(
            f"{self.where(at_name=at_name)}: {subject}",
            got=got,
            expected=expected,
            hint=hint,
        )

    def mapping(self, subject: str) -> dict[str, Located]:
        """Return the members of a mapping, whatever their names.

        Raises:
            MalformedError: it is no mapping.
        """
        if not isinstance(self.value, dict):
            raise self.fault(subject, got=self.kind(), expected="a mapping")
        return {
            name: Located(self.document, value, (*self.path, name))
            for name, value in self.value.items()
        }

    def members(
        self,
        subject: str,
        *,
        required: frozenset[str] = frozenset(),
        optional: frozenset[str] = frozenset(),
    ) -> dict[str, Located]:
        """Return the members of a mapping that has all `required` and no unknown ones.

        Raises:
            MalformedError: it does not.
        """
        members = self.mapping(subject)
        known = ", ".join(sorted(required | optional))
        for name in members:
            if name not in required and name not in optional:
                raise members[name].fault(
                    subject,
                    got=f"unknown member {name[:60]!r}",
                    expected=f"only {known}",
                    at_name=True,
                )
        missing = sorted(required - members.keys())
        if missing:
            needed = ", ".join(sorted(required))
            raise self.fault(
                subject, got="no " + ", ".join(missing), expected=f"all of {needed}"
            )
        return members

    def elements(self, subject: str, *, least: int = 1, most: int) -> list[Located]:
        """Return the elements of a list within the bounds.

        Raises:
            MalformedError: it is no list, or too short or long.
        """
        if not isinstance(self.value, list):
            raise self.fault(subject, got=self.kind(), expected="a list")
        if not least <= len(self.value) <= most:
            raise self.fault(
                subject,
                got=f"{len(self.value)} elements",
                expected=f"{least} to {most}",
            )
        return [
            Located(self.document, value, (*self.path, index))
            for index, value in enumerate(self.value)
        ]

    def text(self, subject: str, *, limit: int = 1024) -> str:
        """Return a string that is not empty.

        Raises:
            MalformedError: it is none, or too long.
        """
        if not isinstance(self.value, str):
            hint = "quote it" if isinstance(self.value, int) else None
            raise self.fault(subject, got=self.kind(), expected="a string", hint=hint)
        if not 1 <= len(self.value) <= limit:
            raise self.fault(
                subject,
                got=f"{len(self.value)} characters",
                expected=f"1 to {limit}",
            )
        return self.value

    def integer(
        self, subject: str, *, least: int = -MAX_INTEGER, most: int = MAX_INTEGER
    ) -> int:
        """Return an integer within the bounds.

        Raises:
            MalformedError: it is none, or out of bounds.
        """
        if isinstance(self.value, bool) or not isinstance(self.value, int):
            raise self.fault(subject, got=self.kind(), expected="an integer")
        if not least <= self.value <= most:
            raise self.fault(
                subject, got=str(self.value), expected=f"{least} to {most}"
            )
        return self.value

    def flag(self, subject: str) -> bool:
        """Return a boolean.

        Raises:
            MalformedError: it is none.
        """
        if not isinstance(self.value, bool):
            raise self.fault(subject, got=self.kind(), expected="true or false")
        return self.value

    def kind(self) -> str:
        """Return what the value is, for messages."""
        if self.value is None:
            return "null"
        if isinstance(self.value, (bool, int)):
            return str(self.value).lower()
        if isinstance(self.value, str):
            text = repr(self.value)
            return text if len(text) <= _SHOWN else text[: _SHOWN - 2] + "…'"
        return "a list" if isinstance(self.value, list) else "a mapping"
