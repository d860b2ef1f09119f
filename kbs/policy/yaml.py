"""Strict reading of YAML 1.2 (core schema) and JSON, with a position for every value.

PyYAML supplies the grammar (events with marks); nothing of its resolver or its
constructors is used, because they read `no`, `017`, `1:30` and `3.10` as a boolean,
an octal, a sexagesimal and a float, and let duplicate keys pass. Here a plain scalar
is null, true, false, a decimal integer or a string; what some YAML reader would take
for anything else has to be quoted. No anchors, aliases, tags, merge keys, directives
or second documents (YAML 1.2.2, chapters 6.8, 6.9, 9.2 and 10.3).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NoReturn

import yaml
from yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
)

from kbs.core.encode import MAX_DEPTH, MAX_INTEGER, parse_json
from kbs.core.errors import MalformedError

MAX_BYTES = 256 * 1024
"""Largest document that is read."""

MAX_NODES = 20_000
"""Most scalars, lists and mappings in one document."""

Path = tuple[str | int, ...]
"""Where a value stands: member names and list indexes from the top."""

_INTEGER = re.compile(r"0|-?[1-9][0-9]*", re.ASCII)

# What YAML 1.1 or the 1.2 core schema reads as a number of another kind: octal,
# hexadecimal, binary, sexagesimal, float, infinity, digits with underscores.
_NUMBERLIKE = re.compile(
    r"[-+]?(?:"
    r"[0-9][0-9_]*(?:\.[0-9_]*)?(?:e[-+]?[0-9]+)?"
    r"|\.[0-9][0-9_]*(?:e[-+]?[0-9]+)?"
    r"|0[xob][0-9a-f_]+"
    r"|[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?"
    r"|\.inf|\.nan)",
    re.ASCII | re.IGNORECASE,
)

# YAML 1.1 booleans and nulls in their many spellings.
_WORDS = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})

# Characters that JSON and YAML treat differently, or that nobody can see: refused so
# that the canonical JSON of what was read is read back as the same value.
_INVISIBLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ufffe\uffff]")

# What makes a reader see another text than is there: marks that turn the direction of
# writing (UAX 9, section 2), and characters without width or ink. Comments are no
# place for them either. Joiners (U+200C, U+200D) are letters' business.
_MISLEADING = re.compile(
    "[\u00ad\u061c\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff]"
)


@dataclass(frozen=True, slots=True)
class Position:
    """A place in the source; both count from 1."""

    line: int
    column: int

    def __str__(self) -> str:
        """Return the form that messages use."""
        return f"line {self.line} column {self.column}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """What was read: the value, and where each value and member name stands."""

    what: str
    value: object
    values: Mapping[Path, Position]
    names: Mapping[Path, Position]


def parse_yaml(source: bytes, what: str, *, registered: bool = False) -> Document:
    """Read one document into mappings, lists, strings, integers, booleans and null.

    `registered`: it was accepted earlier, and may read as another text than it is.

    Raises:
        MalformedError: anything outside the accepted subset, with line and column.
    """
    document = _Builder(_decode(source, what), what, registered).document()
    if not registered:
        # Last, since only here comments are looked at, which nothing else reads.
        _require_plain(source.decode("utf-8"), what)
    return document


def _decode(source: bytes, what: str) -> str:
    if len(source) > MAX_BYTES:
        raise MalformedError(
            f"{what} {Position(1, 1)}",
            got=f"{len(source)} bytes",
            expected=f"at most {MAX_BYTES}",
        )
    try:
        text = source.decode("utf-8")
    except UnicodeDecodeError as exc:
        before = source[: exc.start].decode("utf-8")
        raise MalformedError(
            f"{what} {_position_after(before)}",
            got="bytes that are not UTF-8",
            expected="UTF-8",
        ) from exc
    if text.startswith("\ufeff"):
        raise MalformedError(
            f"{what} {Position(1, 1)}", got="a byte order mark", expected="none"
        )
    return _without_tabs(text, what)


def _require_plain(text: str, what: str) -> None:
    misleading = _MISLEADING.search(text)
    if misleading is not None:
        raise MalformedError(
            f"{what} {_position_after(text[: misleading.start()])}",
            got=f"character U+{ord(misleading.group()):04X}",
            expected="text that reads as it is written",
        )


def _without_tabs(text: str, what: str) -> str:
    # JSON allows tabs between tokens, YAML does not. Inside JSON strings they cannot
    # stand, so in a text that is JSON every tab may become a space.
    if "\t" not in text or not text.lstrip().startswith(("{", "[")):
        return text
    try:
        parse_json(text, what, limit=MAX_BYTES)
    except MalformedError:
        return text
    return text.replace("\t", " ")


def _position_after(text: str) -> Position:
    last_break = text.rfind("\n")
    return Position(text.count("\n") + 1, len(text) - last_break)


class _Builder:
    """Turns events into values; counts depth and nodes before it builds anything."""

    def __init__(
        self,
        text: str,
        what: str,
        registered: bool,  # noqa: FBT001 - private
    ) -> None:
        self._what = what
        self._registered = registered
        self._values: dict[Path, Position] = {}
        self._names: dict[Path, Position] = {}
        self._nodes = 0
        try:
            # The loader is used for its scanner and parser only.
            self._loader = yaml.SafeLoader(text)
        except yaml.reader.ReaderError as exc:
            raise MalformedError(
                f"{what} {_position_after(text[: exc.position])}",
                got=f"character U+{ord(text[exc.position]):04X}",
                expected="printable text",
            ) from exc

    def document(self) -> Document:
        self._next()  # StreamStartEvent
        start = self._next()
        if isinstance(start, StreamEndEvent):
            self._refuse(start, got="nothing", expected="one document")
        if isinstance(start, DocumentStartEvent) and (start.version or start.tags):
            self._refuse(start, got="a directive", expected="none")
        value = self._node(self._next(), ())
        self._next()  # DocumentEndEvent
        end = self._next()
        if not isinstance(end, StreamEndEvent):
            self._refuse(end, got="a second document", expected="one document")
        return Document(
            what=self._what, value=value, values=self._values, names=self._names
        )

    def _next(self) -> Event:
        try:
            event: Event = self._loader.get_event()  # type: ignore[no-untyped-call]
        except yaml.MarkedYAMLError as exc:
            mark = exc.problem_mark or exc.context_mark or self._loader.get_mark()
            raise MalformedError(
                f"{self._what} {Position(mark.line + 1, mark.column + 1)}",
                got="broken YAML",
                expected="YAML 1.2 or JSON",
                hint=exc.problem,
            ) from exc
        except (yaml.YAMLError, ValueError, OverflowError) as exc:
            # The scanner lets chr() and int() fail on escapes and versions it accepts.
            mark = self._loader.get_mark()
            raise MalformedError(
                f"{self._what} {Position(mark.line + 1, mark.column + 1)}",
                got="a number out of range in an escape or a directive",
                expected="YAML 1.2 or JSON",
            ) from exc
        return event

    def _node(self, event: Event, path: Path) -> object:
        self._count(event, path)
        if isinstance(event, AliasEvent):
            self._refuse(event, got="an alias", expected="the value itself")
        if isinstance(event, NodeEvent) and event.anchor is not None:
            self._refuse(event, got="an anchor", expected="none")
        if getattr(event, "tag", None) is not None:
            self._refuse(event, got="a tag", expected="none")
        self._values[path] = _position(event)
        if isinstance(event, MappingStartEvent):
            return self._mapping(path)
        if isinstance(event, SequenceStartEvent):
            return self._sequence(path)
        if not isinstance(event, ScalarEvent):  # pragma: no cover - the grammar's order
            self._refuse(event, got=type(event).__name__, expected="a value")
        return self._scalar(event)

    def _count(self, event: Event, path: Path) -> None:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            self._refuse(event, got="more values", expected=f"at most {MAX_NODES}")
        if len(path) > MAX_DEPTH:
            self._refuse(
                event, got="deeper nesting", expected=f"at most {MAX_DEPTH} levels"
            )

    def _mapping(self, path: Path) -> dict[str, object]:
        members: dict[str, object] = {}
        while not isinstance(event := self._next(), MappingEndEvent):
            name = self._member_name(event)
            here = (*path, name)
            if name in members:
                self._refuse(
                    event,
                    got=f"member {name[:60]!r} twice",
                    expected=f"once; it stands at {self._names[here]} already",
                )
            self._names[here] = _position(event)
            members[name] = self._node(self._next(), here)
        return members

    def _member_name(self, event: Event) -> str:
        self._count(event, ())
        if not isinstance(event, ScalarEvent):
            got = "an alias" if isinstance(event, AliasEvent) else "a list or mapping"
            self._refuse(event, got=f"{got} as a member name", expected="a string")
        if event.anchor is not None or event.tag is not None:
            self._refuse(event, got="an anchor or a tag", expected="none")
        if event.implicit[0] and event.value == "<<":
            self._refuse(event, got="a merge key", expected="the members themselves")
        value = self._scalar(event)
        if value is None or isinstance(value, bool):
            self._refuse(
                event,
                got=f"{event.value!r} as a member name",
                expected="a string",
                hint="quote it",
            )
        return str(value)

    def _sequence(self, path: Path) -> list[object]:
        elements: list[object] = []
        while not isinstance(event := self._next(), SequenceEndEvent):
            elements.append(self._node(event, (*path, len(elements))))
        return elements

    def _scalar(self, event: ScalarEvent) -> object:
        if event.implicit[0]:
            return self._plain(event)
        return self._text(event)

    def _text(self, event: ScalarEvent) -> str:
        # JSON writes characters beyond U+FFFF as two escapes, which YAML reads as two
        # surrogates; a pair is joined, a lone one refused.
        try:
            text = event.value.encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeDecodeError:
            self._refuse(event, got="a lone surrogate", expected="Unicode text")
        found = _INVISIBLE.search(text)
        if found is None and not self._registered:
            found = _MISLEADING.search(text)
        if found is not None:
            self._refuse(
                event,
                got=f"character U+{ord(found.group()):04X}",
                expected="printable text",
            )
        return text

    def _plain(self, event: ScalarEvent) -> object:
        text = event.value
        if text in {"", "~", "null"}:
            return None
        if text in {"true", "false"}:
            return text == "true"
        if _INTEGER.fullmatch(text):
            return self._integer(event)
        if text.lower() in _WORDS or _NUMBERLIKE.fullmatch(text):
            self._refuse(
                event,
                got=f"{text[:40]!r} without quotes",
                expected="true, false, null, a decimal integer or a string",
                hint="YAML readers differ on this: quote it, or write true or false",
            )
        return self._text(event)

    def _integer(self, event: ScalarEvent) -> int:
        text = event.value
        if len(text) > len(str(MAX_INTEGER)) + 1 or abs(int(text)) > MAX_INTEGER:
            self._refuse(
                event,
                got=text[:40],
                expected="an integer within ±2^53",
                hint="if it is a string, for example hex, quote it",
            )
        return int(text)

    def _refuse(
        self, event: Event, *, got: str, expected: str, hint: str | None = None
    ) -> NoReturn:
        raise MalformedError(
            f"{self._what} {_position(event)}", got=got, expected=expected, hint=hint
        )


def _position(event: Event) -> Position:
    mark = event.start_mark
    # Every event of the parser carries a mark; its type says that it may not.
    return Position(mark.line + 1, mark.column + 1) if mark else Position(1, 1)
