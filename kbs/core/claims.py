"""The facts that verified evidence proves, in one typed, frozen vocabulary.

RFC 9334 words: claims are what an attester says of itself and a verifier found
proven. Each evidence family declares its `ClaimSpec`s beside its verifier; the
registry joins them into the `Vocabulary` that policies are checked against.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from kbs.core.ids import SHARED_TENANT

# The last words of claims whose value is the name of an object of the tenant.
_NAMING = (".ak.group", ".ak.ca")

ClaimValue = bool | int | str | Mapping[str, int] | tuple[str, ...]
"""Bytes are lower-case hex, 64-bit fields 16 hex digits, TCBs component → SVN."""

SCALARS = frozenset({bool, int, str})
"""The types of nearly all values, which are the same in JSON. Told apart by them, the
hundred claims of an item cost no call each."""


class ClaimType(StrEnum):
    """How a claim's value is written and compared."""

    BYTES = "bytes"  # lower-case hex of a fixed or bounded length
    BOOL = "bool"
    INT = "int"
    U64 = "u64"  # 16 lower-case hex digits, compared as integers
    TEXT = "text"
    VERSION = "version"  # dot-separated decimal components
    TCB = "tcb"  # a mapping of component name to SVN
    TIME = "time"  # RFC 3339 UTC
    TEXTS = "texts"  # a list of strings


@dataclass(frozen=True, slots=True, kw_only=True)
class Safety:
    """What a policy rule must fix for this claim, or excuse under `unsafe:`.

    `default` is what `safe: true` expands to (any of these values); `acceptable`
    are further values that a rule may fix in words of its own without an excuse.
    An empty `default` means that `safe: true` cannot know the value (an AK group):
    the rule must fix the claim, or one of `alternatives`, to any value; with `floor`,
    an `at_least` above 0 for the claim fixes it too. With `beside` all of this is asked
    only of rules that name that claim.
    """

    reason: str
    default: tuple[bool | int | str, ...] = ()
    acceptable: tuple[bool | int | str, ...] = ()
    alternatives: tuple[str, ...] = ()
    floor: bool = False
    beside: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimSpec:
    """One claim name: type, meaning, source, and whether it is dangerous to leave open.

    `name` is full and dotted (`snp.policy.debug_allowed`); for a TCB, `components`
    lists the known ones; `boot` marks claims that constrain what boots; `register`
    names the hash (`sha256`, `sha384`) of a register that `measures` may test;
    `resettable` marks registers that software can reset (TPM PCRs 16–23).
    """

    name: str
    type: ClaimType
    description: str
    source: str
    size: int | None = None
    components: tuple[str, ...] = ()
    boot: bool = False
    register: str | None = None
    resettable: bool = False
    register_style: str = "extend"
    """`extend`: the register starts at zeros and is extended; `set`: it holds the
    digest itself (HOST_DATA)."""
    safety: Safety | None = None

    @property
    def family(self) -> str:
        """The part before the first dot."""
        return self.name.partition(".")[0]


def claim_spec(
    family: str,
    name: str,
    kind: ClaimType,
    description: str,
    source: str,
    *,
    size: int | None = None,
    boot: bool = False,
    safety: Safety | None = None,
) -> ClaimSpec:
    """Return the spec of a claim, by its name inside the family."""
    return ClaimSpec(
        name=f"{family}.{name}",
        type=kind,
        description=description,
        source=source,
        size=size,
        boot=boot,
        safety=safety,
    )


