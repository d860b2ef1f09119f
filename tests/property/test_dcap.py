"""Any bytes into the parsers of TDX and SGX, and any TCB against another verifier.

`fuzz` is one function of bytes that a coverage-guided fuzzer can call: it allows our
own errors and nothing else.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import dcap_qvl
import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kbs.core.checks import Verdict, verdict
from kbs.core.encode import b64
from kbs.core.errors import MalformedError
from kbs.evidence.dcap.collateral import read_collateral
from kbs.evidence.dcap.documents import parse_document
from kbs.evidence.dcap.pck import parse_pck
from kbs.evidence.dcap.quote import looks_like_quote, parse_quote, serialize_quote
from kbs.evidence.dcap.status import TcbStatus, joined
from kbs.evidence.model import Trust
from kbs.evidence.tdx.eventlog import parse_td_log
from kbs.evidence.tdx.verify import TdxVerifier
from kbs.pki import der
from tests.fakes.eventlog import header
from tests.fakes.intel import (
    NOW,
    PLATFORM_SVNS,
    TDX_TCB,
    FakeIntel,
    integer,
    module,
    oid,
    platform_level,
    sgx_extension,
    svn_level,
    tlv,
)

INTEL = FakeIntel()
QUOTES = [
    INTEL.quote(),
    INTEL.quote(version=5, version_15=True, padding=bytes(16)),
    INTEL.quote(tee="sgx", version=3),
]
TCB_INFO = INTEL.tcb_info().encode()
QE_IDENTITY = INTEL.qe_identity().encode()
COLLATERAL = json.dumps(INTEL.collateral_json()).encode()
EXTENSION = sgx_extension()
LOG = header(["sha384"])
SEEDS = [*QUOTES, TCB_INFO, QE_IDENTITY, COLLATERAL, EXTENSION, LOG]
VERIFIER = TdxVerifier()
SLOW = timedelta(seconds=5)


def _quote(data: bytes) -> None:
    assert serialize_quote(parse_quote(data)) == data


def _document(data: bytes) -> None:
    document = parse_document(data)
    assert document.data == data


def _der(data: bytes) -> None:
    rebuilt = b"".join(tlv(tag, content) for tag, content in der.elements(data, "der"))
    assert rebuilt == data


def _item(data: bytes) -> None:
    document: dict[str, object] = {"kind": "tdx", "quote": b64(data)}
    parsed = VERIFIER.parse(document, 0)
    VERIFIER.inspect(parsed)
    result = VERIFIER.verify(parsed, Trust(now=NOW, pinned_roots=INTEL.pins()))
    # There is no collateral here, so nothing can verify.
    assert verdict(result.checks) is not Verdict.VERIFIED


PARSERS: tuple[Callable[[bytes], object], ...] = (
    _quote,
    _document,
    _der,
    _item,
    read_collateral,
    parse_td_log,
    looks_like_quote,
)


def fuzz(data: bytes) -> None:
    """Give these bytes to every parser of the families: only our errors come out."""
    for parse in PARSERS:
        try:
            parse(data)
        except MalformedError:
            continue


@given(st.binary(max_size=3000))
def test_any_bytes_are_something_or_malformed(data: bytes) -> None:
    fuzz(data)


@given(
    st.sampled_from(SEEDS),
    st.lists(st.tuples(st.integers(0, 9999), st.integers(0, 255)), max_size=4),
    st.integers(0, 9999) | st.none(),
)
@settings(deadline=SLOW)
def test_anything_near_to_something_good_is_something_or_malformed(
    seed: bytes, changes: list[tuple[int, int]], length: int | None
) -> None:
    data = bytearray(seed)
    for place, value in changes:
        data[place % len(data)] = value
    fuzz(bytes(data[:length]))


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-3, 99999) | st.text(max_size=12),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.text(max_size=8), inner, max_size=3)
        ),
        max_leaves=5,
    ),
    st.sampled_from(sorted(json.loads(TCB_INFO)["tcbInfo"])),
)
@settings(max_examples=40, deadline=SLOW)
def test_any_member_of_a_tcb_info_is_read_or_malformed(value: Any, name: str) -> None:
    text = INTEL.tcb_info(**{name: value})
    try:
        document = parse_document(text.encode())
    except MalformedError:
        return
    assert document.content is not None


@given(st.binary(max_size=60))
@settings(deadline=SLOW)
def test_any_extension_is_a_pck_or_malformed(value: bytes) -> None:
    certificate = INTEL.make_pck(extension=tlv(0x30, value))
    try:
        parse_pck(certificate)
    except MalformedError:
        return
    raise AssertionError("sixty bytes hold no PCK extension")


@given(
    st.lists(st.integers(0, 2), min_size=1, max_size=1),
    st.lists(st.integers(0, 39), min_size=1, max_size=1),
    st.lists(st.integers(0, 2**40), max_size=6),
)
def test_oids_are_read_as_they_are_written(
    first: list[int], second: list[int], rest: list[int]
) -> None:
    dotted = ".".join(str(part) for part in (*first, *second, *rest))
    content = der.element(oid(dotted), der.OBJECT_IDENTIFIER, "oid")
    assert der.object_identifier(content, "oid") == dotted


@given(st.integers(0, 2**63))
def test_numbers_are_read_as_they_are_written(number: int) -> None:
    content = der.element(integer(number), der.INTEGER, "number")
    assert der.unsigned(content, "number", most=2**63) == number


# What parts may have; of a relaunch only the whole is told.
PARTS = tuple(one for one in TcbStatus if not one.startswith("TDRelaunch"))


@given(st.lists(st.sampled_from(PARTS), min_size=1, max_size=4))
def test_joining_has_no_order_and_forgives_nothing(statuses: list[TcbStatus]) -> None:
    whole = joined(*statuses)
    assert joined(*reversed(statuses)) is whole
    assert joined(whole, *statuses) is whole
    if whole is TcbStatus.UP_TO_DATE:
        assert set(statuses) == {TcbStatus.UP_TO_DATE}


# --- against another verifier ---------------------------------------------------------

STATUSES = tuple(status.value for status in PARTS if status != "NotSupported")
svns = st.integers(0, 3)
advisories = st.lists(st.sampled_from(["INTEL-SA-1", "INTEL-SA-2", "INTEL-SA-3"]))


@st.composite
def levels(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Levels near to what the platform has, so that every outcome is common.

    In any order, and each TCB once: of one that stands there twice, nobody says which
    counts.
    """
    found = [
        platform_level(
            "TDX",
            draw(st.sampled_from(STATUSES)),
            *sorted(set(draw(advisories))),
            sgx=(PLATFORM_SVNS[0] - 1 + draw(svns), *PLATFORM_SVNS[1:]),
            tdx=(
                TDX_TCB[0] - 1 + draw(svns),
                draw(st.integers(0, 1)),
                TDX_TCB[2] - 1 + draw(svns),
                *TDX_TCB[3:],
            ),
            pce_svn=12 + draw(svns),
        )
        for _ in range(draw(st.integers(1, 3)))
    ]
    return list({json.dumps(level["tcb"]): level for level in found}.values())


