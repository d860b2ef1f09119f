"""Which policies govern a key: globs over key ids (decisions, section 2.1)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import re2

from kbs.core.errors import MalformedError
from kbs.core.ids import KeyId, is_segment
from kbs.policy.located import Located

MAX_GLOBS = 64
"""Most key globs in one policy."""

_GLOB = "repository/type/tag, where * stands for any characters within type or tag"


@dataclass(frozen=True, slots=True)
class KeyGlob:
    """`repository/type/tag`; `*` matches within one segment, never in the first."""

    text: str
    _type: re2._Regexp = field(repr=False, compare=False)
    _tag: re2._Regexp = field(repr=False, compare=False)

    @staticmethod
    def parse(text: str) -> KeyGlob:
        """Read one glob.

        Raises:
            MalformedError: not three segments, a `*` in the first, or `**`.
        """
        parts = text.split("/")
        if len(parts) != 3 or not is_segment(parts[0]):  # noqa: PLR2004
            raise MalformedError("key glob", got=repr(text)[:120], expected=_GLOB)
        for part in parts[1:]:
            if "**" in part or not is_segment(part.replace("*", "0")):
                raise MalformedError("key glob", got=repr(text)[:120], expected=_GLOB)
        return KeyGlob(text, _segment(parts[1]), _segment(parts[2]))

    @property
    def tenant(self) -> str:
        """The literal first segment."""
        return self.text.partition("/")[0]

    def matches(self, key: KeyId) -> bool:
        """Whether the key id falls under this glob."""
        return (
            key.tenant == self.tenant
            and self._type.fullmatch(key.type) is not None
            and self._tag.fullmatch(key.tag) is not None
        )


def _segment(glob: str) -> re2._Regexp:
    # RE2 takes linear time, whatever the number of stars.
    return re2.compile(".*".join(re.escape(part) for part in glob.split("*")))


def parse_releases(located: Located) -> tuple[str, ...]:
    """Read the globs of a policy.

    Raises:
        MalformedError: one is wrong, or they belong to different tenants.
    """
    tenant: str | None = None
    globs: list[str] = []
    for element in located.elements("releases", most=MAX_GLOBS):
        text = element.text("releases", limit=256)
        try:
            glob = KeyGlob.parse(text)
        except MalformedError as exc:
            raise element.fault("releases", got=exc.got, expected=exc.expected) from exc
        if tenant is not None and glob.tenant != tenant:
            raise element.fault(
                "releases",
                got=f"tenant {glob.tenant} beside {tenant}",
                expected="one tenant for the whole policy",
            )
        if text in globs:
            raise element.fault("releases", got=f"{text} twice", expected="once")
        tenant = glob.tenant
        globs.append(text)
    return tuple(globs)


class Governing(Protocol):
    """Something with key globs."""

    @property
    def globs(self) -> tuple[KeyGlob, ...]:
        """The keys it governs."""
        ...


P = TypeVar("P", bound=Governing)


def governing(policies: Iterable[P], key: KeyId) -> tuple[P, ...]:
    """Return every policy that matches the key, in the order given."""
    return tuple(
        policy for policy in policies if any(glob.matches(key) for glob in policy.globs)
    )
