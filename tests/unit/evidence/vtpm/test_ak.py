"""Whose key it is: enrolled, certified, vouched for; never because it came along."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from copy import copy
from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from kbs.core.checks import Status
from kbs.core.encode import b64
from kbs.evidence.model import (
    EnrolledKey,
    GivenCollateral,
    ItemResult,
    Trust,
    TrustedCA,
)
from kbs.evidence.vtpm.item import pem_of
from kbs.evidence.vtpm.public import ObjectAttributes, serialize_public
from kbs.evidence.vtpm.verify import VtpmVerifier
from tests.fakes.tpm import AK_ATTRIBUTES, FakeTpm
from tests.fakes.tpm_ca import (
    NOW,
    FakeTpmCA,
    certificate_b64,
    certificate_pem,
    with_unknown_key,
)

VERIFIER = VtpmVerifier()
BOUND = bytes(32)
CHAIN = ("vtpm.chain", "vtpm.validity", "vtpm.revocation")


@pytest.fixture(scope="module")
def authority() -> FakeTpmCA:
    return FakeTpmCA()


def verify(item: Mapping[str, object], trust: Trust) -> ItemResult:
    return VERIFIER.verify(VERIFIER.parse(item, 0), trust)


def statuses(result: ItemResult) -> dict[str, Status]:
    return {check.id: check.status for check in result.checks}


def key_of(tpm: FakeTpm, tenant: str = "acme", group: str = "hosts") -> EnrolledKey:
    return EnrolledKey(
        tenant=tenant, group=group, name=tpm.ak_name, public=tpm.ak_public
    )


def trusting(*keys: EnrolledKey) -> Trust:
    table: dict[bytes, tuple[EnrolledKey, ...]] = {}
    for key in keys:
        table[key.name] = (*table.get(key.name, ()), key)
    return Trust(now=NOW, enrolled_keys=table)


def bare_item(tpm: FakeTpm) -> dict[str, object]:
    return {**tpm.quote_item(BOUND), "ak": pem_of(tpm.public.key)}


def certified_item(tpm: FakeTpm, *certificates: x509.Certificate) -> dict[str, object]:
    texts = [certificate_b64(certificate) for certificate in certificates]
    return {**tpm.quote_item(BOUND), "ak_certificates": texts}


def registered(
    authority: FakeTpmCA,
    *,
    tenant: str = "acme",
    purpose: str = "ak",
    certificate: x509.Certificate | None = None,
    lists: tuple[x509.CertificateRevocationList, ...] | None = None,
) -> Trust:
    ca = TrustedCA(
        tenant=tenant,
        name="hosts-ca",
        purpose=purpose,
        certificate=certificate or authority.root,
    )
    known = authority.revocation_lists() if lists is None else lists
    collateral = GivenCollateral((authority.intermediate,), known)
    return Trust(now=NOW, cas=(ca,), collateral=collateral, pinned_roots={})


class TestEnrolled:
    def test_a_key_nobody_enrolled_is_refused(self, ecc_tpm: FakeTpm) -> None:
        result = verify(ecc_tpm.quote_item(BOUND), Trust(now=NOW))
        assert statuses(result)["vtpm.ak.trust"] is Status.FAIL
        assert not result.authenticated
        assert result.claims is None

    def test_claims_are_scoped_to_each_tenant_that_enrolled_it(
        self, ecc_tpm: FakeTpm
    ) -> None:
        trust = trusting(key_of(ecc_tpm), key_of(ecc_tpm, "beta", "lab"))
        claims = verify(ecc_tpm.quote_item(BOUND), trust).claims
        assert claims is not None
        assert claims.scoped == {
            "acme": {"vtpm.ak.group": "hosts"},
            "beta": {"vtpm.ak.group": "lab"},
        }
        assert claims.trusted_in == frozenset({"acme", "beta"})

    def test_the_first_of_two_groups_in_a_tenant_counts(self, ecc_tpm: FakeTpm) -> None:
        trust = trusting(key_of(ecc_tpm), key_of(ecc_tpm, "acme", "lab"))
        claims = verify(ecc_tpm.quote_item(BOUND), trust).claims
        assert claims is not None
        assert claims.scoped == {"acme": {"vtpm.ak.group": "hosts"}}

    def test_a_bare_key_counts_for_the_enrolled_area_that_has_it(
        self, ecc_tpm: FakeTpm
    ) -> None:
        result = verify(bare_item(ecc_tpm), trusting(key_of(ecc_tpm)))
        assert statuses(result)["vtpm.ak.trust"] is Status.PASS
        assert statuses(result)["vtpm.ak.attributes"] is Status.PASS
        assert result.claims is not None
        assert result.claims.values["vtpm.ak.name"] == ecc_tpm.ak_name.hex()

    def test_a_bare_key_of_another_tpm_does_not(self, ecc_tpm: FakeTpm) -> None:
        result = verify(bare_item(FakeTpm()), trusting(key_of(ecc_tpm)))
        assert statuses(result)["vtpm.ak.trust"] is Status.FAIL

    def test_the_same_key_under_other_attributes_is_another_object(
        self, ecc_tpm: FakeTpm
    ) -> None:
        changed = replace(
            ecc_tpm.public, attributes=AK_ATTRIBUTES | ObjectAttributes.NO_DA
        )
        tpm = FakeTpm()
        tpm.key, tpm.public = ecc_tpm.key, changed
        result = verify(tpm.quote_item(BOUND), trusting(key_of(ecc_tpm)))
        assert statuses(result)["vtpm.ak.trust"] is Status.FAIL

    def test_enrolled_areas_that_do_not_have_their_name_do_not_count(
        self, ecc_tpm: FakeTpm
    ) -> None:
        broken = replace(key_of(ecc_tpm), public=b"garbage")
        renamed = replace(key_of(ecc_tpm), name=FakeTpm().ak_name)
        for key in (broken, renamed):
            trust = Trust(now=NOW, enrolled_keys={key.name: (key,)})
            result = verify(bare_item(ecc_tpm), trust)
            assert statuses(result)["vtpm.ak.trust"] is Status.FAIL

    def test_an_entry_under_the_wrong_name_does_not_count(
        self, ecc_tpm: FakeTpm
    ) -> None:
        other = key_of(FakeTpm())
        trust = Trust(now=NOW, enrolled_keys={ecc_tpm.ak_name: (other,)})
        result = verify(ecc_tpm.quote_item(BOUND), trust)
        assert statuses(result)["vtpm.ak.trust"] is Status.FAIL

    def test_a_certificate_that_leads_nowhere_does_not_harm(
        self, ecc_tpm: FakeTpm, authority: FakeTpmCA
    ) -> None:
        item = certified_item(ecc_tpm, authority.certify(ecc_tpm.public.key))
        result = verify(item, trusting(key_of(ecc_tpm)))
        assert {statuses(result)[check] for check in CHAIN} == {Status.SKIPPED}
        assert result.claims is not None

    def test_somebody_elses_certificate_does_not_harm(
        self, ecc_tpm: FakeTpm, authority: FakeTpmCA
    ) -> None:
        item = certified_item(ecc_tpm, authority.certify(FakeTpm().public.key))
        result = verify(item, trusting(key_of(ecc_tpm)))
        assert {statuses(result)[check] for check in CHAIN} == {Status.SKIPPED}
        assert result.claims is not None

    def test_a_revoked_certificate_of_a_registered_ca_does(
        self, ecc_tpm: FakeTpm, authority: FakeTpmCA
    ) -> None:
        leaf = authority.certify(ecc_tpm.public.key)
        trust = replace(
            registered(authority, lists=authority.revocation_lists([leaf])),
            enrolled_keys={ecc_tpm.ak_name: (key_of(ecc_tpm),)},
        )
        result = verify(certified_item(ecc_tpm, leaf), trust)
        assert statuses(result)["vtpm.revocation"] is Status.FAIL
        assert result.claims is None


class TestCertified:
    def test_a_registered_ca_counts_in_its_tenant(
        self, ecc_tpm: FakeTpm, authority: FakeTpmCA
    ) -> None:
        item = certified_item(ecc_tpm, authority.certify(ecc_tpm.public.key))
        result = verify(item, registered(authority))
        assert {statuses(result)[check] for check in CHAIN} == {Status.PASS}
        assert statuses(result)["vtpm.ak.trust"] is Status.PASS
        assert result.authenticated
        assert result.claims is not None
        assert result.claims.scoped == {"acme": {"vtpm.ak.ca": "hosts-ca"}}
        assert result.claims.trusted_in == frozenset({"acme"})
        assert "vtpm.ak.ca" not in result.claims.values

    def test_a_pinned_root_counts_everywhere(
        self, ecc_tpm: FakeTpm, authority: FakeTpmCA
    ) -> None:
        leaf = authority.certify(ecc_tpm.public.key)
        collateral = GivenCollateral(
            (authority.intermediate, authority.root), authority.revocation_lists()
        )
        trust = Trust(now=NOW, collateral=collateral, pinned_roots=authority.pins)
        result = verify(certified_item(ecc_tpm, leaf), trust)
        assert result.claims is not None
        assert result.claims.trusted_in is None
        assert result.claims.values["vtpm.ak.ca"] == "Fake TPM Root"
        assert result.claims.scoped == {}

    def test_the_whole_chain_may_come_with_the_item_as_pem(
        self, ecc_tpm: FakeTpm, authority: FakeTpmCA
    ) -> None:
        leaf = authority.certify(ecc_tpm.public.key)
        pem = certificate_pem(authority.intermediate) + certificate_pem(leaf)
        item = {**ecc_tpm.quote_item(BOUND), "ak_certificates": [pem]}
        trust = replace(
            registered(authority),
            collateral=GivenCollateral((), authority.revocation_lists()),
        )
        assert verify(item, trust).claims is not None

    def test_a_certificate_among_the_collateral_is_found(
        self, ecc_tpm: FakeTpm, authority: FakeTpmCA
    ) -> None:
        leaf = authority.certify(ecc_tpm.public.key)
        collateral = GivenCollateral(
            (authority.intermediate, leaf), authority.revocation_lists()
        )
        trust = replace(registered(authority), collateral=collateral)
        assert verify(ecc_tpm.quote_item(BOUND), trust).claims is not None

    def test_an_intermediate_can_be_the_registered_ca(
        self, ecc_tpm: FakeTpm, authority: FakeTpmCA
    ) -> None:
        leaf = authority.certify(ecc_tpm.public.key)
        trust = registered(authority, certificate=authority.intermediate)
        assert verify(certified_item(ecc_tpm, leaf), trust).claims is not None

    def test_a_ca_for_another_purpose_does_not_count(
        self, ecc_tpm: FakeTpm, authority: FakeTpmCA
    ) -> None:
        item = certified_item(ecc_tpm, authority.certify(ecc_tpm.public.key))
        trust = registered(authority, purpose="ek")
        trust = replace(
            trust,
            collateral=GivenCollateral(
                (authority.intermediate, authority.root), authority.revocation_lists()
            ),
        )
        result = verify(item, trust)
        assert statuses(result)["vtpm.chain"] is Status.FAIL
        assert statuses(result)["vtpm.ak.trust"] is Status.FAIL
        assert not result.authenticated

    def test_a_ca_that_issued_nothing_here_is_not_tried(
        self, ecc_tpm: FakeTpm, authority: FakeTpmCA
    ) -> None:
        other = FakeTpmCA("Other")
        item = certified_item(ecc_tpm, authority.certify(ecc_tpm.public.key))
        trust = registered(authority, certificate=other.root)
        result = verify(item, trust)
        assert statuses(result)["vtpm.chain"] is Status.UNCHECKED

    def test_a_ca_of_the_same_name_with_another_key_breaks_the_chain(
        self, ecc_tpm: FakeTpm, authority: FakeTpmCA
    ) -> None:
        item = certified_item(ecc_tpm, authority.certify(ecc_tpm.public.key))
        trust = registered(authority, certificate=FakeTpmCA().root)
        result = verify(item, trust)
        assert statuses(result)["vtpm.chain"] is Status.FAIL
        assert statuses(result)["vtpm.ak.trust"] is Status.FAIL

    def test_a_missing_issuer_is_not_a_fault_but_nothing_is_proven(
        self, ecc_tpm: FakeTpm, authority: FakeTpmCA
    ) -> None:
        item = certified_item(ecc_tpm, authority.certify(ecc_tpm.public.key))
        trust = replace(registered(authority), collateral=GivenCollateral())
        result = verify(item, trust)
        assert statuses(result)["vtpm.chain"] is Status.UNCHECKED
        assert statuses(result)["vtpm.ak.trust"] is Status.UNCHECKED
        assert not result.authenticated
        assert result.claims is None

    def test_the_certificate_of_another_key_is_refused(
        self, ecc_tpm: FakeTpm, authority: FakeTpmCA
    ) -> None:
        item = certified_item(ecc_tpm, authority.certify(FakeTpm().public.key))
        result = verify(item, registered(authority))
        assert statuses(result)["vtpm.chain"] is Status.FAIL
        assert statuses(result)["vtpm.ak.trust"] is Status.FAIL

    @pytest.mark.parametrize(("ca", "signs"), [(True, True), (False, False)])
    def test_certificates_of_cas_and_endorsement_keys_are_refused(
        self, ecc_tpm: FakeTpm, authority: FakeTpmCA, *, ca: bool, signs: bool
    ) -> None:
        leaf = authority.certify(ecc_tpm.public.key, ca=ca, signs=signs)
        result = verify(certified_item(ecc_tpm, leaf), registered(authority))
        assert statuses(result)["vtpm.chain"] is Status.FAIL
        assert statuses(result)["vtpm.ak.trust"] is Status.FAIL

    def test_a_certificate_without_usage_is_taken(
        self, ecc_tpm: FakeTpm, authority: FakeTpmCA
    ) -> None:
        leaf = authority.certify(ecc_tpm.public.key, usage=False)
        assert verify(certified_item(ecc_tpm, leaf), registered(authority)).claims

    def test_an_expired_certificate_is_refused(
        self, ecc_tpm: FakeTpm, authority: FakeTpmCA
    ) -> None:
        leaf = authority.certify(ecc_tpm.public.key, until=NOW - timedelta(seconds=1))
        result = verify(certified_item(ecc_tpm, leaf), registered(authority))
        assert statuses(result)["vtpm.validity"] is Status.FAIL
        assert statuses(result)["vtpm.ak.trust"] is Status.FAIL
        assert not result.authenticated

    def test_a_revoked_certificate_is_refused(
        self, ecc_tpm: FakeTpm, authority: FakeTpmCA
    ) -> None:
        leaf = authority.certify(ecc_tpm.public.key)
        trust = registered(authority, lists=authority.revocation_lists([leaf]))
        result = verify(certified_item(ecc_tpm, leaf), trust)
        assert statuses(result)["vtpm.revocation"] is Status.FAIL
        assert statuses(result)["vtpm.ak.trust"] is Status.FAIL
        assert not result.authenticated

    @pytest.mark.parametrize(
        ("required", "status"), [(True, Status.UNCHECKED), (False, Status.SKIPPED)]
    )
    def test_without_a_current_list_revocation_stays_open(
        self, ecc_tpm: FakeTpm, authority: FakeTpmCA, *, required: bool, status: Status
    ) -> None:
        leaf = authority.certify(ecc_tpm.public.key)
        old = authority.revocation_lists(at=NOW - timedelta(days=30))
        trust = replace(registered(authority, lists=old), require_revocation=required)
        result = verify(certified_item(ecc_tpm, leaf), trust)
        assert statuses(result)["vtpm.revocation"] is status
        assert result.authenticated
        assert (result.claims is None) is required

    @pytest.mark.parametrize(
        ("release", "status"), [(True, Status.FAIL), (False, Status.SKIPPED)]
    )
    def test_a_certified_key_without_its_area_is_not_enough_for_a_release(
        self, ecc_tpm: FakeTpm, authority: FakeTpmCA, *, release: bool, status: Status
    ) -> None:
        leaf = authority.certify(ecc_tpm.public.key)
        item = {**bare_item(ecc_tpm), "ak_certificates": [certificate_b64(leaf)]}
        # Tolerating a missing revocation list must not tolerate this.
        trust = replace(
            registered(authority), require_revocation=False, recorded=not release
        )
        result = verify(item, trust)
        assert statuses(result)["vtpm.ak.attributes"] is status
        assert (result.claims is None) is release
        assert result.identities[0].startswith("spki:")
        assert not any(name.startswith("ak:") for name in result.identities)

    def test_certificates_with_other_keys_are_passed_over(
        self, ecc_tpm: FakeTpm, authority: FakeTpmCA
    ) -> None:
        odd = with_unknown_key(authority)
        leaf = authority.certify(ecc_tpm.public.key)
        result = verify(certified_item(ecc_tpm, odd, leaf), registered(authority))
        assert result.claims is not None


def lying_item(
    tpm: FakeTpm, attributes: ObjectAttributes, *certificates: x509.Certificate
) -> dict[str, object]:
    public = replace(tpm.public, attributes=attributes)
    item = certified_item(tpm, *certificates)
    return {**item, "ak": b64(serialize_public(public))}


class TestWhatACertificateProves:
    """It authenticates the key; the TPM2B_PUBLIC around it is the host's word."""

    def test_the_quote_of_a_certified_key_proves_its_name(
        self, ecc_tpm: FakeTpm, authority: FakeTpmCA
    ) -> None:
        item = certified_item(ecc_tpm, authority.certify(ecc_tpm.public.key))
        result = verify(item, registered(authority))
        assert result.claims is not None
        assert result.claims.values["vtpm.ak.name"] == ecc_tpm.ak_name.hex()
        assert result.identities[0] == f"ak:{ecc_tpm.ak_name.hex()}"

    def test_a_changed_area_gives_the_key_no_other_name(
        self, ecc_tpm: FakeTpm, authority: FakeTpmCA
    ) -> None:
        leaf = authority.certify(ecc_tpm.public.key)
        item = lying_item(ecc_tpm, AK_ATTRIBUTES | ObjectAttributes.NO_DA, leaf)
        result = verify(item, registered(authority))
        assert result.claims is not None
        assert "vtpm.ak.name" not in result.claims.values
        spki = hashlib.sha256(ecc_tpm.ak_spki).hexdigest()
        signer = ecc_tpm.qualified_name.hex()
        assert result.identities == (f"spki:{spki}", f"qn:{signer}")

    def test_the_name_of_a_child_key_is_not_proven(
        self, ecc_tpm: FakeTpm, authority: FakeTpmCA
    ) -> None:
        tpm = FakeTpm()
        tpm.parent_name = ecc_tpm.ak_name
        item = certified_item(tpm, authority.certify(tpm.public.key))
        result = verify(item, registered(authority))
        assert result.claims is not None
        assert "vtpm.ak.name" not in result.claims.values

    @pytest.mark.parametrize(
        ("recorded", "status"), [(False, Status.FAIL), (True, Status.SKIPPED)]
    )
    def test_without_the_usage_the_attributes_are_the_hosts_word(
        self, authority: FakeTpmCA, *, recorded: bool, status: Status
    ) -> None:
        soft = FakeTpm(attributes=AK_ATTRIBUTES & ~ObjectAttributes.RESTRICTED)
        leaf = authority.certify(soft.public.key, attestation=False)
        trust = replace(registered(authority), recorded=recorded)
        result = verify(lying_item(soft, AK_ATTRIBUTES, leaf), trust)
        assert statuses(result)["vtpm.ak.trust"] is Status.PASS
        assert statuses(result)["vtpm.ak.attributes"] is status
        assert (result.claims is None) is not recorded
        assert not any(name.startswith("ak:") for name in result.identities)

    def test_an_enrolment_by_another_tenant_proves_it_there_only(
        self, authority: FakeTpmCA
    ) -> None:
        soft = FakeTpm(attributes=AK_ATTRIBUTES & ~ObjectAttributes.RESTRICTED)
        leaf = authority.certify(soft.public.key, attestation=False)
        soft.public = replace(soft.public, attributes=AK_ATTRIBUTES)
        trust = replace(
            registered(authority),
            enrolled_keys={soft.ak_name: (key_of(soft, "beta"),)},
        )
        claims = verify(certified_item(soft, leaf), trust).claims
        assert claims is not None
        assert claims.trusted_in == frozenset({"beta"})
        assert set(claims.scoped) == {"beta"}

    def test_the_tenant_that_enrolled_it_knows_the_name_another_one_does_not(
        self, ecc_tpm: FakeTpm, authority: FakeTpmCA
    ) -> None:
        tpm = FakeTpm()
        tpm.parent_name = ecc_tpm.ak_name
        trust = replace(
            registered(authority), enrolled_keys={tpm.ak_name: (key_of(tpm, "beta"),)}
        )
        leaf = authority.certify(tpm.public.key)
        claims = verify(certified_item(tpm, leaf), trust).claims
        assert claims is not None
        assert "vtpm.ak.name" not in claims.values
        assert claims.scoped == {
            "acme": {"vtpm.ak.ca": "hosts-ca"},
            "beta": {"vtpm.ak.group": "hosts", "vtpm.ak.name": tpm.ak_name.hex()},
        }

    def test_a_pinned_makers_word_is_good_for_a_tenants_ca(
        self, ecc_tpm: FakeTpm, authority: FakeTpmCA
    ) -> None:
        pins = dict.fromkeys(authority.pins, "Google EK/AK CA Root")
        leaf = authority.certify(ecc_tpm.public.key, attestation=False)
        trust = registered(authority)
        known = (authority.intermediate, authority.root)
        lists = trust.collateral.revocation_lists()
        trust = replace(
            trust, pinned_roots=pins, collateral=GivenCollateral(known, lists)
        )
        result = verify(certified_item(ecc_tpm, leaf), trust)
        assert statuses(result)["vtpm.ak.attributes"] is Status.PASS
        assert result.claims is not None
        assert result.claims.scoped["acme"] == {"vtpm.ak.ca": "hosts-ca"}

    def test_a_maker_of_aks_only_counts_for_signing_keys_only(
        self, ecc_tpm: FakeTpm, authority: FakeTpmCA
    ) -> None:
        pins = dict.fromkeys(authority.pins, "Google EK/AK CA Root")
        leaf = authority.certify(ecc_tpm.public.key, usage=False, attestation=False)
        known = (authority.intermediate, authority.root)
        collateral = GivenCollateral(known, authority.revocation_lists())
        trust = Trust(now=NOW, pinned_roots=pins, collateral=collateral)
        result = verify(certified_item(ecc_tpm, leaf), trust)
        assert statuses(result)["vtpm.ak.attributes"] is Status.FAIL

    def test_an_area_that_cannot_be_the_keys_does_not_harm_those_with_the_right_one(
        self, ecc_tpm: FakeTpm
    ) -> None:
        wrong = copy(ecc_tpm)
        wrong.public = replace(ecc_tpm.public, attributes=ObjectAttributes.SIGN)
        other = copy(ecc_tpm)
        other.public = replace(
            ecc_tpm.public, attributes=AK_ATTRIBUTES | ObjectAttributes.NO_DA
        )
        trust = trusting(key_of(wrong, "rival"), key_of(other, "beta"), key_of(ecc_tpm))
        claims = verify(bare_item(ecc_tpm), trust).claims
        assert claims is not None
        assert claims.trusted_in == frozenset({"acme", "beta"})
        assert claims.scoped["acme"]["vtpm.ak.name"] == ecc_tpm.ak_name.hex()
        assert claims.scoped["beta"]["vtpm.ak.name"] == other.ak_name.hex()