@dataclass(frozen=True, slots=True)
class SpecTable:
    """Writes the specs of claims that share their family and where they come from."""

    family: str
    source: str

    def spec(
        self,
        name: str,
        kind: ClaimType,
        description: str,
        *,
        size: int | None = None,
        boot: bool = False,
        safety: Safety | None = None,
    ) -> ClaimSpec:
        """Return the spec of a claim, by its name inside the family."""
        return claim_spec(
            self.family,
            name,
            kind,
            description,
            self.source,
            size=size,
            boot=boot,
            safety=safety,
        )


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Every claim name that the verifiers of the day can give."""

    specs: Mapping[str, ClaimSpec]

    @staticmethod
    def of(*groups: tuple[ClaimSpec, ...]) -> Vocabulary:
        """Join the vocabularies of several families."""
        specs: dict[str, ClaimSpec] = {}
        for group in groups:
            for spec in group:
                if spec.name in specs:
                    message = f"claim {spec.name} is declared twice"
                    raise ValueError(message)
                specs[spec.name] = spec
        return Vocabulary(specs)

    def find(self, name: str) -> ClaimSpec | None:
        """Return the spec of a claim, without any `[i]` index in its name."""
        return self.specs.get(name)

    def families(self) -> frozenset[str]:
        """Return every family that some claim belongs to."""
        return frozenset(spec.family for spec in self.specs.values())

    def safety(self, family: str) -> tuple[ClaimSpec, ...]:
        """Return the claims of a family that a rule must fix or excuse."""
        return tuple(
            spec
            for spec in self.specs.values()
            if spec.family == family and spec.safety is not None
        )

    def __iter__(self) -> Iterator[ClaimSpec]:
        """Iterate in order of declaration."""
        return iter(self.specs.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemClaims:
    """The claims of one verified item.

    `values` are keyed by full claim name. `scoped` holds claims that depend on who
    asks (`vtpm.ak.group` inside tenant T). `trusted_in` names the tenants in which
    the item's trust anchor counts; None means all (a vendor root).
    """

    family: str
    item: int
    values: Mapping[str, ClaimValue]
    scoped: Mapping[str, Mapping[str, ClaimValue]] = field(default_factory=dict)
    trusted_in: frozenset[str] | None = None
    elsewhere: bool = False
    """Whether it is only known to be there: what vouches for it counts in other tenants
    than the one that these claims are for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """All claims of a verified bundle plus those of the request itself."""

    items: tuple[ItemClaims, ...]
    request: Mapping[str, ClaimValue]

    def scoped_to(self, tenant: str, *, shared: bool) -> Claims:
        """Return what counts inside `tenant`, with `shared/` when that is allowed.

        Of an item whose trust anchor is registered in another tenant only, nothing is
        left but its place: every condition on it is unknown, and `every` and `count`
        see that it is there. Names of what is
        in `shared/` say so (`shared/hosts`): whoever governs `shared/` puts nothing
        into a group of the tenant by calling another one the same.
        """
        names = [tenant, SHARED_TENANT] if shared else [tenant]
        items = []
        for item in self.items:
            scopes = [name for name in names if name in item.scoped]
            if item.trusted_in is not None and not item.trusted_in.intersection(names):
                items.append(
                    ItemClaims(
                        family=item.family, item=item.item, values={}, elsewhere=True
                    )
                )
                continue
            extra = _named_for(tenant, scopes[0], item) if scopes else {}
            items.append(
                ItemClaims(
                    family=item.family,
                    item=item.item,
                    values={**item.values, **extra},
                )
            )
        return Claims(items=tuple(items), request=self.request)

    def to_json(self) -> dict[str, object]:
        """Nest by family: `{"snp": {…}}`; a list where a family has several items."""
        nested: dict[str, list[dict[str, object]]] = {}
        for item in self.items:
            nested.setdefault(item.family, []).append(nest(item.values, item.family))
        document: dict[str, object] = {
            family: members[0] if len(members) == 1 else members
            for family, members in nested.items()
        }
        if self.request:
            document["request"] = nest(self.request, "request")
        return document


def _named_for(tenant: str, scope: str, item: ItemClaims) -> Mapping[str, ClaimValue]:
    if scope == tenant:
        return item.scoped[scope]
    return {
        name: f"{scope}/{value}" if names_object(name) else value
        for name, value in item.scoped[scope].items()
    }


def names_object(claim: str) -> bool:
    """Whether a claim's value names an object of the tenant, or a shared one."""
    return claim.endswith(_NAMING)


def nest(values: Mapping[str, ClaimValue], family: str) -> dict[str, object]:
    """Turn `{"snp.policy.raw": x}` into `{"policy": {"raw": x}}`."""
    tree: dict[str, object] = {}
    for name, value in values.items():
        parts = name.removeprefix(family + ".").split(".")
        node = tree
        for part in parts[:-1]:
            child = node.setdefault(part, {})
            if not isinstance(child, dict):
                message = f"claim {name} nests below a value"
                raise TypeError(message)
            node = child
        node[parts[-1]] = value if type(value) in SCALARS else plain(value)
    return tree


def plain(value: ClaimValue) -> object:
    """Return the value of a claim as plain JSON."""
    if isinstance(value, Mapping):
        return dict(value)
    return list(value) if isinstance(value, tuple) else value
