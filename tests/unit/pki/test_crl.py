"""Which revocation list counts, and what it says."""

from __future__ import annotations

from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from kbs.pki.cache import LinkCache
from kbs.pki.certificates import der, load_der_certificate
from kbs.pki.crl import is_crl_of, is_current, lists_certificate, standing
from tests.fakes.amd import NOW, FakeAmd, name

AMD = FakeAmd()
ARK, ASK, VCEK = AMD.ark, AMD.ask, AMD.vcek()
CHAIN = (VCEK, ASK, ARK)
DAY = timedelta(days=1)
ASK_SERIAL = ASK.serial_number


def test_a_current_list_without_the_chain_clears_it() -> None:
    crl = AMD.crl(revoked=(1, 2, 3))
    found = standing(CHAIN, ARK, [crl], now=NOW)
    assert found.current == crl
    assert found.revoked == ()


@pytest.mark.parametrize(
    ("serial", "subject"),
    [
        (ASK_SERIAL, "SEV-Milan"),
        (ARK.serial_number, "ARK-Milan"),
        (VCEK.serial_number, "SEV-VCEK"),
    ],
)
def test_a_listed_serial_is_revoked(serial: int, subject: str) -> None:
    found = standing(CHAIN, ARK, [AMD.crl(revoked=(9, serial))], now=NOW)
    assert found.revoked == (subject,)


def test_serial_zero_names_no_certificate() -> None:
    """All real VCEKs have it, so one entry would otherwise revoke them all."""
    # INTEGER 77h after the version in the TBS; the signature no longer matters here.
    zero = der(VCEK).replace(b"\x02\x01\x77", b"\x02\x01\x00", 1)
    leaf = load_der_certificate(zero, "x")
    assert leaf.serial_number == 0
    assert not lists_certificate(AMD.crl(revoked=(1,)), leaf)


@pytest.mark.parametrize(
    "crl",
    [
        AMD.crl(signer="ask"),
        FakeAmd(realm="other").crl(),
        FakeAmd(product="Genoa").crl(),
        AMD.crl(issuer="SEV-Milan", signer="ask"),
        AMD.crl(critical=True),
        AMD.crl(this_update=NOW + DAY, next_update=NOW + 2 * DAY),
        AMD.crl(this_update=NOW - 2 * DAY, next_update=NOW - DAY),
    ],
)
def test_lists_that_do_not_count_clear_nobody(
    crl: x509.CertificateRevocationList,
) -> None:
    found = standing(CHAIN, ARK, [crl], now=NOW)
    assert found.current is None
    assert found.revoked == ()


def test_no_list_clears_nobody() -> None:
    assert standing(CHAIN, ARK, [], now=NOW).current is None


def test_a_list_needs_an_issuer_that_may_sign_lists() -> None:
    crl = AMD.crl(issuer="SEV-Milan", signer="ask")
    assert crl.is_signature_valid(ASK.public_key())  # type: ignore[arg-type]
    assert not is_crl_of(crl, ASK, LinkCache())


@pytest.mark.parametrize("reverse", [False, True])
def test_the_higher_number_wins_before_the_later_date(reverse: bool) -> None:  # noqa: FBT001
    old = AMD.crl(number=7, this_update=NOW - DAY)
    new = AMD.crl(number=8, this_update=NOW - 2 * DAY, revoked=(ASK_SERIAL,))
    lists = [new, old] if reverse else [old, new]
    found = standing(CHAIN, ARK, lists, now=NOW)
    assert found.current == new
    assert found.revoked == ("SEV-Milan",)


def test_of_equal_numbers_the_later_date_wins() -> None:
    old = AMD.crl(this_update=NOW - 2 * DAY, revoked=(ASK_SERIAL,))
    new = AMD.crl(this_update=NOW - DAY, revoked=())
    assert standing(CHAIN, ARK, [old, new], now=NOW).revoked == ()
    assert standing(CHAIN, ARK, [new, old], now=NOW).revoked == ()


def test_a_list_without_a_number_is_the_oldest() -> None:
    bare = AMD.crl(number=None, this_update=NOW - DAY)
    numbered = AMD.crl(number=1, this_update=NOW - 2 * DAY)
    assert standing(CHAIN, ARK, [bare, numbered], now=NOW).current == numbered


def test_a_list_that_ran_out_still_revokes() -> None:
    stale = AMD.crl(
        this_update=NOW - 3 * DAY, next_update=NOW - DAY, revoked=(ASK_SERIAL,)
    )
    found = standing(CHAIN, ARK, [stale], now=NOW)
    assert found.current is None
    assert found.revoked == ("SEV-Milan",)


@pytest.mark.parametrize("reverse", [False, True])
def test_no_older_list_takes_the_place_of_one_that_ran_out(reverse: bool) -> None:  # noqa: FBT001
    """An emergency list with a short life, and the one before it with a long one."""
    newest = AMD.crl(number=8, next_update=NOW - DAY, revoked=(ASK_SERIAL,))
    older = AMD.crl(number=7, revoked=())
    lists = [newest, older] if reverse else [older, newest]
    found = standing(CHAIN, ARK, lists, now=NOW)
    assert found.current is None
    assert found.revoked == ("SEV-Milan",)
    cleared = AMD.crl(number=8, next_update=NOW - DAY, revoked=())
    assert standing(CHAIN, ARK, [older, cleared], now=NOW).current is None


def test_currency_is_inclusive() -> None:
    crl = AMD.crl()
    until = crl.next_update_utc
    assert until is not None
    second = timedelta(seconds=1)
    assert is_current(crl, crl.last_update_utc)
    assert is_current(crl, until)
    assert not is_current(crl, crl.last_update_utc - second)
    assert not is_current(crl, until + second)


def test_a_good_signature_is_remembered() -> None:
    cache = LinkCache()
    crl = AMD.crl()
    assert is_crl_of(crl, ARK, cache)
    assert len(cache) == 1
    assert is_crl_of(crl, ARK, cache)
    assert not is_crl_of(AMD.crl(signer="ask"), ARK, cache)
    assert len(cache) == 1


def test_a_list_with_a_weak_hash_or_by_an_unreadable_key_does_not_count() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    issuer = (
        x509.CertificateBuilder()
        .subject_name(name("root"))
        .issuer_name(name("root"))
        .public_key(key.public_key())
        .serial_number(9)
        .not_valid_before(NOW - DAY)
        .not_valid_after(NOW + DAY)
        .sign(key, hashes.SHA256())
    )
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(name("root"))
        .last_update(NOW - DAY)
        .next_update(NOW + DAY)
    )
    assert is_crl_of(builder.sign(key, hashes.SHA256()), issuer, LinkCache())
    assert not is_crl_of(builder.sign(key, hashes.SHA224()), issuer, LinkCache())
    # id-ecPublicKey, one digit changed.
    changed = der(issuer).replace(
        bytes.fromhex("06072a8648ce3d0201"), bytes.fromhex("06072a8648ce3d0270")
    )
    unreadable = load_der_certificate(changed, "x")
    crl = builder.sign(key, hashes.SHA256())
    assert not is_crl_of(crl, unreadable, LinkCache())
