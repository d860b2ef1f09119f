from __future__ import annotations

import hashlib
import hmac

import pytest

from kbs.audit.pseudonym import Pseudonyms, pseudonym
from kbs.core.checks import Check, Status
from kbs.core.decision import Reason

KEY = bytes(range(32))
CHIP = bytes([0xC4]) * 64
OTHER = bytes([0x77]) * 64
HIDDEN = pseudonym(KEY, CHIP)


def test_a_pseudonym_is_a_keyed_hash_with_a_context() -> None:
    expected = hmac.new(KEY, b"kbs.pseudonym/1\x00" + CHIP, hashlib.sha256).hexdigest()
    assert f"hmac:{expected}" == HIDDEN
    assert pseudonym(bytes(32), CHIP) != HIDDEN


def test_a_short_key_is_refused() -> None:
    with pytest.raises(ValueError, match="31 bytes"):
        pseudonym(bytes(31), CHIP)


def test_the_identities_of_the_evidence_appear_nowhere() -> None:
    names = Pseudonyms(KEY, [CHIP, b""])
    check = Check(
        id="snp.chain",
        status=Status.FAIL,
        detail=f"chip {CHIP.hex()} has no VCEK",
        got=CHIP.hex(),
        expected="another",
    )
    (found,) = names.checks([check])
    assert found.detail == f"chip {HIDDEN} has no VCEK"
    assert (found.got, found.expected) == (HIDDEN, "another")
    assert (found.id, found.status) == (check.id, check.status)


@pytest.mark.parametrize(
    "word", ["snp.chip_id", "deny.chip", "tdx.ppid", "tdx.piid", "vtpm.ek"]
)
def test_a_claim_about_a_device_hides_what_the_policy_expects_too(word: str) -> None:
    reason = Reason(
        id=word, detail="d", policy="p", got=CHIP.hex(), expected=f"[{OTHER.hex()}]"
    )
    (found,) = Pseudonyms(KEY).reasons([reason])
    assert found.got == HIDDEN
    assert found.expected == f"[{pseudonym(KEY, OTHER)}]"
    assert found.policy == "p"


def test_a_measurement_stays_readable_and_nothing_stays_nothing() -> None:
    reason = Reason(id="snp.measurement", detail="d", got="ab" * 48)
    assert Pseudonyms(KEY, [CHIP]).reasons([reason]) == (reason,)


def test_an_odd_number_of_digits_is_hidden_as_well() -> None:
    reason = Reason(id="snp.chip_id", detail="d", got="a" * 33, expected="ab")
    (found,) = Pseudonyms(KEY).reasons([reason])
    assert found.got == pseudonym(KEY, b"a" * 33)
    assert found.expected == "ab"
