"""The checks that join the items of a bundle: one primary, the binding, no duplicate.

The primary item (the CPU report, else the one vTPM, else the one sample) covers the
digest of every other item, so a genuine device from another machine has no place in
the set.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from kbs.core.checks import Check, CheckLog
from kbs.evidence.model import ItemResult, ParsedItem, Verifier


class BundleBinding(Protocol):
    """Computes the bytes that the items of one request must carry."""

    def primary(self, kind: str, devices: Sequence[tuple[str, str]]) -> bytes:
        """Return P(kind) over (kind, hex SHA-384 of core) of the other items."""
        ...

    def device(self, kind: str) -> bytes:
        """Return D(kind)."""
        ...

    def carried(self, kind: str, digest: bytes) -> bytes | None:
        """Return the whole bound field, where the protocol has a form of its own.

        None leaves the form to the verifier of the kind (`bound_matches`).
        """
        ...

    def beside(self) -> Mapping[str, bytes]:
        """Return what a primary's further fields (`ParsedItem.beside`) may hold."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class AppraisedItem:
    """One parsed item with what its verifier says."""

    verifier: Verifier
    parsed: ParsedItem
    result: ItemResult

    @property
    def device(self) -> tuple[str, str]:
        """The element of M that this item would be."""
        digest = hashlib.sha384(self.parsed.core).hexdigest()
        return (self.parsed.kind, digest)

    @property
    def is_primary(self) -> bool:
        """Whether it is a primary by itself, as CPU reports and tokens of them are."""
        return self.verifier.primary or self.parsed.primary

    @property
    def bound_as(self) -> str:
        """The kind in its D."""
        return self.parsed.bound_as or self.parsed.kind


@dataclass(frozen=True, slots=True)
class Joined:
    """What the checks across items found; `bound` is P when the primary carries it."""

    primary: int | None = None
    devices: tuple[tuple[str, str], ...] = ()
    bound: bytes | None = None
    checks: tuple[Check, ...] = ()


def choose_primary(
    kinds: Sequence[str], verifiers: Mapping[str, Verifier]
) -> tuple[int, ...]:
    """Return the indices of all items that claim to be primary; one is right.

    CPU reports come first; without one it is a vTPM; without that a sample.
    """
    cpu = tuple(i for i, kind in enumerate(kinds) if verifiers[kind].primary)
    if cpu:
        return cpu
    for fallback in ("vtpm", "sample"):
        found = tuple(i for i, kind in enumerate(kinds) if kind == fallback)
        if found:
            return found
    return ()


def join_items(items: Sequence[AppraisedItem], binding: BundleBinding | None) -> Joined:
    """Run the checks across all items; `binding` is None for recorded evidence."""
    log = CheckLog()
    # Some items say themselves what they are about, whatever else is of their kind.
    found = tuple(i for i, one in enumerate(items) if one.is_primary)
    found = found or choose_primary(
        [one.parsed.kind for one in items],
        {one.parsed.kind: one.verifier for one in items},
    )
    if len(found) == 1:
        log.passed("bundle.primary", f"item {found[0]}")
        joined = _bind(items, found[0], binding, log)
    elif not found and binding is None:
        # Nothing binds recorded evidence, so nothing is missing among devices alone.
        log.skipped("bundle.primary", "recorded evidence of devices alone")
        log.skipped("binding.devices", "recorded evidence without runtime data")
        joined = Joined()
    else:
        log.failed(
            "bundle.primary",
            "items that bind the set to the request",
            got=str(len(found)),
            expected="exactly 1",
        )
        joined = Joined()
    _check_duplicates(items, log)
    return replace(joined, checks=log.checks)


def _bind(
    items: Sequence[AppraisedItem],
    primary: int,
    binding: BundleBinding | None,
    log: CheckLog,
) -> Joined:
    others = [one for one in items if one.parsed.index != primary]
    devices = tuple(one.device for one in others)
    if binding is None:
        log.skipped("binding.primary", "recorded evidence without runtime data")
        log.skipped("binding.devices", "recorded evidence without runtime data")
        return Joined(primary, devices)
    one = items[primary]
    expected = binding.primary(one.parsed.kind, devices)
    unbound = [
        other.parsed.index
        for other in others
        if not _is_bound(other, binding.device(other.bound_as), binding)
    ]
    if not _is_bound(one, expected, binding):
        _note_unbound(one, expected, log)
    elif _fits_beside(one.parsed, binding.beside(), log):
        log.passed("binding.primary", f"item {primary} carries P")
        _check_devices(others, unbound, log)
        return Joined(primary, devices, expected)
    if others and not unbound:
        log.failed(
            "binding.devices",
            "every device carries D, but the primary covers another set of devices",
        )
    else:
        _check_devices(others, unbound, log)
    return Joined(primary, devices)


def _is_bound(one: AppraisedItem, digest: bytes, binding: BundleBinding) -> bool:
    whole = binding.carried(one.parsed.kind, digest)
    if whole is None:
        return one.verifier.bound_matches(one.parsed, digest)
    return one.parsed.bound == whole


def _note_unbound(one: AppraisedItem, expected: bytes, log: CheckLog) -> None:
    log.failed(
        "binding.primary",
        f"item {one.parsed.index} is not bound to this request and this set of items",
        got=one.parsed.bound.hex(),
        expected=expected.hex(),
    )


def _fits_beside(
    parsed: ParsedItem, fitting: Mapping[str, bytes], log: CheckLog
) -> bool:
    """Whether every further field that is filled in fits the request."""
    for name, value in parsed.beside.items():
        if value != fitting.get(name):
            log.failed(
                "binding.primary",
                f"item {parsed.index} carries P, and beside it another {name}",
                got=value.hex(),
                expected=fitting[name].hex() if name in fitting else "none",
            )
            return False
    return True


def _check_devices(
    others: Sequence[AppraisedItem], unbound: Sequence[int], log: CheckLog
) -> None:
    if not others:
        log.skipped("binding.devices", "no items beside the primary")
    elif unbound:
        log.failed(
            "binding.devices",
            "items that are not bound to this request",
            got="items " + ", ".join(str(index) for index in unbound),
            expected="none",
        )
    else:
        log.passed("binding.devices", f"{len(others)} items carry D and are in M")


def _check_duplicates(items: Sequence[AppraisedItem], log: CheckLog) -> None:
    names = Counter(name for one in items for name in set(one.result.identities))
    names.update(f"core:{kind}:{digest}" for kind, digest in (i.device for i in items))
    twice = sorted(name for name, count in names.items() if count > 1)
    if twice:
        log.failed(
            "binding.duplicate",
            "one device stands in the bundle twice",
            got=", ".join(twice),
            expected="every device once",
        )
    else:
        log.passed("binding.duplicate", "every device once")
