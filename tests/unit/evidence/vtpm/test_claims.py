"""The vocabulary of the vtpm family."""

from __future__ import annotations

from kbs.core.claims import ClaimType, Vocabulary
from kbs.evidence.vtpm.claims import VOCABULARY


def test_every_pcr_of_two_banks_is_a_register_of_its_hash() -> None:
    vocabulary = Vocabulary.of(VOCABULARY)
    for bank, size in (("sha256", 32), ("sha384", 48)):
        for pcr in range(24):
            spec = vocabulary.find(f"vtpm.pcr.{bank}.{pcr}")
            assert spec is not None
            assert spec.type is ClaimType.BYTES
            assert spec.size == size
            assert spec.register == bank
            assert spec.register_style == "extend"
            assert spec.boot is (pcr < 8)
            assert spec.resettable is (pcr >= 16)
    assert vocabulary.find("vtpm.pcr.sha1.0") is None
    assert vocabulary.find("vtpm.pcr.sha256.24") is None


def test_a_rule_must_say_whose_keys_count() -> None:
    vocabulary = Vocabulary.of(VOCABULARY)
    (spec,) = vocabulary.safety("vtpm")
    assert spec.name == "vtpm.ak.group"
    assert spec.safety is not None
    assert spec.safety.default == ()
    assert spec.safety.alternatives == ("vtpm.ak.ca",)


def test_every_claim_says_what_it_means_and_where_from() -> None:
    for spec in VOCABULARY:
        assert spec.name.startswith("vtpm.")
        assert spec.description
        assert spec.source
