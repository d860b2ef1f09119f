from __future__ import annotations

import pytest

from kbs.core.errors import MalformedError
from kbs.evidence.snp.fields import octets_of


def test_an_array_of_numbers_is_bytes() -> None:
    assert octets_of([0, 1, 255], "x", size=3) == b"\x00\x01\xff"
    assert octets_of([], "x", most=4) == b""


@pytest.mark.parametrize(
    "element", [256, -1, 2**63, True, False, None, "1", 1.0, [1], b"\x01"]
)
def test_an_element_that_is_no_byte_is_refused(element: object) -> None:
    with pytest.raises(MalformedError, match="no byte"):
        octets_of([1, element, 2], "x", size=3)
