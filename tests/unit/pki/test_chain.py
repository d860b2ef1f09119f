"""One good chain, and a table of what breaks it or leaves it open."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from kbs.pki import chain as chain_module
from kbs.pki.cache import LinkCache
from kbs.pki.certificates import der, load_der_certificate, spki_sha256
from kbs.pki.chain import (
    MAX_SIGNATURES,
    Chain,
    ChainBroken,
    IssuerMissing,
    build_chain,
    is_issued_by,
    is_strong,
    out_of_date,
)
from tests.fakes.amd import NOW, FakeAmd, name

AMD = FakeAmd()
OTHER = FakeAmd(realm="other")
ARK, ASK, ASVK, VCEK = AMD.ark, AMD.ask, AMD.asvk, AMD.vcek()
Key = ec.EllipticCurvePrivateKey
KEYS = [ec.generate_private_key(ec.SECP256R1()) for _ in range(12)]


def issue(
    subject: str,
    key: Key,
    issuer: str,
    issuer_key: Key | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey,
    *extensions: tuple[x509.ExtensionType, bool],
    ca: bool = True,
    path_length: int | None = None,
    algorithm: hashes.HashAlgorithm | None = hashes.SHA256(),  # noqa: B008
) -> x509.Certificate:
    builder = (
        x509.CertificateBuilder()
        .subject_name(name(subject))
        .issuer_name(name(issuer))
        .public_key(key.public_key())
        .serial_number(5)
        .not_valid_before(NOW - timedelta(days=1))
        .not_valid_after(NOW + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca, path_length), critical=True)
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical=critical)
    if isinstance(issuer_key, ed25519.Ed25519PrivateKey):
        return builder.sign(issuer_key, None)
    assert algorithm is not None
    return builder.sign(issuer_key, algorithm)  # type: ignore[arg-type]


def ladder(length: int) -> list[x509.Certificate]:
    """A root, and authorities each issued by the one before."""
    rungs = [issue("rung 0", KEYS[0], "rung 0", KEYS[0])]
    for index in range(1, length):
        below, above = KEYS[index], KEYS[index - 1]
        rungs.append(issue(f"rung {index}", below, f"rung {index - 1}", above))
    return rungs


def pin(*certificates: x509.Certificate) -> dict[str, str]:
    return {spki_sha256(certificate): "pinned" for certificate in certificates}


@pytest.mark.parametrize(
    "pool", [[ASK, ARK], [ARK, ASK], [OTHER.ark, OTHER.ask, ASVK, ARK, VCEK, ASK, ASK]]
)
def test_issuers_are_found_in_any_order(pool: list[x509.Certificate]) -> None:
    chain = build_chain(VCEK, pool, roots=AMD.pins())
    assert chain == Chain((VCEK, ASK, ARK), "AMD ARK Milan")
    assert isinstance(chain, Chain)
    assert chain.root == ARK


@pytest.mark.parametrize(
    ("leaf", "pool", "wanted"),
    [
        (VCEK, [], "no certificate of SEV-Milan"),
        (VCEK, [ASK], "no certificate of ARK-Milan"),
        (VCEK, [ARK, ASVK], "no certificate of SEV-Milan"),
        (VCEK, [VCEK], "no certificate of SEV-Milan"),
    ],
)
def test_issuers_that_are_not_to_hand_are_missing(
    leaf: x509.Certificate, pool: Sequence[x509.Certificate], wanted: str
) -> None:
    outcome = build_chain(leaf, pool, roots=AMD.pins())
    assert isinstance(outcome, IssuerMissing)
    assert wanted in outcome.detail


def without_self_signature() -> x509.Certificate:
    """The pinned key in a certificate that somebody else signed."""
    forged = bytearray(der(ARK))
    forged[-1] ^= 1
    return load_der_certificate(bytes(forged), "forged")


@pytest.mark.parametrize(
    ("leaf", "pool", "wanted"),
    [
        (AMD.vcek(signer="ark"), [ASK, ARK], "SEV-Milan: did not sign SEV-VCEK"),
        (VCEK, [OTHER.ask, OTHER.ark], "did not sign"),
        (OTHER.vcek(), [OTHER.ask, OTHER.ark], "ARK-Milan is no trusted root"),
        (ARK, [], "ARK-Milan is no trusted root"),
        (VCEK, [ASK, without_self_signature()], "no trusted root"),
        (
            AMD.vcek(critical="1.3.6.1.4.1.3704.1.1"),
            [ASK, ARK],
            "unknown critical extension",
        ),
    ],
)
def test_certificates_that_do_not_hold_break_the_chain(
    leaf: x509.Certificate, pool: Sequence[x509.Certificate], wanted: str
) -> None:
    outcome = build_chain(leaf, pool, roots=AMD.pins())
    assert isinstance(outcome, ChainBroken)
    assert wanted in outcome.detail


USAGE = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=False,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)
UNKNOWN = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")


@pytest.mark.parametrize(
    ("middle", "wanted"),
    [
        (issue("middle", KEYS[1], "root", KEYS[0], ca=False), "not a certification"),
        (
            issue("middle", KEYS[1], "root", KEYS[0], (USAGE, True)),
            "key usage does not allow",
        ),
        (
            issue("middle", KEYS[1], "root", KEYS[0], (UNKNOWN, True)),
            "unknown critical extension",
        ),
        (
            issue("middle", KEYS[1], "root", KEYS[0], algorithm=hashes.SHA224()),
            "did not sign middle",
        ),
        (issue("middle", KEYS[1], "root", KEYS[3]), "did not sign middle"),
    ],
)
def test_an_issuer_must_be_allowed_to_issue(
    middle: x509.Certificate, wanted: str
) -> None:
    root = issue("root", KEYS[0], "root", KEYS[0])
    leaf = issue("leaf", KEYS[2], "middle", KEYS[1], ca=False)
    outcome = build_chain(leaf, [middle, root], roots=pin(root))
    assert isinstance(outcome, ChainBroken)
    assert wanted in outcome.detail


def test_an_issuer_without_basic_constraints_is_none() -> None:
    leaf = AMD.vcek(issuer="SEV-VCEK")
    outcome = build_chain(leaf, [VCEK, ASK, ARK], roots=AMD.pins())
    assert isinstance(outcome, ChainBroken)
    assert "no basic constraints" in outcome.detail


def test_extensions_that_are_not_critical_are_ignored() -> None:
    root = issue("root", KEYS[0], "root", KEYS[0])
    leaf = issue("leaf", KEYS[2], "root", KEYS[0], (UNKNOWN, False), ca=False)
    assert isinstance(build_chain(leaf, [root], roots=pin(root)), Chain)


def test_path_length_counts_the_authorities_below() -> None:
    root = issue("root", KEYS[0], "root", KEYS[0], path_length=0)
    middle = issue("middle", KEYS[1], "root", KEYS[0])
    leaf = issue("leaf", KEYS[2], "middle", KEYS[1], ca=False)
    assert isinstance(build_chain(middle, [root], roots=pin(root)), Chain)
    outcome = build_chain(leaf, [middle, root], roots=pin(root))
    assert isinstance(outcome, ChainBroken)
    assert "path length 0 is exceeded" in outcome.detail


def test_depth_has_a_limit() -> None:
    rungs = ladder(8)
    roots = pin(rungs[0])
    assert isinstance(build_chain(rungs[5], rungs, roots=roots), Chain)
    outcome = build_chain(rungs[6], rungs, roots=roots)
    assert isinstance(outcome, ChainBroken)
    assert "longer than 6" in outcome.detail


def test_work_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Authorities that certify each other cannot buy endless signatures."""
    pool = [
        issue(f"node {a}", KEYS[a], f"node {b}", KEYS[b])
        for a in range(6)
        for b in range(6)
        if a != b
    ]
    leaf = issue("leaf", KEYS[7], "node 0", KEYS[0], ca=False)
    calls: list[int] = []

    def counted(*arguments: object) -> bool:
        calls.append(1)
        return is_issued_by(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(chain_module, "is_issued_by", counted)
    outcome = build_chain(leaf, pool, roots={"00": "nobody"})
    # Cut short, which is not the same as wrong.
    assert isinstance(outcome, IssuerMissing)
    assert f"more than {MAX_SIGNATURES} signatures" in outcome.detail
    assert len(calls) == MAX_SIGNATURES


def test_a_known_issuer_is_found_among_any_number_of_namesakes() -> None:
    root = issue("root", KEYS[0], "root", KEYS[0])
    leaf = issue("leaf", KEYS[1], "root", KEYS[0], ca=False)
    roots = {spki_sha256(root): "the root"}
    cache = LinkCache()
    assert isinstance(build_chain(leaf, [root], roots=roots, cache=cache), Chain)
    namesakes = [issue("root", KEYS[2], "root", KEYS[2]) for _ in range(70)]
    crowded = [*namesakes, root]
    assert isinstance(build_chain(leaf, crowded, roots=roots, cache=cache), Chain)
    assert isinstance(build_chain(leaf, crowded, roots=roots), IssuerMissing)


def test_key_identifiers_tell_two_issuers_of_one_name_apart() -> None:
    def identifier(key: Key) -> tuple[x509.ExtensionType, bool]:
        return x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False

    def authority(key: Key) -> tuple[x509.ExtensionType, bool]:
        public = key.public_key()
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(public), False

    root = issue("root", KEYS[0], "root", KEYS[0], identifier(KEYS[0]))
    twin = issue("root", KEYS[1], "root", KEYS[1], identifier(KEYS[1]))
    leaf = issue("leaf", KEYS[2], "root", KEYS[0], authority(KEYS[0]), ca=False)
    assert isinstance(build_chain(leaf, [twin], roots=pin(root)), IssuerMissing)
    found = build_chain(leaf, [twin, root], roots=pin(root))
    assert found == Chain((leaf, root), "pinned")
    nameless = x509.AuthorityKeyIdentifier(None, None, None)
    leaf = issue("leaf", KEYS[2], "root", KEYS[0], (nameless, False), ca=False)
    assert isinstance(build_chain(leaf, [root], roots=pin(root)), Chain)


def test_a_registered_authority_is_trusted_as_it_is() -> None:
    """Unlike a pin, it need not be self-signed; another with its key is not it."""
    rungs = ladder(3)
    leaf = issue("leaf", KEYS[5], "rung 1", KEYS[1], ca=False)
    found = build_chain(leaf, [], roots={}, anchors=[rungs[1]])
    assert found == Chain((leaf, rungs[1]), "rung 1")
    again = issue("rung 1", KEYS[1], "rung 0", KEYS[0])
    assert again != rungs[1]
    outcome = build_chain(leaf, [again], roots={}, anchors=[rungs[2]])
    assert isinstance(outcome, IssuerMissing)


def test_weak_keys_and_other_algorithms_issue_nothing() -> None:
    weak = rsa.generate_private_key(public_exponent=65537, key_size=1024)  # noqa: S505
    edwards = ed25519.Ed25519PrivateKey.generate()
    for key in (weak, edwards):
        builder = (
            x509.CertificateBuilder()
            .subject_name(name("root"))
            .issuer_name(name("root"))
            .public_key(key.public_key())
            .serial_number(9)
            .not_valid_before(NOW - timedelta(days=1))
            .not_valid_after(NOW + timedelta(days=1))
            .add_extension(x509.BasicConstraints(True, None), critical=True)
        )
        signer = None if key is edwards else hashes.SHA256()
        root = builder.sign(key, signer)
        leaf = issue("leaf", KEYS[2], "root", key, ca=False)
        outcome = build_chain(leaf, [root], roots=pin(root))
        assert isinstance(outcome, ChainBroken)


@pytest.mark.parametrize(
    ("bits", "exponent", "is_good"),
    [
        (4096, 65537, True),
        (8192, 65537, True),
        (16384, 65537, False),
        (4096, 65539, False),
        (4096, 2**64 - 1, False),
    ],
)
def test_keys_that_take_long_to_verify_with_issue_nothing(
    bits: int, exponent: int, *, is_good: bool
) -> None:
    """Strangers choose them: dozens of signatures by one kept a thread for seconds."""
    modulus = (1 << bits) - 1
    key = rsa.RSAPublicNumbers(exponent, modulus).public_key()
    issuer = (
        x509.CertificateBuilder()
        .subject_name(name("root"))
        .issuer_name(name("root"))
        .public_key(key)
        .serial_number(9)
        .not_valid_before(NOW - timedelta(days=1))
        .not_valid_after(NOW + timedelta(days=1))
        .sign(KEYS[0], hashes.SHA256())
    )
    assert is_strong(hashes.SHA256(), issuer) is is_good


def test_an_issuer_with_an_unreadable_key_breaks_the_chain() -> None:
    known = bytes.fromhex("06092a864886f70d010101")
    changed = der(ASK).replace(known, known[:-1] + b"\x70")
    unreadable = load_der_certificate(changed, "x")
    outcome = build_chain(VCEK, [unreadable, ARK], roots=AMD.pins())
    assert isinstance(outcome, ChainBroken)
    anchored = build_chain(VCEK, [ARK], roots={}, anchors=[unreadable])
    assert isinstance(anchored, ChainBroken)


def test_a_second_search_verifies_no_signature(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cache = LinkCache()
    assert isinstance(
        build_chain(VCEK, [ASK, ARK], roots=AMD.pins(), cache=cache), Chain
    )
    # Leaf by ASK, ASK by ARK, ARK by itself.
    assert len(cache) == 3

    def unwanted(*arguments: object) -> bool:
        raise AssertionError

    monkeypatch.setattr(chain_module, "is_strong", unwanted)
    assert isinstance(
        build_chain(VCEK, [ASK, ARK], roots=AMD.pins(), cache=cache), Chain
    )


def test_a_known_chain_counts_only_where_its_certificates_are_to_hand() -> None:
    root, middle, leaf = ladder(3)
    cache = LinkCache()
    first = build_chain(leaf, [middle, root], roots=pin(root), cache=cache)
    assert isinstance(first, Chain)
    assert build_chain(leaf, [middle, root], roots=pin(root), cache=cache) is first
    assert isinstance(
        build_chain(leaf, [root], roots=pin(root), cache=cache), IssuerMissing
    )
    assert not isinstance(
        build_chain(leaf, [middle, root], roots=pin(leaf), cache=cache), Chain
    )


def test_what_comes_beside_a_chain_is_not_kept() -> None:
    root, middle, leaf = ladder(3)
    cache = LinkCache()
    junk = issue("somebody", KEYS[3], "somebody", KEYS[3])
    held = sys.getrefcount(junk)
    for pool in ([middle, root, junk], [junk, root, middle], [junk]):
        build_chain(leaf, pool, roots=pin(root), cache=cache)
        build_chain(junk, pool, roots=pin(root), cache=cache)
    del pool
    assert sys.getrefcount(junk) == held
    assert len(cache.chains) == 1


def test_the_cache_keeps_good_links_only() -> None:
    cache = LinkCache()
    build_chain(VCEK, [OTHER.ask, OTHER.ark], roots=AMD.pins(), cache=cache)
    assert len(cache) == 0


def test_the_cache_is_bounded_and_drops_what_was_not_used() -> None:
    cache = LinkCache(limit=2)
    cache.remember(b"a", b"x")
    cache.remember(b"b", b"x")
    assert cache.holds(b"a", b"x")
    cache.remember(b"c", b"x")
    assert cache.holds(b"a", b"x")
    assert not cache.holds(b"b", b"x")
    assert not cache.holds(b"x", b"a")
    assert len(cache) == 2


def test_dates_are_inclusive_and_named() -> None:
    begins, ends = VCEK.not_valid_before_utc, VCEK.not_valid_after_utc
    second = timedelta(seconds=1)
    assert out_of_date([VCEK, ASK, ARK], begins) == ()
    assert out_of_date([VCEK, ASK, ARK], ends) == ()
    (early,) = out_of_date([VCEK], begins - second)
    (late,) = out_of_date([ARK, VCEK], ends + second)
    assert early.startswith("SEV-VCEK is not valid before")
    assert late.startswith("SEV-VCEK expired")