def svn_levels(around: int) -> st.SearchStrategy[list[dict[str, Any]]]:
    one = st.builds(
        lambda svn, status, names: svn_level(svn, status, *sorted(set(names))),
        st.integers(max(0, around - 1), around + 1),
        st.sampled_from(["UpToDate", "OutOfDate", "Revoked"]),
        advisories,
    )

    def svn(level: dict[str, Any]) -> int:
        return int(level["tcb"]["isvsvn"])

    # Best first, as Intel writes them: here the other one goes by the order alone.
    return st.lists(one, min_size=1, max_size=3, unique_by=svn).map(
        lambda found: sorted(found, key=svn, reverse=True)
    )


def theirs(quote: bytes, tcb_info: str, qe_identity: str) -> tuple[str, list[str]]:
    """What dcap-qvl says: a status, or the words with which it refuses."""
    parts = json.loads(tcb_info), json.loads(qe_identity)
    chain = INTEL.collateral_json()["tcb_info_issuer_chain"]
    given_collateral = dcap_qvl.QuoteCollateralV3(
        pck_crl_issuer_chain=INTEL.collateral_json()["pck_crl_issuer_chain"],
        root_ca_crl=INTEL.crl("root").public_bytes(Encoding.DER),
        pck_crl=INTEL.crl("pck").public_bytes(Encoding.DER),
        tcb_info_issuer_chain=chain,
        tcb_info=json.dumps(parts[0]["tcbInfo"], separators=(",", ":")),
        tcb_info_signature=bytes.fromhex(parts[0]["signature"]),
        qe_identity_issuer_chain=chain,
        qe_identity=json.dumps(parts[1]["enclaveIdentity"], separators=(",", ":")),
        qe_identity_signature=bytes.fromhex(parts[1]["signature"]),
    )
    root = INTEL.root.public_bytes(Encoding.DER)
    try:
        found = dcap_qvl.verify_with_root_ca(
            quote, given_collateral, root, int(NOW.timestamp())
        )
    except ValueError as exc:
        return str(exc), []
    return found.status, sorted(found.advisory_ids)


