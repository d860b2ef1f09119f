"""A small vocabulary and the pieces that policy tests are made of."""

from __future__ import annotations

from collections.abc import Mapping

from kbs.core.claims import (
    Claims,
    ClaimSpec,
    ClaimType,
    ClaimValue,
    ItemClaims,
    Safety,
    Vocabulary,
)
from kbs.core.ids import ScopedName
from kbs.policy.context import Context, ReferenceSet, WorkloadDigests
from kbs.policy.parse import ParsedPolicy, parse_release_policy


def spec(name: str, kind: ClaimType, size: int | None = None) -> ClaimSpec:
    return ClaimSpec(name=name, type=kind, description="", source="", size=size)


def pcr(number: int) -> ClaimSpec:
    return ClaimSpec(
        name=f"vtpm.pcr.sha256.{number}",
        type=ClaimType.BYTES,
        description="",
        source="",
        size=32,
        boot=number < 8,
        register="sha256",
        resettable=number >= 16,
    )


WORDS = Vocabulary.of(
    (
        ClaimSpec(
            name="cpu.measurement",
            type=ClaimType.BYTES,
            description="",
            source="",
            size=4,
            boot=True,
        ),
        ClaimSpec(
            name="cpu.host_data",
            type=ClaimType.BYTES,
            description="",
            source="",
            size=40,
            register="sha256",
            register_style="set",
        ),
        ClaimSpec(
            name="cpu.debug",
            type=ClaimType.BOOL,
            description="",
            source="",
            safety=Safety(reason="the host can read memory", default=(False,)),
        ),
        ClaimSpec(
            name="cpu.vmpl",
            type=ClaimType.INT,
            description="",
            source="",
            safety=Safety(reason="others rule over it", default=(0,)),
        ),
        ClaimSpec(
            name="cpu.key",
            type=ClaimType.TEXT,
            description="",
            source="",
            safety=Safety(
                reason="shared keys", default=("own", "own2"), acceptable=("cloud",)
            ),
        ),
        ClaimSpec(
            name="cpu.tcb",
            type=ClaimType.TCB,
            description="",
            source="",
            components=("boot", "micro", "fmc"),
        ),
        spec("cpu.svn", ClaimType.INT),
        spec("cpu.raw", ClaimType.U64),
        spec("cpu.build", ClaimType.VERSION),
        spec("cpu.blob", ClaimType.BYTES),
        spec("cpu.advisories", ClaimType.TEXTS),
        spec("cpu.since", ClaimType.TIME),
    ),
    (
        *(pcr(number) for number in (0, 1, 15, 16, 17)),
        ClaimSpec(
            name="vtpm.ak.group",
            type=ClaimType.TEXT,
            description="",
            source="",
            safety=Safety(reason="whose keys count", alternatives=("vtpm.ak.ca",)),
        ),
        spec("vtpm.ak.ca", ClaimType.TEXT),
    ),
    (
        ClaimSpec(
            name="gpu.cc",
            type=ClaimType.BOOL,
            description="",
            source="",
            safety=Safety(reason="open memory", default=(True,)),
        ),
        spec("gpu.driver", ClaimType.TEXT),
    ),
    (spec("sample.svn", ClaimType.INT),),
    (
        spec("request.door", ClaimType.TEXT),
        spec("request.freshness", ClaimType.TEXT),
        spec("request.time", ClaimType.TIME),
        spec("request.token_age", ClaimType.INT),
    ),
)

DOCUMENT = b"package agent_policy\n"
DIGESTS = WorkloadDigests.of(DOCUMENT)
OTHER = WorkloadDigests.of(b"another")

CONTEXT = Context(
    references={
        ScopedName("acme", "images"): ReferenceSet(values=("aabbccdd", "00112233")),
        ScopedName("shared", "images"): ReferenceSet(values=("ffffffff",)),
        ScopedName("shared", "common"): ReferenceSet(values=("01020304",)),
        ScopedName("rival", "images"): ReferenceSet(values=("99999999",)),
    },
    workload_policies={
        (ScopedName("acme", "runtime"), 1): DIGESTS,
        (ScopedName("shared", "agent"), 2): OTHER,
    },
    ak_groups={ScopedName("acme", "hosts"): ()},
    cas={ScopedName("shared", "tpm-ca"): b""},
)
VIEW = CONTEXT.view("acme")

V1: Mapping[str, ClaimValue] = {
    "request.door": "v1",
    "request.freshness": "challenge",
    "request.time": "2026-11-22T08:00:00Z",
}


def claims(
    *items: Mapping[str, ClaimValue], request: Mapping[str, ClaimValue] = V1
) -> Claims:
    """Claims of several items; the family is that of the first name."""
    return Claims(
        items=tuple(
            ItemClaims(
                family=next(iter(values)).partition(".")[0], item=index, values=values
            )
            for index, values in enumerate(items)
        ),
        request=request,
    )


def policy_text(conditions: str, *, tail: str = "", unsafe: str = "") -> bytes:
    """A policy with one rule; `conditions` is a YAML flow sequence."""
    excuses = f"    unsafe: {unsafe}\n" if unsafe else ""
    return (
        "kind: ReleasePolicy\n"
        "name: test\n"
        'releases: ["acme/model/*"]\n'
        "allow:\n"
        "  - rule: only\n"
        f"    all: {conditions}\n"
        f"{excuses}{tail}"
    ).encode()


def parsed(conditions: str, *, tail: str = "", unsafe: str = "") -> ParsedPolicy:
    return parse_release_policy(
        policy_text(conditions, tail=tail, unsafe=unsafe),
        vocabulary=WORDS,
        what="policy.yaml",
    )
