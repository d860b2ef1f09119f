"""What counts inside a tenant, and under which name."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from kbs.core.claims import Claims, ClaimValue, ItemClaims

GROUP, CA, NAME = "vtpm.ak.group", "vtpm.ak.ca", "vtpm.ak.name"

SCOPED: Mapping[str, Mapping[str, ClaimValue]] = {
    "acme": {GROUP: "hosts"},
    "shared": {GROUP: "hosts", CA: "maker", NAME: "000b"},
}


@pytest.mark.parametrize(
    ("scoped", "tenant", "shared", "values"),
    [
        (SCOPED, "acme", True, {GROUP: "hosts"}),
        (SCOPED, "acme", False, {GROUP: "hosts"}),
        (
            SCOPED,
            "beta",
            True,
            {GROUP: "shared/hosts", CA: "shared/maker", NAME: "000b"},
        ),
        (SCOPED, "beta", False, None),
        (SCOPED, "shared", True, {GROUP: "hosts", CA: "maker", NAME: "000b"}),
        (SCOPED, "shared", False, {GROUP: "hosts", CA: "maker", NAME: "000b"}),
        ({"acme": {GROUP: "hosts"}}, "beta", True, None),
    ],
)
def test_names_of_the_shared_scope_say_so(
    scoped: Mapping[str, Mapping[str, ClaimValue]],
    tenant: str,
    values: Mapping[str, ClaimValue] | None,
    *,
    shared: bool,
) -> None:
    item = ItemClaims(
        family="vtpm",
        item=1,
        values={"vtpm.safe": True, GROUP: "unscoped"},
        scoped=scoped,
        trusted_in=frozenset(scoped),
    )
    found = Claims(items=(item,), request={}).scoped_to(tenant, shared=shared).items
    # Of an item that counts elsewhere nothing is left but that it is there.
    expected = {} if values is None else {**item.values, **values}
    assert [(one.values, one.elsewhere) for one in found] == [(expected, not expected)]


def test_what_a_vendor_proves_counts_everywhere_as_it_is() -> None:
    item = ItemClaims(family="vtpm", item=1, values={CA: "Pinned Root"})
    (found,) = Claims(items=(item,), request={}).scoped_to("acme", shared=True).items
    assert found.values == {CA: "Pinned Root"}
