"""Revocation on the release path: the newest list wins, and none means 503."""

from __future__ import annotations

import json
from datetime import timedelta
from functools import partial

from cryptography.hazmat.primitives.serialization import Encoding

from kbs.core.encode import b64
from kbs.governance.statement import Action, Kind
from tests.fakes.amd import NOW, FakeAmd
from tests.fakes.answers import Document, Seen, refusals, releases, see
from tests.fakes.snp_world import KEY, TOLERANT, made_report, policy, report
from tests.fakes.tpm import FakeTpm
from tests.fakes.tpm_ca import FakeTpmCA, certificate_b64
from tests.fakes.world import World


def _collateral(world: World, *ders: bytes) -> None:
    world.must("POST", "/admin/v1/collateral", {"items": [b64(der) for der in ders]})


def test_without_a_revocation_list_nothing_is_decided(
    snp_world: World, amd: FakeAmd
) -> None:
    request = report(snp_world, amd, crl=False)
    seen = see(snp_world, request)
    assert (seen.status, seen.code) == (503, "evidence.unchecked")
    assert seen.checks == ["snp.revocation"]
    assert "answer" not in seen.document
    assert releases(snp_world) == []
    # An administrator is told what was missing, by the id in the answer.
    (told,) = refusals(snp_world)
    assert told["reason"] == "snp.revocation"
    (sample,) = told["samples"]
    assert sample["decision"] == seen.document["decision"]
    assert "revocation list" in sample["detail"]
    _collateral(snp_world, amd.crl().public_bytes(Encoding.DER))
    # The challenge was not spent: the very same request is good now.
    assert snp_world.released(request) == {f"{KEY}@1": b"snp"}
    assert "tolerated" not in releases(snp_world)[0]


def test_an_older_list_does_not_stand_in_for_one_that_ran_out(
    snp_world: World, amd: FakeAmd
) -> None:
    """The newest list revokes and has a short life; the one before it lives on."""
    newest = amd.crl(
        number=8,
        revoked=(amd.ask.serial_number,),
        next_update=NOW - timedelta(hours=1),
    )
    older = amd.crl(number=7, revoked=())
    _collateral(snp_world, newest.public_bytes(Encoding.DER))
    _collateral(snp_world, older.public_bytes(Encoding.DER))
    assert see(snp_world, report(snp_world, amd, crl=False)).status == 403


def test_retry_after_is_said(snp_world: World, amd: FakeAmd) -> None:
    response = snp_world.send(report(snp_world, amd, crl=False))
    assert int(response.headers["Retry-After"]) > 0


def test_a_stale_list_is_no_list(snp_world: World, amd: FakeAmd) -> None:
    snp_world.clock.time = NOW + timedelta(days=11)
    assert see(snp_world, report(snp_world, amd)).checks == ["snp.revocation"]
    fresh = amd.crl(number=8, next_update=NOW + timedelta(days=30))
    _collateral(snp_world, fresh.public_bytes(Encoding.DER))
    assert snp_world.send(report(snp_world, amd)).status_code == 200


def test_the_newest_list_wins(snp_world: World, amd: FakeAmd) -> None:
    revoking = amd.crl(number=8, revoked=(amd.ask.serial_number,))
    _collateral(snp_world, revoking.public_bytes(Encoding.DER))
    seen = see(snp_world, report(snp_world, amd))
    assert seen.status == 403
    assert "snp.revocation" in seen.checks


def test_a_policy_that_tolerates_it_is_recorded(snp_world: World, amd: FakeAmd) -> None:
    request = report(snp_world, amd, TOLERANT, crl=False)
    assert snp_world.released(request) == {f"{TOLERANT}@1": b"offline"}
    (entry,) = releases(snp_world)
    assert entry["tolerated"] == ["snp.revocation"]
    # With a list nothing was tolerated, and a revoked chip is refused all the same.
    assert snp_world.send(report(snp_world, amd, TOLERANT)).status_code == 200
    assert "tolerated" not in releases(snp_world)[1]


def test_one_policy_that_does_not_tolerate_it_is_enough(
    snp_world: World, amd: FakeAmd
) -> None:
    make = partial(made_report, amd, {"crl": False})
    request = snp_world.request_by("snp", make, [TOLERANT, KEY], partial=True)
    assert see(snp_world, request).status == 503
    request = snp_world.request_by("snp", make, [TOLERANT, "acme/none/x"], partial=True)
    assert see(snp_world, request).status == 200


def test_an_ak_without_its_attributes_is_refused_where_lists_are_tolerated(
    world: World,
) -> None:
    ca, tpm = FakeTpmCA(), world.booted_tpm()
    source = policy(
        "offline",
        "{claim: vtpm.ak.ca, equals: maker}",
        f'{{claim: vtpm.pcr.sha256.0, equals: "{_pcr0(tpm)}"}}',
        more="revocation: {tolerate_missing: true}\n",
    )
    content = {"purpose": "ak", "certificate": certificate_b64(ca.root)}
    world.govern(Action.ADD, Kind.CA, "acme", "maker", json.dumps(content).encode())
    world.activate_policy(source, name="offline")
    world.create_key(TOLERANT, b"offline")
    certificates = [
        certificate_b64(ca.certify(tpm.key.public_key())),
        certificate_b64(ca.intermediate),
    ]

    def send(ak: str) -> Seen:
        def item(primary: bytes) -> Document:
            quoted = tpm.quote_item(primary[:32])
            return {**quoted, "ak": ak, "ak_certificates": certificates}

        return see(world, world.request_by("vtpm", item, [TOLERANT]))

    whole, bare = send(b64(tpm.ak_public)), send(b64(tpm.ak_spki))
    assert whole.checks == []
    assert whole.entry(world)["tolerated"] == ["vtpm.revocation"]
    assert bare.status == 403
    assert bare.checks == ["vtpm.ak.attributes"]


def _pcr0(tpm: FakeTpm) -> str:
    (value,) = [v for (bank, pcr), v in tpm.pcrs.items() if pcr == 0 and len(v) == 32]
    return value.hex()