@given(levels(), svn_levels(8), svn_levels(5), st.integers(0, 1))
@settings(max_examples=80, deadline=SLOW)
@example([platform_level()], [svn_level(8)], [svn_level(5)], 0)
def test_dcap_qvl_finds_the_same_tcb(
    platform: list[dict[str, Any]],
    enclave: list[dict[str, Any]],
    modules: list[dict[str, Any]],
    version: int,
) -> None:
    """The same evaluation by another implementation, over generated documents."""
    quote = INTEL.quote(tee_tcb_svn=bytes([5, version, *TDX_TCB[2:]]))
    tcb_info = INTEL.tcb_info(
        tcbLevels=platform,
        tdxModuleIdentities=[{"id": "TDX_01", **module(), "tcbLevels": modules}],
    )
    qe_identity = INTEL.qe_identity(tcbLevels=enclave)
    item = {
        "kind": "tdx",
        "quote": b64(quote),
        "collateral": INTEL.collateral_json(tcb_info=tcb_info, qe_identity=qe_identity),
    }
    result = VERIFIER.verify(
        VERIFIER.parse(item, 0), Trust(now=NOW, pinned_roots=INTEL.pins())
    )
    assert result.claims is not None
    ours = result.claims.values["tdx.tcb_status"]
    status, names = theirs(quote, tcb_info, qe_identity)
    if ours in STATUSES and ours != "Revoked":
        assert (status, names) == (ours, list(result.claims.values["tdx.advisory_ids"]))  # type: ignore[arg-type]
    else:
        # It refuses in words what is a claim here.
        assert status not in STATUSES or status == "Revoked", (ours, status)


@given(levels(), svn_levels(5), st.tuples(svns, st.integers(0, 1), svns))
@settings(max_examples=40, deadline=SLOW)
@example([platform_level()], [svn_level(6), svn_level(5, "OutOfDate")], (2, 1, 1))
@example(
    [platform_level(tdx=(4, 1, 2, *TDX_TCB[3:]))],
    [svn_level(4, "OutOfDate")],
    (0, 0, 0),
)
def test_dcap_qvl_finds_the_same_relaunches(
    platform: list[dict[str, Any]],
    modules: list[dict[str, Any]],
    above: tuple[int, int, int],
) -> None:
    """It advises a relaunch in more cases than Intel's library; ours never does."""
    now = bytes([4 + above[0], above[1], TDX_TCB[2] - 1 + above[2], *TDX_TCB[3:]])
    quote = INTEL.quote(version=5, version_15=True, tee_tcb_svn2=now)
    tcb_info = INTEL.tcb_info(
        tcbLevels=platform,
        tdxModuleIdentities=[{"id": "TDX_01", **module(), "tcbLevels": modules}],
    )
    item = {
        "kind": "tdx",
        "quote": b64(quote),
        "collateral": INTEL.collateral_json(tcb_info=tcb_info),
    }
    result = VERIFIER.verify(
        VERIFIER.parse(item, 0), Trust(now=NOW, pinned_roots=INTEL.pins())
    )
    assert result.claims is not None
    ours = str(result.claims.values["tdx.tcb_status"])
    status, _ = theirs(quote, tcb_info, INTEL.qe_identity())
    if ours.startswith("TDRelaunch"):
        assert status == ours
    elif status.startswith("TDRelaunch"):
        assert ours.startswith("OutOfDate")


@pytest.mark.parametrize("written", ["01000000", "00000001"])
def test_dcap_qvl_reads_miscselect_in_the_same_order(written: str) -> None:
    """It is zero in all that was ever recorded; a number or bytes, that is not said."""
    quote = INTEL.quote(qe={"misc_select": b"\x01\0\0\0"})
    qe_identity = INTEL.qe_identity(miscselect=written)
    collateral = INTEL.collateral_json(qe_identity=qe_identity)
    item = {"kind": "tdx", "quote": b64(quote), "collateral": collateral}
    result = VERIFIER.verify(
        VERIFIER.parse(item, 0), Trust(now=NOW, pinned_roots=INTEL.pins())
    )
    status, _ = theirs(quote, INTEL.tcb_info(), qe_identity)
    assert (result.claims is not None) is (status == "UpToDate")


def test_the_seeds_are_good() -> None:
    """A fuzzer that only ever sees errors finds nothing."""
    for quote in QUOTES:
        _quote(quote)
    for document in (TCB_INFO, QE_IDENTITY):
        _document(document)
    assert read_collateral(COLLATERAL).documents()
    assert parse_td_log(LOG).events == ()
    assert parse_td_log(LOG + b"\xff" * 9).used_bytes == len(LOG)
    assert hashlib.sha256(EXTENSION).digest()
