"""A release policy as a frozen tree, and its canonical form.

The digest of a policy is SHA-256 over the RFC 8785 form of this model: two documents
that read the same have the same digest, whatever their comments and layout. Defaults
are written out, so that a digest keeps its meaning when a default changes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from kbs.pki.roots import Purpose, pinned_roots

KIND = "ReleasePolicy"

PINNED = frozenset(pinned_roots(Purpose.TPM).values())
"""Names of the roots of TPMs that need no registration."""


class Operator(StrEnum):
    """What a leaf compares with."""

    EQUALS = "equals"
    IN = "in"
    NOT_IN = "not_in"
    AT_LEAST = "at_least"
    AT_MOST = "at_most"
    MATCHES = "matches"
    PRESENT = "present"
    MEASURES = "measures"


class Freshness(StrEnum):
    """What proves that the evidence is new; decisions, section 2.5."""

    CHALLENGE = "challenge"
    TOKEN_AGE = "token_age"  # noqa: S105 - the word of the contract, no password
    NONE = "none"


class Door(StrEnum):
    """The front doors; contract, section 6."""

    V1 = "v1"
    RCAR = "rcar"
    KMS = "kms"
    SKR = "skr"


Scalar = bool | int | str


@dataclass(frozen=True, slots=True)
class Values:
    """A list of literal values."""

    items: tuple[Scalar, ...]

    def to_json(self) -> object:
        """Return the list as written in a policy."""
        return list(self.items)


@dataclass(frozen=True, slots=True)
class Reference:
    """A named reference set, resolved in the policy's tenant or in `shared/`."""

    name: str

    def to_json(self) -> object:
        """Return the form of a policy."""
        return {"reference": self.name}


@dataclass(frozen=True, slots=True)
class Components:
    """SVNs of named TCB components, ordered by name."""

    svns: tuple[tuple[str, int], ...]

    def to_json(self) -> object:
        """Return the form of a policy."""
        return dict(self.svns)


@dataclass(frozen=True, slots=True)
class WorkloadStep:
    """One extend: the digest of a version of a workload policy."""

    name: str
    version: int

    def to_json(self) -> object:
        """Return the form of a policy."""
        return {"workload_policy": self.name, "version": self.version}


@dataclass(frozen=True, slots=True)
class DigestStep:
    """One extend: a literal digest in lower-case hex."""

    digest: str

    def to_json(self) -> object:
        """Return the form of a policy."""
        return {"digest": self.digest}


@dataclass(frozen=True, slots=True)
class Measured:
    """Everything that went into a register, in order.

    `listed` remembers that the policy wrote a `sequence`.
    """

    steps: tuple[WorkloadStep | DigestStep, ...]
    listed: bool = False

    def to_json(self) -> object:
        """Return the form of a policy."""
        if self.listed:
            return {"sequence": [step.to_json() for step in self.steps]}
        return self.steps[0].to_json()


Operand = Scalar | Values | Reference | Components | Measured


def operand_json(operand: Operand) -> object:
    """Return an operand as a policy writes it."""
    if isinstance(operand, (bool, int, str)):
        return operand
    return operand.to_json()


@dataclass(frozen=True, slots=True)
class Leaf:
    """One claim compared with one operand."""

    op: Operator
    claim: str
    operand: Operand

    def to_json(self) -> object:
        """Return the form of a policy."""
        return {"claim": self.claim, self.op.value: operand_json(self.operand)}


@dataclass(frozen=True, slots=True)
class AllOf:
    """Every child holds."""

    children: tuple[Node, ...]

    def to_json(self) -> object:
        """Return the form of a policy."""
        return {"all": [child.to_json() for child in self.children]}


@dataclass(frozen=True, slots=True)
class AnyOf:
    """At least one child holds."""

    children: tuple[Node, ...]

    def to_json(self) -> object:
        """Return the form of a policy."""
        return {"any": [child.to_json() for child in self.children]}


@dataclass(frozen=True, slots=True)
class Not:
    """The child is false (unknown stays unknown)."""

    child: Node

    def to_json(self) -> object:
        """Return the form of a policy."""
        return {"not": self.child.to_json()}


@dataclass(frozen=True, slots=True)
class Every:
    """The conditions hold for each item of a family, and there is at least one."""

    family: str
    body: AllOf | AnyOf

    def to_json(self) -> object:
        """Return the form of a policy."""
        word = "all" if isinstance(self.body, AllOf) else "any"
        conditions = [child.to_json() for child in self.body.children]
        return {"every": self.family, word: conditions}


@dataclass(frozen=True, slots=True)
class Count:
    """How many items of a family the evidence has."""

    family: str
    op: Operator
    number: int

    def to_json(self) -> object:
        """Return the form of a policy."""
        return {"count": self.family, self.op.value: self.number}