class TestTenantsApart:
    """No tenant's CA, certificate or list stops what another tenant trusts."""

    @pytest.fixture
    def rival(self) -> FakeTpmCA:
        return FakeTpmCA("Rival")

    def both(
        self,
        authority: FakeTpmCA,
        rival: FakeTpmCA,
        *lists: x509.CertificateRevocationList,
        more: tuple[x509.Certificate, ...] = (),
    ) -> Trust:
        trust = registered(authority, lists=lists)
        ca = TrustedCA(tenant="beta", name="x", purpose="ak", certificate=rival.root)
        certificates = (rival.cross(authority), *more, authority.intermediate)
        return replace(
            trust,
            cas=(ca, *trust.cas),
            collateral=GivenCollateral(certificates, lists),
        )

    def test_a_cross_certificate_without_lists_stops_nobody(
        self, ecc_tpm: FakeTpm, authority: FakeTpmCA, rival: FakeTpmCA
    ) -> None:
        item = certified_item(ecc_tpm, authority.certify(ecc_tpm.public.key))
        trust = self.both(authority, rival, *authority.revocation_lists())
        result = verify(item, trust)
        assert statuses(result)["vtpm.revocation"] is Status.PASS
        assert result.claims is not None
        assert result.claims.trusted_in == frozenset({"acme"})

    def test_a_cross_certificate_that_its_maker_revokes_stops_nobody(
        self, ecc_tpm: FakeTpm, authority: FakeTpmCA, rival: FakeTpmCA
    ) -> None:
        item = certified_item(ecc_tpm, authority.certify(ecc_tpm.public.key))
        trust = self.both(authority, rival, *authority.revocation_lists())
        cross = trust.collateral.certificates()[0]
        lists = (*trust.collateral.revocation_lists(), rival.root_list([cross]))
        collateral = GivenCollateral(trust.collateral.certificates(), lists)
        result = verify(item, replace(trust, collateral=collateral))
        assert statuses(result)["vtpm.revocation"] is Status.PASS
        assert result.claims is not None
        assert result.claims.trusted_in == frozenset({"acme"})

    def test_with_all_lists_both_count(
        self, ecc_tpm: FakeTpm, authority: FakeTpmCA, rival: FakeTpmCA
    ) -> None:
        item = certified_item(ecc_tpm, authority.certify(ecc_tpm.public.key))
        lists = (*authority.revocation_lists(), *rival.revocation_lists())
        claims = verify(item, self.both(authority, rival, *lists)).claims
        assert claims is not None
        assert claims.trusted_in == frozenset({"acme", "beta"})

    def test_a_certificate_of_the_same_key_by_another_ca_hides_none(
        self, ecc_tpm: FakeTpm, authority: FakeTpmCA, rival: FakeTpmCA
    ) -> None:
        mine = authority.certify(ecc_tpm.public.key)
        planted = rival.certify(ecc_tpm.public.key)
        more = (planted, rival.intermediate, mine)
        trust = self.both(authority, rival, *authority.revocation_lists(), more=more)
        result = verify(ecc_tpm.quote_item(BOUND), trust)
        assert result.claims is not None
        assert result.claims.trusted_in == frozenset({"acme"})

    def test_an_enrolment_stands_whatever_becomes_of_anothers_anchor(
        self, ecc_tpm: FakeTpm, authority: FakeTpmCA, rival: FakeTpmCA
    ) -> None:
        trust = replace(
            self.both(authority, rival),
            cas=(
                TrustedCA(
                    tenant="beta", name="x", purpose="ak", certificate=rival.root
                ),
            ),
            enrolled_keys={ecc_tpm.ak_name: (key_of(ecc_tpm), key_of(ecc_tpm, "beta"))},
        )
        item = certified_item(ecc_tpm, authority.certify(ecc_tpm.public.key))
        result = verify(item, trust)
        assert statuses(result)["vtpm.revocation"] is Status.SKIPPED
        assert result.claims is not None
        assert result.claims.trusted_in == frozenset({"acme"})

    def test_one_who_enrolled_it_and_whose_list_is_missing_waits_for_it(
        self, ecc_tpm: FakeTpm, authority: FakeTpmCA
    ) -> None:
        trust = replace(
            registered(authority, lists=()),
            enrolled_keys={ecc_tpm.ak_name: (key_of(ecc_tpm),)},
        )
        item = certified_item(ecc_tpm, authority.certify(ecc_tpm.public.key))
        result = verify(item, trust)
        assert statuses(result)["vtpm.revocation"] is Status.UNCHECKED
        assert statuses(result)["vtpm.ak.trust"] is not Status.FAIL
        assert result.claims is None

    def test_what_a_pinned_maker_revoked_is_enrolled_nowhere(
        self, ecc_tpm: FakeTpm, authority: FakeTpmCA
    ) -> None:
        leaf = authority.certify(ecc_tpm.public.key)
        known = (authority.intermediate, authority.root)
        collateral = GivenCollateral(known, authority.revocation_lists([leaf]))
        trust = Trust(
            now=NOW,
            pinned_roots=authority.pins,
            collateral=collateral,
            enrolled_keys={ecc_tpm.ak_name: (key_of(ecc_tpm),)},
        )
        result = verify(certified_item(ecc_tpm, leaf), trust)
        assert statuses(result)["vtpm.revocation"] is Status.FAIL
        assert statuses(result)["vtpm.ak.trust"] is Status.FAIL
        assert result.claims is None

    def test_an_expired_certificate_of_a_ca_does_not_win_over_its_successor(
        self, ecc_tpm: FakeTpm, authority: FakeTpmCA
    ) -> None:
        old = authority.renewed(until=NOW - timedelta(days=1))
        trust = registered(authority)
        lists = trust.collateral.revocation_lists()
        known = GivenCollateral((old, authority.intermediate), lists)
        item = certified_item(ecc_tpm, authority.certify(ecc_tpm.public.key))
        result = verify(item, replace(trust, collateral=known))
        assert statuses(result)["vtpm.validity"] is Status.PASS
        assert result.claims is not None

    def test_one_late_and_one_revoked_path_leave_nothing(
        self, ecc_tpm: FakeTpm, authority: FakeTpmCA, rival: FakeTpmCA
    ) -> None:
        leaf = authority.certify(ecc_tpm.public.key)
        late = rival.certify(ecc_tpm.public.key, until=NOW - timedelta(seconds=1))
        trust = self.both(
            authority,
            rival,
            *authority.revocation_lists([leaf]),
            *rival.revocation_lists(),
            more=(rival.intermediate,),
        )
        cross_free = GivenCollateral(
            (rival.intermediate, authority.intermediate),
            trust.collateral.revocation_lists(),
        )
        item = certified_item(ecc_tpm, late, leaf)
        result = verify(item, replace(trust, collateral=cross_free))
        assert statuses(result)["vtpm.validity"] is Status.PASS
        assert statuses(result)["vtpm.revocation"] is Status.FAIL
        assert statuses(result)["vtpm.ak.trust"] is Status.FAIL


