"""Reading `context.yaml`: what the names of an example policy refer to.

Contract, section 5. `references` are named lists of values, or `{values, expires}`;
`workload_policies` are paths: one (version 1), a list (versions 1, 2, …), or by version
number; `ak_groups` list base64 TPM2B_PUBLICs; `cas` are PEM certificates or paths.
A name is `TENANT/NAME`, or `NAME` for the policy's own tenant. Paths are relative to
the file and stay below its folder.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from kbs.core.clock import parse_time
from kbs.core.encode import parse_b64
from kbs.core.errors import MalformedError
from kbs.core.ids import ScopedName, is_segment
from kbs.policy.context import Context, ReferenceSet, WorkloadDigests
from kbs.policy.located import Located, Problems
from kbs.policy.model import Scalar
from kbs.policy.yaml import MAX_BYTES, parse_yaml

MAX_DOCUMENT = 16 * 1024 * 1024
"""Largest workload policy or certificate file that is read."""

# TPM 2.0 Library, Part 2, 12.2.5: a TPM2B_PUBLIC of any key in use is far smaller.
_MAX_PUBLIC = 4096

_MAX_LISTED = 4096


def load_context(path: Path, *, tenant: str) -> Context:
    """Read a context file; plain names are those of `tenant`.

    Raises:
        PolicyError: something in it is wrong; every problem with line and column.
        MalformedError: it or a file that it names cannot be read.
    """
    source = read_file(path, path.name, limit=MAX_BYTES)
    document = parse_yaml(source, path.name)
    root = Located(document, {} if document.value is None else document.value)
    return _ContextReader(root, path.parent, tenant).context()


def read_file(path: Path, what: str, *, limit: int) -> bytes:
    """Read a file of bounded size.

    Raises:
        MalformedError: it is not there, cannot be read, or is larger.
    """
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as exc:
        reason = exc.strerror or type(exc).__name__
        raise MalformedError(what, got=reason, expected="a readable file") from exc
    if len(data) > limit:
        raise MalformedError(
            what, got=f"more than {limit} bytes", expected=f"at most {limit}"
        )
    return data


class _ContextReader:
    def __init__(self, root: Located, folder: Path, tenant: str) -> None:
        self._root = root
        self._folder = folder
        self._tenant = tenant
        self._problems = Problems()

    def context(self) -> Context:
        sections = self._root.members(
            "context",
            optional=frozenset({"references", "workload_policies", "ak_groups", "cas"}),
        )
        references: dict[ScopedName, ReferenceSet] = {}
        policies: dict[tuple[ScopedName, int], WorkloadDigests] = {}
        groups: dict[ScopedName, tuple[bytes, ...]] = {}
        cas: dict[ScopedName, bytes] = {}
        for name, each in self._members(sections, "references"):
            with self._problems.collected():
                references[name] = _reference_set(each)
        for name, each in self._members(sections, "workload_policies"):
            with self._problems.collected():
                for version, path in _versions(each):
                    policies[name, version] = WorkloadDigests.of(self._file(path))
        for name, each in self._members(sections, "ak_groups"):
            with self._problems.collected():
                groups[name] = _publics(each)
        for name, each in self._members(sections, "cas"):
            with self._problems.collected():
                cas[name] = self._certificate(each)
        self._problems.finish()
        return Context(
            references=references,
            workload_policies=policies,
            ak_groups=groups,
            cas=cas,
        )

    def _members(
        self, sections: dict[str, Located], section: str
    ) -> list[tuple[ScopedName, Located]]:
        found: list[tuple[ScopedName, Located]] = []
        if section not in sections:
            return found
        with self._problems.collected():
            for text, member in sections[section].mapping(section).items():
                with self._problems.collected():
                    found.append((self._scoped(text, member, section), member))
        return found

    def _scoped(self, text: str, located: Located, section: str) -> ScopedName:
        parts = text.split("/")
        if len(parts) == 1:
            parts.insert(0, self._tenant)
        if len(parts) != 2 or not all(is_segment(part) for part in parts):  # noqa: PLR2004
            raise located.fault(
                section,
                got=repr(text)[:80],
                expected="NAME or TENANT/NAME",
                at_name=True,
            )
        return ScopedName(*parts)

    def _file(self, located: Located) -> bytes:
        text = located.text("path", limit=512)
        path = PurePosixPath(text)
        if path.is_absolute() or ".." in path.parts:
            raise located.fault(
                "path", got=located.kind(), expected="a path below the context's folder"
            )
        try:
            return read_file(self._folder / path, text, limit=MAX_DOCUMENT)
        except MalformedError as exc:
            raise located.fault(
                f"file {text}", got=exc.got, expected=exc.expected
            ) from exc

    def _certificate(self, located: Located) -> bytes:
        text = located.text("ca", limit=65_536)
        if text.startswith("-----BEGIN CERTIFICATE-----"):
            return text.encode("utf-8")
        return self._file(located)


def _reference_set(located: Located) -> ReferenceSet:
    expires = None
    values = located
    if isinstance(located.value, dict):
        members = located.members(
            "reference", required=frozenset({"values"}), optional=frozenset({"expires"})
        )
        values = members["values"]
        if "expires" in members:
            text = members["expires"].text("expires")
            try:
                expires = parse_time(text)
            except MalformedError as exc:
                raise members["expires"].fault(
                    "expires", got=exc.got, expected=exc.expected
                ) from exc
    elements = values.elements("reference values", most=_MAX_LISTED)
    return ReferenceSet(
        values=tuple(_value(element) for element in elements), expires=expires
    )


def _value(located: Located) -> Scalar:
    # As in governance, whose sets have no booleans.
    if isinstance(located.value, bool) or not isinstance(located.value, (int, str)):
        raise located.fault(
            "reference value", got=located.kind(), expected="a string or an integer"
        )
    return located.value


def _versions(located: Located) -> list[tuple[int, Located]]:
    """Read a path (version 1), a list (versions 1, 2, …) or {version: path}."""
    if isinstance(located.value, str):
        return [(1, located)]
    if isinstance(located.value, list):
        elements = located.elements("workload policy versions", most=_MAX_LISTED)
        return [(index + 1, element) for index, element in enumerate(elements)]
    versions = []
    for text, member in located.mapping("workload policy").items():
        if not text.isascii() or not text.isdecimal() or not 0 < len(text) < 10:  # noqa: PLR2004
            raise member.fault(
                "workload policy version",
                got=repr(text)[:40],
                expected="1, 2, 3 …",
                at_name=True,
            )
        versions.append((int(text), member))
    return versions


def _publics(located: Located) -> tuple[bytes, ...]:
    keys = []
    for element in located.elements("AK group", least=0, most=_MAX_LISTED):
        try:
            text = element.text("TPM2B_PUBLIC", limit=2 * _MAX_PUBLIC)
            keys.append(parse_b64(text, "TPM2B_PUBLIC", limit=_MAX_PUBLIC))
        except MalformedError as exc:
            raise element.fault(
                "TPM2B_PUBLIC", got=exc.got, expected=exc.expected
            ) from exc
    return tuple(keys)
