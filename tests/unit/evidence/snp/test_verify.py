"""One report that verifies, and a table of single changes with the check each fails."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509

from kbs.broker.vendors.amd import chain_source, source_of_certificate
from kbs.core.checks import Verdict, verdict
from kbs.core.claims import ClaimType, Vocabulary, nest
from kbs.core.encode import b64
from kbs.core.errors import MalformedError
from kbs.evidence.model import GivenCollateral, ItemResult, ParsedItem, Trust, Verifier
from kbs.evidence.snp.checks import NO_LEAF
from kbs.evidence.snp.claims import SNP_CLAIMS
from kbs.evidence.snp.verify import SnpVerifier
from kbs.pki.cache import LinkCache
from kbs.pki.certificates import der
from tests.fakes.amd import NOW, VCEK, VLEK, FakeAmd, item, pem, sign_report

MILAN = FakeAmd()
GENOA = FakeAmd(product="Genoa")
TURIN = FakeAmd(product="Turin")
OTHER = FakeAmd(realm="other")
BINDING = bytes(range(48))
ALL = (
    "snp.report.signature",
    "snp.chain",
    "snp.validity",
    "snp.revocation",
    "snp.signing_key",
    "snp.product",
    "snp.tcb",
    "snp.chip_id",
)
DAY = timedelta(days=1)


def trust(amd: FakeAmd = MILAN, **changes: Any) -> Trust:
    return replace(Trust(now=NOW, pinned_roots=amd.pins()), **changes)


def verify(
    document: Mapping[str, object], given: Trust | None = None, index: int = 0
) -> ItemResult:
    verifier: Verifier = SnpVerifier()
    return verifier.verify(verifier.parse(document, index), given or trust())


def statuses(result: ItemResult) -> dict[str, str]:
    assert [check.id for check in result.checks] == list(ALL)
    return {check.id: check.status.value for check in result.checks}


def assert_statuses(result: ItemResult, **unusual: str) -> None:
    """Every check passes but those named (`chip_id="skipped"`)."""
    wanted = dict.fromkeys(ALL, "pass")
    wanted |= {f"snp.{name.replace('__', '.')}": word for name, word in unusual.items()}
    assert statuses(result) == wanted


@pytest.mark.parametrize("amd", [MILAN, GENOA, TURIN])
@pytest.mark.parametrize("version", [2, 3, 5])
@pytest.mark.parametrize("vlek", [False, True])
def test_good_reports_verify(amd: FakeAmd, version: int, vlek: bool) -> None:  # noqa: FBT001
    document = amd.bundle_item(BINDING, version=version, vlek=vlek)
    result = verify(document, trust(amd), index=3)
    assert_statuses(result, chip_id="skipped" if vlek else "pass")
    assert {check.item for check in result.checks} == {3}
    assert verdict(result.checks) is Verdict.VERIFIED
    assert result.authenticated
    claims = result.claims
    assert claims is not None
    assert (claims.family, claims.item, claims.trusted_in) == ("snp", 3, None)
    assert claims.values["snp.product"] == amd.product
    assert claims.values["snp.signing_key"] == ("VLEK" if vlek else "VCEK")
    assert claims.values["snp.reported_tcb"] == amd.tcb
    assert claims.values.get("snp.csp_id") == ("CN=cloud.example" if vlek else None)
    chips = [name for name in result.identities if name.startswith("chip:")]
    assert chips == ([] if vlek else [f"chip:{amd.chip_id.hex()}"])
    assert len([n for n in result.identities if n.startswith("spki:")]) == 1


def of_leaf(leaf: x509.Certificate, **fields: int | bytes) -> dict[str, object]:
    body = MILAN.report_body(fields, version=3, signing_key=VCEK)
    report = sign_report(body, MILAN.key())
    return item(report, leaf, MILAN.ask, MILAN.ark, crl=MILAN.crl())


def tampered(offset: int) -> dict[str, object]:
    raw = bytearray(MILAN.report())
    raw[offset] ^= 1
    return item(bytes(raw), MILAN.vcek(), MILAN.ask, MILAN.ark, crl=MILAN.crl())


def tcb(**changes: int) -> dict[str, int]:
    return {**MILAN.tcb, **changes}


@dataclass(frozen=True)
class Change:
    """A single change, and every check that does not pass because of it."""

    document: Callable[[], dict[str, object]]
    unusual: dict[str, str]
    trust: Trust = field(default_factory=trust)
    verdict: Verdict = Verdict.REFUSED
    authenticated: bool = True


UNSIGNED = {"report__signature": "fail"}
NO_CHAIN = {"validity": "unchecked", "revocation": "unchecked", "product": "unchecked"}

CHANGES: dict[str, Change] = {
    "measurement changed after signing": Change(
        lambda: tampered(0x90), UNSIGNED, authenticated=False
    ),
    "report data changed after signing": Change(
        lambda: tampered(0x50), UNSIGNED, authenticated=False
    ),
    "signature changed": Change(lambda: tampered(0x2A0), UNSIGNED, authenticated=False),
    "signed by another chip": Change(
        lambda: item(
            MILAN.report(sign_with=FakeAmd(chip="chip-2").key()),
            MILAN.vcek(),
            MILAN.ask,
            MILAN.ark,
            crl=MILAN.crl(),
        ),
        UNSIGNED,
        authenticated=False,
    ),
    "certificate of another chip": Change(
        lambda: of_leaf(FakeAmd(chip="chip-2").vcek()),
        UNSIGNED | {"chip_id": "fail"},
        authenticated=False,
    ),
    "report that says it is not signed": Change(
        lambda: of_leaf(MILAN.vcek(), key_info=7 << 2),
        UNSIGNED | {"signing_key": "fail"},
        authenticated=False,
    ),
    "all of another vendor": Change(
        lambda: OTHER.bundle_item(BINDING),
        {"chain": "fail", **NO_CHAIN},
        authenticated=False,
    ),
    "leaf signed by another vendor under the right name": Change(
        lambda: item(
            OTHER.report(), OTHER.vcek(), MILAN.ask, MILAN.ark, crl=MILAN.crl()
        ),
        {"chain": "fail", **NO_CHAIN},
        authenticated=False,
    ),
    "leaf signed by the root itself": Change(
        lambda: of_leaf(MILAN.vcek(signer="ark")),
        {"chain": "fail", **NO_CHAIN},
        authenticated=False,
    ),
    "leaf with an unknown critical extension": Change(
        lambda: of_leaf(MILAN.vcek(critical="1.3.6.1.4.1.3704.1.2")),
        {"chain": "fail", **NO_CHAIN},
        authenticated=False,
    ),
    "leaf expired": Change(
        lambda: of_leaf(MILAN.vcek(not_after=NOW - DAY)), {"validity": "fail"}
    ),
    "leaf not yet valid": Change(
        lambda: of_leaf(MILAN.vcek(not_before=NOW + DAY)), {"validity": "fail"}
    ),
    "leaf expired and no issuer to hand": Change(
        lambda: item(MILAN.report(), MILAN.vcek(not_after=NOW - DAY)),
        {"chain": "unchecked", **NO_CHAIN, "validity": "fail"},
        authenticated=False,
    ),
    "issuer expired": Change(
        lambda: item(
            MILAN.report(),
            MILAN.vcek(),
            MILAN.authority("SEV-Milan", "ask", 0x10001, not_after=NOW - DAY),
            MILAN.ark,
            crl=MILAN.crl(),
        ),
        {"validity": "fail"},
    ),
    "issuer revoked": Change(
        lambda: item(
            MILAN.report(),
            MILAN.vcek(),
            MILAN.ask,
            MILAN.ark,
            crl=MILAN.crl(revoked=(0x10001,)),
        ),
        {"revocation": "fail"},
    ),
    "leaf revoked": Change(
        lambda: item(
            MILAN.report(),
            MILAN.vcek(serial=0x99),
            MILAN.ask,
            MILAN.ark,
            crl=MILAN.crl(revoked=(0x99,)),
        ),
        {"revocation": "fail"},
    ),
    "issuer revoked in a list that ran out": Change(
        lambda: item(
            MILAN.report(),
            MILAN.vcek(),
            MILAN.ask,
            MILAN.ark,
            crl=MILAN.crl(revoked=(0x10001,), next_update=NOW - DAY),
        ),
        {"revocation": "fail"},
    ),
    "issuer revoked in the newer list of the collateral": Change(
        lambda: MILAN.bundle_item(BINDING),
        {"revocation": "fail"},
        trust=trust(
            collateral=GivenCollateral((), (MILAN.crl(number=8, revoked=(0x10001,)),))
        ),
    ),
    "issuer revoked in the newer list of the evidence": Change(
        lambda: item(
            MILAN.report(),
            MILAN.vcek(),
            MILAN.ask,
            MILAN.ark,
            crl=MILAN.crl(number=8, revoked=(0x10001,)),
        ),
        {"revocation": "fail"},
        trust=trust(collateral=MILAN.collateral()),
    ),
    "report names a VLEK, certificate is a VCEK": Change(
        lambda: of_leaf(MILAN.vcek(), key_info=1 << 2), {"signing_key": "fail"}
    ),
    "report names a VCEK, certificate is a VLEK": Change(
        lambda: item(
            MILAN.report(sign_with=MILAN.key(VLEK)),
            MILAN.vlek(),
            MILAN.asvk,
            MILAN.ark,
            crl=MILAN.crl(),
        ),
        {"signing_key": "fail", "chip_id": "skipped"},
    ),
    "certificate called otherwise than its kind": Change(
        lambda: of_leaf(MILAN.vcek(common_name="SEV-VLEK")), {"signing_key": "fail"}
    ),
    "report of another product line": Change(
        lambda: of_leaf(MILAN.vcek(), cpuid=b"\x19\x11\x01"), {"product": "fail"}
    ),
    "report of an unknown product": Change(
        lambda: of_leaf(MILAN.vcek(), cpuid=b"\x19\x50\x01"), {"product": "fail"}
    ),
    "certificate of another product line": Change(
        lambda: of_leaf(
            MILAN.leaf(
                VCEK,
                MILAN.extensions(product_name="Genoa")
                | {"1.3.6.1.4.1.3704.1.4": MILAN.hwid},
            )
        ),
        {"product": "fail"},
    ),
    "certificate of an unknown product and no issuer": Change(
        lambda: item(
            MILAN.report(version=2),
            MILAN.leaf(
                VCEK,
                MILAN.extensions(product_name="Rome")
                | {"1.3.6.1.4.1.3704.1.4": MILAN.hwid},
            ),
        ),
        {"chain": "unchecked", **NO_CHAIN, "product": "fail", "tcb": "unchecked"},
        authenticated=False,
    ),
    "root of an unknown product line": Change(
        lambda: MILAN.bundle_item(BINDING),
        {"product": "fail", "tcb": "unchecked"},
        trust=trust(pinned_roots=dict.fromkeys(MILAN.pins(), "AMD ARK Rome")),
    ),
    "root that is pinned for another purpose": Change(
        lambda: MILAN.bundle_item(BINDING),
        {"chain": "fail", **NO_CHAIN},
        trust=trust(pinned_roots=dict.fromkeys(MILAN.pins(), "Some TPM root")),
        authenticated=False,
    ),
    "microcode of the certificate lower": Change(
        lambda: of_leaf(MILAN.vcek(tcb(microcode=218))), {"tcb": "fail"}
    ),
    "microcode of the certificate higher": Change(
        lambda: of_leaf(MILAN.vcek(tcb(microcode=220))), {"tcb": "fail"}
    ),
    "bootloader otherwise": Change(
        lambda: of_leaf(MILAN.vcek(tcb(bootloader=9))), {"tcb": "fail"}
    ),
    "TEE otherwise": Change(lambda: of_leaf(MILAN.vcek(tcb(tee=9))), {"tcb": "fail"}),
    "SNP otherwise": Change(lambda: of_leaf(MILAN.vcek(tcb(snp=9))), {"tcb": "fail"}),
    "certificate with an FMC that Milan lacks": Change(
        lambda: of_leaf(MILAN.vcek(tcb(fmc=0))), {"tcb": "fail"}
    ),
    "VLEK at another TCB": Change(
        lambda: item(
            MILAN.report(signing_key=VLEK),
            MILAN.vlek(tcb(snp=9)),
            MILAN.asvk,
            MILAN.ark,
            crl=MILAN.crl(),
        ),
        {"tcb": "fail", "chip_id": "skipped"},
    ),
    "reserved TCB byte in a report of version 2": Change(
        lambda: item(
            MILAN.report(version=2, current_tcb=b"\4\0\1\0\0\0\x18\xdb"),
            MILAN.vcek(),
            MILAN.ask,
            MILAN.ark,
            crl=MILAN.crl(),
        ),
        {"tcb": "fail"},
    ),
    "chip id otherwise": Change(
        lambda: of_leaf(MILAN.vcek(), chip_id=b"\x01" * 64), {"chip_id": "fail"}
    ),
    "hardware id otherwise": Change(
        lambda: of_leaf(MILAN.vcek(hwid=b"\x01" * 64)), {"chip_id": "fail"}
    ),
    "Turin chip id with bytes after the eighth": Change(
        lambda: item(
            TURIN.report(chip_id=TURIN.hwid + b"\0\1"),
            TURIN.vcek(),
            TURIN.ask,
            TURIN.ark,
            crl=TURIN.crl(),
        ),
        {"chip_id": "fail"},
        trust=trust(TURIN),
    ),
    "chip id masked": Change(
        lambda: of_leaf(MILAN.vcek(), chip_id=b""),
        {"chip_id": "skipped"},
        verdict=Verdict.VERIFIED,
    ),
    "no certificate": Change(
        lambda: item(MILAN.report()),
        {name.removeprefix("snp.").replace(".", "__"): "unchecked" for name in ALL},
        verdict=Verdict.UNCHECKED,
        authenticated=False,
    ),
    "no issuer": Change(
        lambda: item(MILAN.report(), MILAN.vcek(), crl=MILAN.crl()),
        {"chain": "unchecked", **NO_CHAIN},
        verdict=Verdict.UNCHECKED,
        authenticated=False,
    ),
    "no root": Change(
        lambda: item(MILAN.report(), MILAN.vcek(), MILAN.ask, crl=MILAN.crl()),
        {"chain": "unchecked", **NO_CHAIN},
        verdict=Verdict.UNCHECKED,
        authenticated=False,
    ),
    "no revocation list": Change(
        lambda: MILAN.bundle_item(BINDING, crl=False),
        {"revocation": "unchecked"},
        verdict=Verdict.UNCHECKED,
    ),
    "no revocation list, for recorded evidence": Change(
        lambda: MILAN.bundle_item(BINDING, crl=False),
        {"revocation": "skipped"},
        trust=trust(require_revocation=False),
        verdict=Verdict.VERIFIED,
    ),
    "revocation list run out": Change(
        lambda: item(
            MILAN.report(),
            MILAN.vcek(),
            MILAN.ask,
            MILAN.ark,
            crl=MILAN.crl(next_update=NOW - DAY),
        ),
        {"revocation": "unchecked"},
        verdict=Verdict.UNCHECKED,
    ),
    "revocation list of another vendor": Change(
        lambda: item(
            MILAN.report(), MILAN.vcek(), MILAN.ask, MILAN.ark, crl=OTHER.crl()
        ),
        {"revocation": "unchecked"},
        verdict=Verdict.UNCHECKED,
    ),
}


@pytest.mark.parametrize("case", CHANGES)
def test_a_single_change_gives_its_checks(case: str) -> None:
    change = CHANGES[case]
    result = verify(change.document(), change.trust)
    assert_statuses(result, **change.unusual)
    assert verdict(result.checks) is change.verdict
    assert result.authenticated is change.authenticated
    assert (result.claims is not None) == (change.verdict is Verdict.VERIFIED)


def test_an_old_list_beside_the_evidence_hides_no_revocation() -> None:
    document = MILAN.bundle_item(BINDING)
    newer = MILAN.crl(number=8, revoked=(0x10001,))
    given = trust(collateral=GivenCollateral((), (newer,)))
    assert_statuses(verify(document, given), revocation="fail")


def test_issuers_and_lists_come_from_the_collateral() -> None:
    document = MILAN.bundle_item(BINDING, chain=False, crl=False)
    assert_statuses(verify(document, trust(collateral=MILAN.collateral())))


def known(*leaves: x509.Certificate) -> Trust:
    collateral = MILAN.collateral()
    return trust(
        collateral=replace(
            collateral,
            given_certificates=(*leaves, *collateral.given_certificates),
        )
    )


def test_the_leaf_comes_from_the_collateral_by_chip_and_tcb() -> None:
    bad = MILAN.leaf(VCEK, {"1.3.6.1.4.1.3704.1.1": b"\x02"})
    others = (
        bad,
        FakeAmd(chip="chip-2").vcek(),
        MILAN.vcek(tcb(snp=23)),
        GENOA.vcek(),
        MILAN.vlek(),
    )
    document = item(MILAN.report())
    assert_statuses(verify(document, known(*others, MILAN.vcek())))
    result = verify(document, known(*others))
    assert set(statuses(result).values()) == {"unchecked"}


@pytest.mark.parametrize(
    "report",
    [MILAN.report(chip_id=b""), MILAN.report(signing_key=VLEK)],
    ids=["masked", "VLEK"],
)
def test_a_leaf_that_no_chip_id_names_must_come_along(report: bytes) -> None:
    result = verify(item(report), known(MILAN.vcek(), MILAN.vlek()))
    assert set(statuses(result).values()) == {"unchecked"}


def chain_detail(document: Mapping[str, object], given: Trust | None = None) -> str:
    (check,) = [one for one in verify(document, given).checks if one.id == "snp.chain"]
    assert check.status.value == "unchecked"
    return check.detail


@pytest.mark.parametrize("amd", [MILAN, GENOA, TURIN])
def test_a_leaf_that_is_not_to_hand_is_named_for_fetching(amd: FakeAmd) -> None:
    source = source_of_certificate(amd.vcek())
    assert source is not None
    assert chain_detail(item(amd.report())).endswith(f"; fetch {source.url}")


def test_an_older_report_does_not_say_which_line_to_ask() -> None:
    for amd in (MILAN, GENOA):
        detail = chain_detail(item(amd.report(version=2)))
        assert f"/vcek/v1/Milan/{amd.chip_id.hex()}?blSPL=" in detail
        assert detail.endswith("(or Genoa's: the report does not say)")


def test_what_amd_publishes_nowhere_is_not_named_for_fetching() -> None:
    assert "the host has it" in chain_detail(item(MILAN.report(signing_key=VLEK)))
    assert "the host knows it" in chain_detail(item(MILAN.report(chip_id=b"")))
    unknown = chain_detail(item(MILAN.report(cpuid=b"\x1b\0\0")))
    unread = chain_detail(item(MILAN.report(version=2, reported_tcb=b"\xff" * 8)))
    assert {unknown, unread} == {NO_LEAF}


@pytest.mark.parametrize("vlek", [False, True])
def test_issuers_that_are_not_to_hand_are_named_for_fetching(vlek: bool) -> None:  # noqa: FBT001
    document = GENOA.bundle_item(BINDING, vlek=vlek, chain=False)
    source = chain_source("Genoa", "vlek" if vlek else "vcek")
    assert chain_detail(document, trust(GENOA)).endswith(f"; fetch {source.url}")


def test_leaf_of_an_unknown_product_in_the_collateral_is_passed_over() -> None:
    rome = MILAN.leaf(
        VCEK,
        MILAN.extensions(product_name="Rome") | {"1.3.6.1.4.1.3704.1.4": MILAN.hwid},
    )
    result = verify(item(MILAN.report(version=2)), known(rome))
    assert set(statuses(result).values()) == {"unchecked"}


def test_the_leaf_of_the_kind_named_is_taken_when_both_came() -> None:
    vcek = MILAN.vcek()
    for kind in (VCEK, VLEK):
        document = item(
            MILAN.report(signing_key=kind),
            MILAN.asvk,
            MILAN.vlek(),
            MILAN.ark,
            vcek,
            MILAN.ask,
            vcek,  # twice the same certificate is one certificate
            crl=MILAN.crl(),
        )
        expected = "skipped" if kind == VLEK else "pass"
        assert_statuses(verify(document), chip_id=expected)


def test_a_masked_chip_is_still_known_by_its_certificate() -> None:
    result = verify(of_leaf(MILAN.vcek(), chip_id=b""))
    assert f"chip:{MILAN.chip_id.hex()}" in result.identities
    assert result.claims is not None
    assert result.claims.values["snp.chip_id"] == "00" * 64
    assert result.claims.values["snp.chip_id_masked"] is True


def test_a_report_without_leaf_is_known_by_its_chip_only() -> None:
    assert verify(item(MILAN.report())).identities == (f"chip:{MILAN.chip_id.hex()}",)
    assert verify(item(MILAN.report(chip_id=b""))).identities == ()


def test_the_cache_spares_a_second_verification_its_rsa_work() -> None:
    cache = LinkCache()
    verifier = SnpVerifier(cache)
    parsed = verifier.parse(MILAN.bundle_item(BINDING), 0)
    first = verifier.verify(parsed, trust())
    # Leaf, ASK, ARK, revocation list.
    assert len(cache) == 4
    assert verifier.verify(parsed, trust()).checks == first.checks
    assert len(cache) == 4


def test_certificates_may_be_der_or_pem_with_several() -> None:
    document = MILAN.bundle_item(BINDING)
    leaf, issuers = b64(der(MILAN.vcek())), pem(MILAN.ask) + pem(MILAN.ark)
    document["certificates"] = [leaf, issuers]
    assert_statuses(verify(document))


MALFORMED: dict[str, tuple[dict[str, object], str]] = {
    "another kind": ({"kind": "tdx"}, "item kind"),
    "an unknown member": ({"nonce": ""}, "unknown member"),
    "no report": ({"report": None}, "snp report"),
    "report that is no base64": ({"report": "!"}, "base64"),
    "report with a byte more": ({"report": b64(bytes(1185))}, "1184"),
    "report that is empty": ({"report": ""}, "0 bytes"),
    "certificates that are no list": ({"certificates": "x"}, "a list"),
    "certificate that is no text": ({"certificates": [1]}, "a string"),
    "too many certificates": ({"certificates": [""] * 17}, "at most 16"),
    "too many certificates in few texts": (
        {"certificates": [pem(MILAN.ark) * 9, pem(MILAN.ask) * 9]},
        "at most 16",
    ),
    "certificate that is too long": ({"certificates": ["A" * 200_000]}, "at most"),
    "certificate that is no DER": ({"certificates": [b64(b"x")]}, "X.509"),
    "certificate that is not ASCII": ({"certificates": ["-----é"]}, "ASCII"),
    "revocation list as certificate": (
        {"certificates": [b64(der(MILAN.crl()))]},
        "X.509",
    ),
    "leaf with bad extensions": (
        {"certificates": [pem(MILAN.leaf(VCEK, {"1.3.6.1.4.1.3704.1.1": b""}))]},
        "endorsement key",
    ),
    "two leaves": (
        {"certificates": [pem(MILAN.vcek()), pem(MILAN.vcek(tcb(snp=1)))]},
        "2 VCEK certificates",
    ),
    "revocation list that is no base64": ({"crl": 1}, "base64"),
    "revocation list that is a certificate": ({"crl": b64(der(MILAN.ark))}, "CRL"),
    "revocation list that is too long": ({"crl": b64(bytes(65537))}, "at most"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_other_items_are_malformed(case: str) -> None:
    changes, message = MALFORMED[case]
    document = MILAN.bundle_item(BINDING) | changes
    with pytest.raises(MalformedError, match=message):
        SnpVerifier().parse(document, 0)


def test_parsed_item_carries_core_and_bound_field() -> None:
    parsed = SnpVerifier().parse(MILAN.bundle_item(BINDING), 5)
    assert (parsed.kind, parsed.index) == ("snp", 5)
    assert len(parsed.core) == 1184
    assert parsed.core[0x50:0x90] == parsed.bound
    assert parsed.bound == BINDING + bytes(16)


@pytest.mark.parametrize(
    ("report_data", "binding", "matches"),
    [
        (BINDING, BINDING, True),
        (BINDING + bytes(16), BINDING, True),
        (BINDING + bytes(15) + b"\1", BINDING, False),
        (BINDING + b"\1", BINDING, False),
        (b"\1" + BINDING[1:], BINDING, False),
        (BINDING[:-1] + b"\0", BINDING, False),
        (BINDING[:32], BINDING[:32], False),
        (BINDING + bytes(16), BINDING + bytes(16), False),
        (b"", b"", False),
        (bytes(16) + BINDING, BINDING, False),
    ],
)
def test_the_whole_of_report_data_is_compared(
    report_data: bytes, binding: bytes, *, matches: bool
) -> None:
    verifier = SnpVerifier()
    parsed = verifier.parse(MILAN.bundle_item(report_data), 0)
    assert verifier.bound_matches(parsed, binding) is matches


def test_items_of_another_verifier_are_a_mistake_in_the_program() -> None:
    foreign = ParsedItem(kind="vtpm", index=0, core=b"", bound=b"", body=object())
    with pytest.raises(TypeError, match="vtpm"):
        SnpVerifier().verify(foreign, trust())


def test_inspection_shows_fields_certificates_and_lists() -> None:
    verifier = SnpVerifier()
    shown: dict[str, Any] = dict(
        verifier.inspect(verifier.parse(MILAN.bundle_item(BINDING), 0))
    )
    assert shown["report_data"] == (BINDING + bytes(16)).hex()
    assert shown["reported_tcb"] == {"raw": "04000000000018db", **MILAN.tcb}
    assert [c["subject"][:11] for c in shown["certificates"]] == [
        "CN=SEV-VCEK",
        "CN=SEV-Mila",
        "CN=ARK-Mila",
    ]
    assert shown["endorsement_key"]["hwid"] == MILAN.hwid.hex()
    assert shown["revocation_lists"][0]["revoked"] == []
    vlek = verifier.parse(TURIN.bundle_item(vlek=True, version=2, crl=False), 0)
    shown = dict(verifier.inspect(vlek))
    assert shown["endorsement_key"]["csp_id"] == "CN=cloud.example"
    assert shown["reported_tcb"]["fmc"] == 1
    # Without a leaf the older layout does not fit, and only the bytes are shown.
    bare = verifier.parse(item(MILAN.report(version=2, launch_tcb=b"\0\0\1")), 0)
    shown = dict(verifier.inspect(bare))
    assert shown["launch_tcb"] == {"raw": "0000010000000000"}


CHECKED_TYPES: dict[ClaimType, type | tuple[type, ...]] = {
    ClaimType.BYTES: str,
    ClaimType.U64: str,
    ClaimType.TEXT: str,
    ClaimType.VERSION: str,
    ClaimType.BOOL: bool,
    ClaimType.INT: int,
    ClaimType.TCB: dict,
}


@pytest.mark.parametrize("amd", [MILAN, TURIN])
def test_claims_are_of_the_vocabulary_and_its_types(amd: FakeAmd) -> None:
    vocabulary = Vocabulary.of(SNP_CLAIMS)
    seen: set[str] = set()
    for vlek in (False, True):
        document = amd.bundle_item(BINDING, version=5, vlek=vlek)
        claims = verify(document, trust(amd)).claims
        assert claims is not None
        for name, value in claims.values.items():
            spec = vocabulary.find(name)
            assert spec is not None, name
            assert isinstance(value, CHECKED_TYPES[spec.type]), name
            if spec.size is not None:
                assert isinstance(value, str)
                assert len(bytes.fromhex(value)) == spec.size
            if isinstance(value, Mapping):
                assert set(value) <= set(spec.components)
        seen |= set(claims.values)
        assert nest(claims.values, "snp")
    assert seen == {spec.name for spec in SNP_CLAIMS}


# Kept word for word from the contract, section 3.
CONTRACT = """
version guest_svn measurement host_data report_data chip_id vmpl signing_key
author_key_en mask_chip_key platform_info family_id image_id id_key_digest
author_key_digest report_id report_id_ma policy.raw policy.abi_minor policy.abi_major
policy.smt_allowed policy.migrate_ma_allowed policy.debug_allowed policy.single_socket
reported_tcb current_tcb committed_tcb launch_tcb
"""


def test_vocabulary_has_the_names_of_the_contract() -> None:
    assert SnpVerifier().vocabulary is SNP_CLAIMS
    names = {spec.name for spec in SNP_CLAIMS}
    assert {f"snp.{name}" for name in CONTRACT.split()} <= names
    for which in ("reported", "current", "committed", "launch"):
        spec = Vocabulary.of(SNP_CLAIMS).find(f"snp.{which}_tcb")
        assert spec is not None
        assert set(spec.components) == {"bootloader", "tee", "snp", "microcode", "fmc"}


def test_what_is_dangerous_to_leave_open_is_marked() -> None:
    safety = {
        spec.name: (spec.safety.default, spec.safety.acceptable)
        for spec in Vocabulary.of(SNP_CLAIMS).safety("snp")
        if spec.safety is not None
    }
    assert safety == {
        "snp.policy.debug_allowed": ((False,), ()),
        "snp.policy.migrate_ma_allowed": ((False,), ()),
        "snp.vmpl": ((0,), ()),
        "snp.signing_key": (("VCEK",), ("VLEK",)),
    }
    boots = [spec.name for spec in SNP_CLAIMS if spec.boot]
    assert boots == ["snp.measurement"]
    registers = [spec.name for spec in SNP_CLAIMS if spec.register]
    assert registers == ["snp.host_data"]


def test_policy_and_platform_bits_are_claims() -> None:
    document = MILAN.bundle_item(BINDING, policy=0x3FF0102, platform_info=0xC2)
    claims = verify(document).claims
    assert claims is not None
    values = claims.values
    assert values["snp.policy.raw"] == "0000000003ff0102"
    assert values["snp.policy.abi_major"] == 1
    assert values["snp.policy.abi_minor"] == 2
    flags = {
        name: value
        for name, value in values.items()
        if name.startswith("snp.policy.") and isinstance(value, bool)
    }
    assert len(flags) == 9
    assert all(flags.values())
    assert values["snp.platform_info"] == "00000000000000c2"
    set_bits = {
        name.removeprefix("snp.platform.")
        for name, value in values.items()
        if name.startswith("snp.platform.") and value is True
    }
    assert set_bits == {"tsme_enabled", "iommu_write_safe", "tio_enabled"}
    assert values["snp.current_build"] == "1.55.29"


def test_verifier_is_of_kind_snp_and_primary() -> None:
    assert SnpVerifier().kind == "snp"
    assert SnpVerifier().primary