@dataclass(frozen=True, slots=True)
class Safe:
    """Expands to the safe values of everything that the rule leaves open."""

    def to_json(self) -> object:
        """Return the form of a policy."""
        return {"safe": True}


Node = AllOf | AnyOf | Not | Every | Count | Leaf | Safe


@dataclass(frozen=True, slots=True)
class Rule:
    """One way to be granted; `unsafe` excuses what it leaves open, with a reason."""

    name: str
    tree: AllOf | AnyOf
    unsafe: tuple[tuple[str, str], ...] = ()

    def to_json(self) -> object:
        """Return the form of a policy."""
        word = "all" if isinstance(self.tree, AllOf) else "any"
        document: dict[str, object] = {
            "rule": self.name,
            word: [child.to_json() for child in self.tree.children],
        }
        if self.unsafe:
            document["unsafe"] = dict(self.unsafe)
        return document


@dataclass(frozen=True, slots=True, kw_only=True)
class Accept:
    """Which requests count at all, before any rule."""

    doors: tuple[Door, ...] = (Door.V1, Door.RCAR)
    freshness: Freshness = Freshness.CHALLENGE
    max_age: int | None = None

    def to_json(self) -> object:
        """Return the form of a policy."""
        document: dict[str, object] = {
            "doors": [door.value for door in self.doors],
            "freshness": self.freshness.value,
        }
        if self.max_age is not None:
            document["max_age"] = self.max_age
        return document


@dataclass(frozen=True, slots=True, kw_only=True)
class Dependencies:
    """Names that must exist in the policy's tenant (or in `shared/`)."""

    references: frozenset[str] = frozenset()
    workload_policies: frozenset[tuple[str, int]] = frozenset()
    ak_groups: frozenset[str] = frozenset()
    cas: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleasePolicy:
    """Who gets which keys."""

    name: str
    releases: tuple[str, ...]
    allow: tuple[Rule, ...]
    accept: Accept = field(default_factory=Accept)
    tolerate_missing_revocation: bool = False
    unsafe: tuple[tuple[str, str], ...] = ()
    description: str | None = None

    @property
    def tenant(self) -> str:
        """The first segment that all its key globs share."""
        return self.releases[0].partition("/")[0]

    def to_json(self) -> dict[str, object]:
        """Return the document that reads back as this policy."""
        document: dict[str, object] = {
            "kind": KIND,
            "name": self.name,
            "releases": list(self.releases),
            "allow": [rule.to_json() for rule in self.allow],
            "accept": self.accept.to_json(),
            "revocation": {"tolerate_missing": self.tolerate_missing_revocation},
        }
        if self.unsafe:
            document["unsafe"] = dict(self.unsafe)
        if self.description is not None:
            document["description"] = self.description
        return document

    def dependencies(self) -> Dependencies:
        """Return every name that has to resolve for the rules to be decidable."""
        leaves = [leaf for rule in self.allow for leaf in leaves_of(rule.tree)]
        steps = [
            step
            for leaf in leaves
            if isinstance(leaf.operand, Measured)
            for step in leaf.operand.steps
        ]
        return Dependencies(
            references=frozenset(
                leaf.operand.name
                for leaf in leaves
                if isinstance(leaf.operand, Reference)
            ),
            workload_policies=frozenset(
                (step.name, step.version)
                for step in steps
                if isinstance(step, WorkloadStep)
            ),
            ak_groups=_literals(leaves, ".ak.group"),
            # A pinned root is always there, and no CA can be registered by such a name.
            cas=_literals(leaves, ".ak.ca") - PINNED,
        )


def leaves_of(node: Node) -> Iterator[Leaf]:
    """Walk every leaf of a tree in document order."""
    for part in parts_of(node):
        if isinstance(part, Leaf):
            yield part


def parts_of(node: Node) -> Iterator[Node]:
    """Walk every node of a tree in document order, itself first."""
    yield node
    if isinstance(node, (AllOf, AnyOf)):
        for child in node.children:
            yield from parts_of(child)
    elif isinstance(node, Not):
        yield from parts_of(node.child)
    elif isinstance(node, Every):
        yield from parts_of(node.body)


def _literals(leaves: list[Leaf], suffix: str) -> frozenset[str]:
    # A group or CA that a rule only excludes has to exist as well: a typing error in
    # an exclusion would otherwise exclude nothing.
    found: set[str] = set()
    for leaf in leaves:
        if not leaf.claim.endswith(suffix):
            continue
        if isinstance(leaf.operand, Values):
            found.update(str(value) for value in leaf.operand.items)
        elif leaf.op is Operator.EQUALS:
            found.add(str(leaf.operand))
    return frozenset(found)
