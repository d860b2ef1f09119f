"""Any bytes into the loaders: certificates, lists, or a `MalformedError`."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from kbs.core.errors import MalformedError
from kbs.pki.certificates import (
    der,
    load_certificates,
    load_crls,
    load_der_certificate,
    load_der_crl,
)
from kbs.pki.chain import Chain, ChainBroken, IssuerMissing, build_chain
from tests.fakes.amd import FakeAmd, pem

AMD = FakeAmd()
OTHER = FakeAmd(realm="other")
LEAF = AMD.vcek()
CRL = AMD.crl()
POOL = [
    AMD.ark,
    AMD.ask,
    AMD.asvk,
    LEAF,
    OTHER.ark,
    OTHER.ask,
    OTHER.vcek(),
]
LOADERS: list[Callable[[bytes, str], object]] = [
    load_certificates,
    load_crls,
    load_der_certificate,
    load_der_crl,
]
changes = st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=5)


def change(data: bytes, edits: list[tuple[int, int]]) -> bytes:
    changed = bytearray(data)
    for offset, value in edits:
        changed[offset % len(changed)] = value
    return bytes(changed)


@given(st.sampled_from(LOADERS), st.binary(max_size=400), st.booleans())
def test_any_bytes_load_or_are_malformed(
    load: Callable[[bytes, str], object],
    data: bytes,
    marked: bool,  # noqa: FBT001
) -> None:
    try:
        load(b"-----BEGIN" * marked + data, "file")
    except MalformedError:
        return
    raise AssertionError


@given(changes)
def test_a_changed_certificate_is_the_bytes_read_or_malformed(
    edits: list[tuple[int, int]],
) -> None:
    data = change(der(AMD.ask), edits)
    try:
        certificate = load_der_certificate(data, "file")
    except MalformedError:
        return
    assert der(certificate) == data


@given(changes)
def test_a_changed_list_is_the_bytes_read_or_malformed(
    edits: list[tuple[int, int]],
) -> None:
    data = change(der(CRL), edits)
    try:
        crl = load_der_crl(data, "file")
    except MalformedError:
        return
    assert der(crl) == data


@given(changes)
def test_changed_pem_loads_or_is_malformed(edits: list[tuple[int, int]]) -> None:
    data = change(pem(AMD.ask).encode(), edits)
    try:
        certificates = load_certificates(data, "file")
    except MalformedError:
        return
    assert len(certificates) == 1


@given(changes)
@settings(deadline=timedelta(seconds=2))
def test_a_changed_issuer_never_makes_a_chain(edits: list[tuple[int, int]]) -> None:
    data = change(der(AMD.ask), edits)
    try:
        issuer = load_der_certificate(data, "file")
    except MalformedError:
        return
    outcome = build_chain(LEAF, [issuer, AMD.ark], roots=AMD.pins())
    assert isinstance(outcome, Chain) is (data == der(AMD.ask))


@given(st.sampled_from(POOL), st.lists(st.sampled_from(POOL), max_size=8))
@settings(deadline=timedelta(seconds=2))
def test_a_chain_is_found_if_and_only_if_its_links_are_there(
    leaf: object, pool: list[object]
) -> None:
    chains = {
        id(POOL[1]): [POOL[0]],
        id(POOL[2]): [POOL[0]],
        id(POOL[3]): [POOL[1], POOL[0]],
    }
    wanted = chains.get(id(leaf))
    outcome = build_chain(leaf, pool, roots=AMD.pins())  # type: ignore[arg-type]
    complete = wanted is not None and all(issuer in pool for issuer in wanted)
    assert isinstance(outcome, Chain) is complete
    if not complete:
        assert isinstance(outcome, (IssuerMissing, ChainBroken))
