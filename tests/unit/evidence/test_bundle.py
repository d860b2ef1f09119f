"""Bundles: their shape, one primary, the binding of the set, no device twice."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbs.core.checks import Check, Status, Verdict
from kbs.core.claims import ClaimSpec, ItemClaims
from kbs.core.encode import canonical_json
from kbs.core.errors import MalformedError
from kbs.evidence.bundle import (
    MAX_BUNDLE_BYTES,
    Bundle,
    BundleResult,
    bundle_of,
    parse_bundle,
    verify_bundle,
)
from kbs.evidence.joining import AppraisedItem, choose_primary, join_items
from kbs.evidence.model import ItemResult, ParsedItem, Trust, Verifier
from kbs.evidence.registry import REQUEST_VOCABULARY, VERIFIERS, vocabulary

TRUST = Trust(now=datetime(2026, 11, 22, 8, 0, tzinfo=UTC))


@dataclass(frozen=True)
class FakeVerifier:
    """A family whose items say themselves what their verification finds."""

    kind: str
    primary: bool = False
    vocabulary: tuple[ClaimSpec, ...] = ()

    def parse(self, item: Mapping[str, object], index: int) -> ParsedItem:
        if "broken" in item:
            raise MalformedError("report", got="3 bytes", expected="1184 bytes")
        return ParsedItem(
            kind=self.kind,
            index=index,
            core=str(item.get("core", index)).encode(),
            bound=bytes.fromhex(str(item.get("bound", ""))),
            body=item,
        )

    def inspect(self, parsed: ParsedItem) -> Mapping[str, object]:
        return {}

    def verify(self, parsed: ParsedItem, trust: Trust) -> ItemResult:
        item = parsed.body
        assert isinstance(item, dict)
        status = Status(item.get("status", "pass"))
        check = Check(id=f"{self.kind}.report.signature", status=status)
        checks: tuple[Check, ...] = (check,)
        if "own_parse" in item:
            checks = (Check(id=f"{self.kind}.parse", status=Status.PASS), check)
        has_claims = status is Status.PASS and "no_claims" not in item
        claims = ItemClaims(family=self.kind, item=parsed.index, values={})
        return ItemResult(
            checks=checks,
            claims=claims if has_claims else None,
            authenticated=bool(item.get("authenticated", True)),
            identities=tuple(item.get("identities", ())),
        )

    def bound_matches(self, parsed: ParsedItem, binding: bytes) -> bool:
        return parsed.bound == binding


FAMILIES: dict[str, Verifier] = {
    "snp": FakeVerifier("snp", primary=True),
    "tdx": FakeVerifier("tdx", primary=True),
    "vtpm": FakeVerifier("vtpm"),
    "nvgpu": FakeVerifier("nvgpu"),
    "sample": FakeVerifier("sample"),
}


class FakeBinding:
    """Bindings that a test can write down."""

    def primary(self, kind: str, devices: Sequence[tuple[str, str]]) -> bytes:
        return b"P" + canonical_json([kind, [list(pair) for pair in devices]])

    def carried(self, kind: str, digest: bytes) -> None:
        del kind, digest

    def beside(self) -> dict[str, bytes]:
        return {}

    def device(self, kind: str) -> bytes:
        return b"D" + kind.encode()


BINDING = FakeBinding()


def m(*items: tuple[str, str]) -> list[tuple[str, str]]:
    return [(kind, hashlib.sha384(core.encode()).hexdigest()) for kind, core in items]


def device(kind: str, core: str, **more: object) -> dict[str, object]:
    bound = BINDING.device(kind).hex()
    return {"kind": kind, "core": core, "bound": bound, **more}


def primary(kind: str, *devices: tuple[str, str], **more: object) -> dict[str, object]:
    bound = BINDING.primary(kind, m(*devices)).hex()
    return {"kind": kind, "core": "cpu", "bound": bound, **more}


def verify(*items: Mapping[str, object], **arguments: Any) -> BundleResult:
    arguments.setdefault("binding", BINDING)
    return verify_bundle(
        Bundle(tuple(items)), trust=TRUST, verifiers=FAMILIES, **arguments
    )


def failed(result: BundleResult) -> list[tuple[str, int | None]]:
    return [(check.id, check.item) for check in result.failed()]


GPU = ("nvgpu", "gpu")
TPM = ("vtpm", "tpm")


@pytest.mark.parametrize(
    ("items", "index"),
    [
        ([primary("snp")], 0),
        ([primary("vtpm")], 0),
        ([primary("sample")], 0),
        ([primary("snp", GPU, TPM), device(*GPU), device(*TPM)], 0),
        ([device(*GPU), primary("snp", GPU, TPM), device(*TPM)], 1),
        ([device(*GPU), device(*TPM), primary("snp", GPU, TPM)], 2),
        ([device("sample", "s"), primary("vtpm", ("sample", "s"))], 1),
        ([primary("sample", GPU), device(*GPU)], 0),
        ([primary("snp", ("sample", "s")), device("sample", "s")], 0),
    ],
)
def test_a_bound_set_is_verified_and_authenticated(
    items: list[dict[str, object]], index: int
) -> None:
    result = verify(*items, request={"request.door": "v1"})
    assert result.verdict is Verdict.VERIFIED, failed(result)
    assert (result.primary, result.authenticated) == (index, True)
    assert result.binding == bytes.fromhex(str(items[index]["bound"]))
    assert result.claims is not None
    assert [claims.item for claims in result.claims.items] == list(range(len(items)))
    assert result.claims.request == {"request.door": "v1"}
    others = [item for item in items if item is not items[index]]
    assert list(result.devices) == m(
        *((str(i["kind"]), str(i["core"])) for i in others)
    )


def test_every_check_names_its_item() -> None:
    result = verify(primary("snp", GPU), device(*GPU, own_parse=True))
    assert [(check.id, check.item, check.status.value) for check in result.checks] == [
        ("snp.parse", 0, "pass"),
        ("snp.report.signature", 0, "pass"),
        ("nvgpu.parse", 1, "pass"),
        ("nvgpu.report.signature", 1, "pass"),
        ("bundle.primary", None, "pass"),
        ("binding.primary", None, "pass"),
        ("binding.devices", None, "pass"),
        ("binding.duplicate", None, "pass"),
    ]


@pytest.mark.parametrize(
    ("items", "checks"),
    [
        # None, and two of a kind or of two kinds.
        ([device(*GPU)], [("bundle.primary", None)]),
        (
            [primary("snp"), primary("snp") | {"core": "2"}],
            [("bundle.primary", None)],
        ),
        ([primary("snp"), primary("tdx")], [("bundle.primary", None)]),
        (
            [primary("vtpm"), primary("vtpm") | {"core": "2"}],
            [("bundle.primary", None)],
        ),
        (
            [primary("sample"), primary("sample") | {"core": "2"}],
            [("bundle.primary", None)],
        ),
        # The primary is bound to something else.
        ([primary("snp") | {"bound": ""}], [("binding.primary", None)]),
        (
            [primary("snp") | {"bound": BINDING.device("snp").hex()}],
            [("binding.primary", None)],
        ),
        (
            [primary("snp") | {"bound": primary("tdx")["bound"]}],
            [("binding.primary", None)],
        ),
        # A device swapped in after the primary, or left out, or in another order.
        (
            [primary("snp", GPU), device("nvgpu", "other gpu")],
            [("binding.primary", None), ("binding.devices", None)],
        ),
        ([primary("snp", GPU)], [("binding.primary", None)]),
        (
            [primary("snp"), device(*GPU)],
            [("binding.primary", None), ("binding.devices", None)],
        ),
        (
            [primary("snp", TPM, GPU), device(*GPU), device(*TPM)],
            [("binding.primary", None), ("binding.devices", None)],
        ),
        # A device bound to nothing, to another request, or as a primary.
        (
            [primary("snp", GPU), device(*GPU) | {"bound": ""}],
            [("binding.devices", None)],
        ),
        (
            [primary("snp", GPU), device(*GPU) | {"bound": b"Dvtpm".hex()}],
            [("binding.devices", None)],
        ),
        (
            [primary("snp", TPM), primary("vtpm") | {"core": "tpm"}],
            [("binding.devices", None)],
        ),
        (
            [primary("snp") | {"bound": ""}, device(*GPU) | {"bound": ""}],
            [("binding.primary", None), ("binding.devices", None)],
        ),
        # One device twice.
        (
            [primary("snp", GPU, GPU), device(*GPU), device(*GPU)],
            [("binding.duplicate", None)],
        ),
        (
            [
                primary("snp", ("nvgpu", "a"), ("nvgpu", "b")),
                device("nvgpu", "a", identities=["spki:1", "gpu:1"]),
                device("nvgpu", "b", identities=["spki:2", "gpu:1"]),
            ],
            [("binding.duplicate", None)],
        ),
        # An item that does not hold refuses the bundle, also when surplus.
        (
            [primary("snp", GPU), device(*GPU, status="fail")],
            [("nvgpu.report.signature", 1)],
        ),
        # Items that do not parse, and kinds that nobody knows.
        ([{"kind": "snp", "broken": 1}], [("snp.parse", 0)]),
        ([primary("snp"), {"kind": "sev2", "report": "x"}], [("sev2.parse", 1)]),
        (
            [{"kind": "snp", "broken": 1}, {"kind": "vtpm", "broken": 1}],
            [("snp.parse", 0), ("vtpm.parse", 1)],
        ),
    ],
)
def test_one_change_fails_exactly_these_checks(
    items: list[dict[str, object]], checks: list[tuple[str, int | None]]
) -> None:
    result = verify(*items)
    assert failed(result) == checks
    assert result.verdict is Verdict.REFUSED
    assert result.claims is None


def test_repeating_an_identity_inside_one_item_is_no_duplicate() -> None:
    result = verify(primary("snp", identities=["chip:1", "chip:1"]))
    assert result.verdict is Verdict.VERIFIED
    assert result.identities == ("chip:1",)


@pytest.mark.parametrize(
    ("item", "authenticated"),
    [
        (primary("snp"), True),
        (primary("snp", status="fail"), True),
        (primary("snp", authenticated=False), False),
        (primary("snp") | {"bound": ""}, False),
        ({"kind": "snp", "broken": 1}, False),
    ],
)
def test_authenticated_is_the_primarys_signature_and_its_binding(
    item: dict[str, object], *, authenticated: bool
) -> None:
    result = verify(item)
    assert result.authenticated is authenticated
    assert result.parsed is ("broken" not in item)


def test_a_genuine_device_does_not_authenticate_the_bundle() -> None:
    result = verify(primary("snp", GPU, authenticated=False), device(*GPU))
    assert not result.authenticated


def test_something_unchecked_is_not_verified_and_gives_no_claims() -> None:
    result = verify(primary("snp", status="unchecked"))
    assert (result.verdict, result.claims) == (Verdict.UNCHECKED, None)


def test_a_verified_item_without_claims_gives_no_claims_of_the_bundle() -> None:
    result = verify(primary("snp", GPU), device(*GPU, no_claims=True))
    assert result.claims is None


def test_recorded_evidence_skips_the_binding_only() -> None:
    items = ({"kind": "snp"}, {"kind": "nvgpu"})
    result = verify(*items, binding=None, recorded=True)
    statuses = {check.id: check.status.value for check in result.checks}
    assert statuses["binding.primary"] == statuses["binding.devices"] == "skipped"
    assert statuses["binding.duplicate"] == "pass"
    assert result.verdict is Verdict.VERIFIED
    assert result.claims is not None
    assert (result.authenticated, result.binding) == (False, None)


def test_recorded_evidence_with_runtime_data_is_still_bound() -> None:
    result = verify({"kind": "snp"}, recorded=True)
    assert failed(result) == [("binding.primary", None)]


def test_without_a_binding_nothing_but_recorded_evidence_is_verified() -> None:
    with pytest.raises(ValueError, match="binding"):
        verify(primary("snp"), binding=None)


# --- the shape --------------------------------------------------------------------

GOOD: dict[str, Any] = {
    "format": "kbs.evidence/1",
    "items": [{"kind": "snp", "report": "AA=="}],
    "runtime_data": {"nonce": "x"},
}


@pytest.mark.parametrize("names", [("format", "items"), tuple(GOOD)])
def test_what_is_parsed_is_written_back_the_same(names: tuple[str, ...]) -> None:
    document = {name: GOOD[name] for name in names}
    bundle = parse_bundle(canonical_json(document))
    assert canonical_json(bundle.to_json()) == canonical_json(document)
    assert bundle.kind(0) == "snp"
    assert bundle.runtime_data == document.get("runtime_data")


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        {},
        {"format": GOOD["format"]},
        {"items": GOOD["items"]},
        {**GOOD, "policy": {}},
        {**GOOD, "format": "kbs.evidence/2"},
        {**GOOD, "runtime_data": None},
        {**GOOD, "runtime_data": "x"},
        {**GOOD, "items": []},
        {**GOOD, "items": {}},
        {**GOOD, "items": ["snp"]},
        {**GOOD, "items": [{"report": "AA=="}]},
        {**GOOD, "items": [{"kind": 1}]},
        {**GOOD, "items": [{"kind": "../snp"}]},
        {**GOOD, "items": GOOD["items"] * 17},
    ],
)
def test_any_other_shape_is_refused(value: object) -> None:
    with pytest.raises(MalformedError):
        bundle_of(value)


@pytest.mark.parametrize(
    "data", [b"", b"{", b"\xff", b'{"a":1,"a":1}', b" " * (MAX_BUNDLE_BYTES + 1)]
)
def test_bytes_that_are_no_bundle_are_refused(data: bytes) -> None:
    with pytest.raises(MalformedError):
        parse_bundle(data)


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-9, 9), st.text(max_size=6)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=6), inner)
    ),
    max_leaves=6,
)
ITEMS = st.lists(
    st.one_of(
        JSON,
        st.fixed_dictionaries(
            {"kind": st.sampled_from(["snp", "vtpm", "sample", "x"]), "report": JSON}
        ),
    ),
    max_size=4,
)


@given(st.one_of(st.none(), JSON), ITEMS)
def test_any_items_are_a_bundle_that_is_refused_or_malformed(
    runtime_data: object, items: list[object]
) -> None:
    document = {"format": GOOD["format"], "items": items}
    if runtime_data is not None:
        document["runtime_data"] = runtime_data
    data = canonical_json(document)
    try:
        bundle = parse_bundle(data)
    except MalformedError:
        return
    assert canonical_json(bundle.to_json()) == data
    result = verify_bundle(bundle, trust=TRUST, verifiers=VERIFIERS, binding=BINDING)
    assert result.verdict is Verdict.REFUSED
    assert not result.parsed


@given(st.binary(max_size=60))
def test_any_bytes_are_malformed(data: bytes) -> None:
    with pytest.raises(MalformedError):
        parse_bundle(data)


# --- the registry -----------------------------------------------------------------


def test_the_registry_names_each_family_by_its_kind() -> None:
    assert set(VERIFIERS) >= {"snp", "vtpm", "sample", "sampledevice"}
    assert {"nitro", "nitrotpm", "nvgpu", "cca", "token"} <= set(VERIFIERS)
    assert choose_primary(["sampledevice"], VERIFIERS) == ()
    assert all(verifier.kind == kind for kind, verifier in VERIFIERS.items())
    assert choose_primary(["sample", "vtpm", "snp"], VERIFIERS) == (2,)
    assert choose_primary(["sample", "vtpm"], VERIFIERS) == (1,)
    assert choose_primary(["sample"], VERIFIERS) == (0,)


@pytest.mark.parametrize(("told", "found"), [(True, "item 1"), (False, "item 0")])
def test_an_item_may_say_itself_that_it_is_a_primary(*, told: bool, found: str) -> None:
    items = []
    for index, (kind, primary) in enumerate([("vtpm", False), ("nvgpu", told)]):
        core = bytes([index])
        parsed = ParsedItem(
            kind=kind, index=index, core=core, bound=b"", body=None, primary=primary
        )
        result = ItemResult(checks=(), claims=None, authenticated=False)
        verifier = FAMILIES[kind]
        items.append(AppraisedItem(verifier=verifier, parsed=parsed, result=result))
    (check, *_) = join_items(items, None).checks
    assert (check.id, check.detail) == ("bundle.primary", found)


def test_the_vocabulary_has_every_family_and_the_request() -> None:
    known = vocabulary()
    assert known.families() >= {"snp", "vtpm", "sample", "sampledevice", "request"}
    assert {"nitro", "nitrotpm", "nvgpu", "nvswitch", "cca"} <= known.families()
    assert {"maa", "ita", "nras", "gcs", "ear"} <= known.families()
    for spec in REQUEST_VOCABULARY:
        assert known.find(spec.name) == spec
