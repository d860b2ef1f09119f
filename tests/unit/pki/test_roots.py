"""A pin has one purpose, and a fake vendor's pin takes the place of all."""

from __future__ import annotations

import pytest

from kbs.pki.roots import PINNED_ROOTS, Purpose, amd_product_line, pinned_roots


def test_every_pin_is_a_digest_and_has_one_purpose() -> None:
    digests = [root.spki_sha256 for root in PINNED_ROOTS]
    assert len(set(digests)) == len(digests)
    assert all(len(bytes.fromhex(digest)) == 32 for digest in digests)
    listed = [digest for purpose in Purpose for digest in pinned_roots(purpose)]
    assert sorted(listed) == sorted(digests)


@pytest.mark.parametrize("line", ["Milan", "Genoa", "Turin"])
def test_each_product_line_has_a_root(line: str) -> None:
    names = list(pinned_roots(Purpose.SNP).values())
    assert [amd_product_line(name) for name in names].count(line) == 1


def test_other_roots_have_no_product_line() -> None:
    names = pinned_roots(Purpose.TPM).values()
    assert {amd_product_line(name) for name in names} == {None}


def test_an_override_takes_the_place_of_the_pins_and_keeps_purposes_apart() -> None:
    override = {
        "aa": "AMD ARK Milan",
        "bb": "Some TPM root",
        "cc": "Intel SGX Root CA",
    }
    assert pinned_roots(Purpose.SNP, override) == {"aa": "AMD ARK Milan"}
    assert pinned_roots(Purpose.TPM, override) == {"bb": "Some TPM root"}
    assert pinned_roots(Purpose.DCAP, override) == {"cc": "Intel SGX Root CA"}
    assert pinned_roots(Purpose.SNP, {}) == {}