class TestVouchedFor:
    @pytest.mark.parametrize("form", ["area", "spki"])
    def test_the_caller_can_name_the_key_for_once(
        self, ecc_tpm: FakeTpm, form: str
    ) -> None:
        named = ecc_tpm.ak_public if form == "area" else ecc_tpm.ak_spki
        trust = Trust(now=NOW, override_ak=named, recorded=True)
        result = verify(ecc_tpm.quote_item(BOUND), trust)
        assert statuses(result)["vtpm.ak.trust"] is Status.SKIPPED
        # Who names the key alone has said nothing of the area beside the quote.
        proven = form == "area"
        assert statuses(result)["vtpm.ak.attributes"] is (
            Status.PASS if proven else Status.SKIPPED
        )
        assert (f"ak:{ecc_tpm.ak_name.hex()}" in result.identities) is proven
        assert result.claims is not None
        assert result.claims.trusted_in is None
        assert result.claims.scoped == {}

    def test_the_named_area_tells_the_attributes_of_a_bare_key(
        self, ecc_tpm: FakeTpm
    ) -> None:
        trust = Trust(now=NOW, override_ak=ecc_tpm.ak_public)
        result = verify(bare_item(ecc_tpm), trust)
        assert statuses(result)["vtpm.ak.attributes"] is Status.PASS

    def test_a_bare_key_named_by_key_alone_has_unknown_attributes(
        self, ecc_tpm: FakeTpm
    ) -> None:
        trust = Trust(
            now=NOW,
            override_ak=ecc_tpm.ak_spki,
            require_revocation=False,
            recorded=True,
        )
        result = verify(bare_item(ecc_tpm), trust)
        assert statuses(result)["vtpm.ak.attributes"] is Status.SKIPPED
        assert result.claims is not None
        assert "vtpm.ak.name" not in result.claims.values

    @pytest.mark.parametrize("form", ["other key", "other area", "garbage"])
    def test_another_key_is_not_meant(self, ecc_tpm: FakeTpm, form: str) -> None:
        changed = replace(ecc_tpm.public, attributes=ObjectAttributes.SIGN)
        named = {
            "other key": FakeTpm().ak_spki,
            "other area": serialize_public(changed),
            "garbage": b"garbage",
        }[form]
        result = verify(ecc_tpm.quote_item(BOUND), Trust(now=NOW, override_ak=named))
        assert statuses(result)["vtpm.ak.trust"] is Status.FAIL


def test_a_fake_ca_signs_what_it_says() -> None:
    """The tests above mean something only if the fake's chain is a real one."""
    authority = FakeTpmCA()
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    leaf = authority.certify(key)
    leaf.verify_directly_issued_by(authority.intermediate)
    authority.intermediate.verify_directly_issued_by(authority.root)
    assert leaf.fingerprint(hashes.SHA256())
