"""The guest's side of a TPM, against a software TPM."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from kbs.client.measure import measure_workload
from kbs.client.tpm import LoadedKey, Quote, Tpm, open_tpm
from kbs.client.tpm_attester import (
    DEFAULT_AK_HANDLE,
    DEFAULT_SELECTION,
    TpmAttester,
    attestation_key,
    quote_consistently,
)
from kbs.client.tpm_keys import AK_TEMPLATE, EkKind
from kbs.core.checks import Status
from kbs.core.errors import (
    ConfigurationError,
    ConflictError,
    MalformedError,
    UnavailableError,
)
from kbs.evidence.model import EnrolledKey, Trust
from kbs.evidence.vtpm.abi import PcrSelection, parse_attest
from kbs.evidence.vtpm.algorithms import Algorithm
from kbs.evidence.vtpm.public import ObjectAttributes, parse_public
from tests.fakes.swtpm import SoftwareTpm, software_tpm

pytestmark = [pytest.mark.tpm, pytest.mark.enable_socket]

BINDING = bytes(range(48))
SHA256 = Algorithm.SHA256


@pytest.fixture
def software(tmp_path: Path) -> Iterator[SoftwareTpm]:
    with software_tpm(tmp_path) as running:
        yield running


@pytest.fixture
def tpm(software: SoftwareTpm) -> Iterator[Tpm]:
    with open_tpm(software.tcti) as opened:
        yield opened


def pcr(tpm: Tpm, number: int, bank: Algorithm = SHA256) -> bytes:
    return tpm.read_pcrs([PcrSelection(bank, (number,))])[bank, number]


def test_the_ak_is_made_once_and_is_the_same_key_after_a_power_cycle(
    software: SoftwareTpm,
) -> None:
    names = []
    for _ in range(2):
        with (
            open_tpm(software.tcti) as tpm,
            attestation_key(tpm, DEFAULT_AK_HANDLE) as ak,
        ):
            names.append(parse_public(ak.public).name)
        software.stop()
        software.start()
    assert names[0] == names[1]


def test_the_ak_is_a_restricted_signing_key(tpm: Tpm) -> None:
    with attestation_key(tpm, DEFAULT_AK_HANDLE) as ak:
        public = parse_public(ak.public)
    assert public.has(ObjectAttributes.RESTRICTED, ObjectAttributes.SIGN)
    assert public.has(ObjectAttributes.FIXED_TPM, ObjectAttributes.FIXED_PARENT)
    assert not public.has(ObjectAttributes.DECRYPT)


@pytest.mark.parametrize(
    "attributes",
    [
        AK_TEMPLATE.attributes & ~ObjectAttributes.RESTRICTED,
        AK_TEMPLATE.attributes
        & ~(ObjectAttributes.FIXED_TPM | ObjectAttributes.FIXED_PARENT),
    ],
    ids=["unrestricted", "can be copied"],
)
def test_a_key_that_can_be_made_to_lie_is_not_used(
    tpm: Tpm, attributes: ObjectAttributes
) -> None:
    with tpm.primary(replace(AK_TEMPLATE, attributes=attributes)) as key:
        tpm.persist(key, DEFAULT_AK_HANDLE)
    with (
        pytest.raises(ConfigurationError, match="0x81010002"),
        attestation_key(tpm, DEFAULT_AK_HANDLE),
    ):
        pass


def test_a_persistent_ek_is_not_taken_for_the_ak(tpm: Tpm) -> None:
    with tpm.primary(EkKind.ECC.template) as key:
        tpm.persist(key, DEFAULT_AK_HANDLE)
    with (
        pytest.raises(ConfigurationError, match="restricted signing key"),
        attestation_key(tpm, DEFAULT_AK_HANDLE),
    ):
        pass


def test_evidence_verifies_and_carries_the_binding(software: SoftwareTpm) -> None:
    from kbs.evidence.vtpm.verify import VtpmVerifier

    collected = TpmAttester(tcti=software.tcti).collect(BINDING)
    parsed = VtpmVerifier().parse(collected.item, 0)
    assert parsed.core == collected.core
    assert parsed.bound == BINDING[:32]
    assert VtpmVerifier().bound_matches(parsed, BINDING)
    with (
        open_tpm(software.tcti) as tpm,
        attestation_key(tpm, DEFAULT_AK_HANDLE) as ak,
    ):
        name, public = parse_public(ak.public).name, ak.public
    enrolled = EnrolledKey(tenant="acme", group="hosts", name=name, public=public)
    from datetime import UTC, datetime

    trust = Trust(
        now=datetime(2026, 11, 22, tzinfo=UTC), enrolled_keys={name: (enrolled,)}
    )
    result = VtpmVerifier().verify(parsed, trust)
    assert [check.id for check in result.checks if check.status is Status.FAIL] == []
    assert result.authenticated


def test_evidence_covers_every_pcr_that_was_selected(software: SoftwareTpm) -> None:
    selection = (
        PcrSelection(SHA256, tuple(range(24))),
        PcrSelection(Algorithm.SHA384, (0, 15)),
    )
    item = TpmAttester(tcti=software.tcti, selection=selection).collect(BINDING).item
    pcrs = item["pcrs"]
    assert isinstance(pcrs, dict)
    assert [len(pcrs["sha256"]), len(pcrs["sha384"])] == [24, 2]


def test_event_log_and_certificates_go_along(
    software: SoftwareTpm, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"boot")
    attester = TpmAttester(
        tcti=software.tcti, event_log=log, ak_certificates=(b"certificate",)
    )
    item = attester.collect(BINDING).item
    assert item["event_log"] == "Ym9vdA=="
    assert item["ak_certificates"] == ["Y2VydGlmaWNhdGU="]


def test_many_quotes_leave_nothing_behind_in_the_tpm(software: SoftwareTpm) -> None:
    """Only three keys fit; the fourth would not load if one were forgotten."""
    attester = TpmAttester(tcti=software.tcti)
    for _ in range(5):
        attester.collect(BINDING)
    with open_tpm(software.tcti) as tpm:
        for _ in range(5):
            with tpm.primary(AK_TEMPLATE), tpm.primary(EkKind.ECC.template):
                pass


class _Restless(Tpm):
    """Extends a PCR behind the quote's back, a number of times."""

    def __init__(self, real: Tpm, times: int) -> None:
        super().__init__(real._context, real._library)
        self.times = times

    def quote(self, key: LoadedKey, extra_data: bytes, selections: object) -> Quote:
        if self.times > 0:
            self.times -= 1
            self.extend(15, {SHA256: bytes(32)})
        return super().quote(key, extra_data, DEFAULT_SELECTION)


def test_a_quote_is_taken_again_when_a_pcr_changed_meanwhile(tpm: Tpm) -> None:
    restless = _Restless(tpm, times=2)
    with attestation_key(tpm, DEFAULT_AK_HANDLE) as ak:
        quote, values = quote_consistently(restless, ak, b"", DEFAULT_SELECTION)
    assert restless.times == 0
    assert values[SHA256, 15] == pcr(tpm, 15)
    assert parse_attest(quote.message).selected == frozenset(values)


def test_pcrs_that_never_rest_are_reported(tpm: Tpm) -> None:
    with (
        attestation_key(tpm, DEFAULT_AK_HANDLE) as ak,
        pytest.raises(UnavailableError, match="changed"),
    ):
        quote_consistently(_Restless(tpm, times=99), ak, b"", DEFAULT_SELECTION)


def test_measuring_extends_the_policy_once_in_every_bank(tpm: Tpm) -> None:
    policy = b"the workload policy\n"
    values = measure_workload(tpm, policy)
    assert sorted(values) == ["sha1", "sha256", "sha384", "sha512"]
    for bank, value in values.items():
        digest = hashlib.new(bank, policy).digest()
        initial = bytes(len(digest))
        assert value == hashlib.new(bank, initial + digest).hexdigest()
        assert value == pcr(tpm, 15, Algorithm[bank.upper()]).hex()


def test_measuring_twice_is_refused_and_changes_nothing(tpm: Tpm) -> None:
    measure_workload(tpm, b"policy")
    before = pcr(tpm, 15)
    with pytest.raises(ConflictError) as caught:
        measure_workload(tpm, b"policy")
    assert caught.value.code == "vtpm.pcr.not_initial"
    assert pcr(tpm, 15) == before


def test_measuring_after_an_extend_in_another_bank_is_refused(tpm: Tpm) -> None:
    tpm.extend(15, {Algorithm.SHA384: bytes(48)})
    with pytest.raises(ConflictError, match="sha384:15"):
        measure_workload(tpm, b"policy")
    assert pcr(tpm, 15) == bytes(32)


@pytest.mark.parametrize("number", [-1, 16, 23, 24])
def test_a_pcr_that_software_can_reset_is_refused(tpm: Tpm, number: int) -> None:
    with pytest.raises(MalformedError, match="0 to 15"):
        measure_workload(tpm, b"policy", number)


class _Racing(Tpm):
    """Somebody else extends right after us."""

    def extend(self, pcr: int, digests: object) -> None:
        super().extend(pcr, {SHA256: bytes(32)})


def test_somebody_who_extends_at_the_same_time_is_noticed(tpm: Tpm) -> None:
    with pytest.raises(ConflictError) as caught:
        measure_workload(_Racing(tpm._context, tpm._library), b"policy")
    assert caught.value.code == "vtpm.pcr.not_initial"


class _Banks(Tpm):
    """A TPM with other banks than swtpm has."""

    def __init__(self, real: Tpm, banks: tuple[Algorithm, ...]) -> None:
        super().__init__(real._context, real._library)
        self._banks = banks

    def banks(self) -> tuple[Algorithm, ...]:
        return self._banks


@pytest.mark.parametrize("banks", [(), (SHA256, Algorithm.SM3_256)])
def test_a_bank_that_we_cannot_measure_into_is_not_left_open(
    tpm: Tpm, banks: tuple[Algorithm, ...]
) -> None:
    with pytest.raises(UnavailableError):
        measure_workload(_Banks(tpm, banks), b"policy")
    assert pcr(tpm, 15) == bytes(32)


def test_the_boot_log_of_this_machine_belongs_to_its_own_tpm(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from kbs.client import tpm_attester

    log = tmp_path / "log"
    monkeypatch.setattr(tpm_attester, "DEFAULT_EVENT_LOG", log)
    assert tpm_attester.default_event_log("device:/dev/tpmrm0") is None
    log.write_bytes(b"")
    assert tpm_attester.default_event_log("device:/dev/tpmrm0") == log
    assert tpm_attester.default_event_log("swtpm:port=1") is None


@pytest.mark.parametrize("kind", list(EkKind))
def test_the_tpm_activates_what_was_made_for_its_ek_and_ak(
    tpm: Tpm, kind: EkKind
) -> None:
    from kbs.evidence.vtpm.credential import make_credential

    with (
        attestation_key(tpm, DEFAULT_AK_HANDLE) as ak,
        tpm.primary(kind.template) as ek,
    ):
        made = make_credential(
            parse_public(ek.public), parse_public(ak.public).name, b"s" * 32
        )
        opened = tpm.activate_credential(ak, ek, made.credential_blob, made.secret)
    assert opened == b"s" * 32


def test_a_credential_for_another_ak_is_not_activated(tpm: Tpm) -> None:
    from kbs.evidence.vtpm.credential import make_credential

    with (
        attestation_key(tpm, DEFAULT_AK_HANDLE) as ak,
        tpm.primary(EkKind.ECC.template) as ek,
    ):
        made = make_credential(
            parse_public(ek.public), b"\x00\x0b" + bytes(32), b"s" * 32
        )
        with pytest.raises(UnavailableError, match="ActivateCredential"):
            tpm.activate_credential(ak, ek, made.credential_blob, made.secret)


def test_an_nv_index_is_read_whole_or_is_absent(tpm: Tpm) -> None:
    library, context = tpm._library, tpm._context
    data = bytes(range(256)) * 3
    index = 0x01C0000A
    assert tpm.nv_read(index) is None
    attributes = library.TPMA_NV.parse("ownerwrite|authread|ownerread|no_da")
    public = library.TPM2B_NV_PUBLIC(
        library.TPMS_NV_PUBLIC(
            nvIndex=index,
            nameAlg=library.TPM2_ALG.SHA256,
            attributes=attributes,
            dataSize=len(data),
        )
    )
    handle = context.nv_define_space(b"", public, library.ESYS_TR.OWNER)
    context.nv_write(handle, data[:512], 0, library.ESYS_TR.OWNER)
    context.nv_write(handle, data[512:], 512, library.ESYS_TR.OWNER)
    assert tpm.nv_read(index) == data


def test_a_handle_that_is_taken_is_an_error_with_the_commands_name(tpm: Tpm) -> None:
    with tpm.primary(AK_TEMPLATE) as key:
        tpm.persist(key, DEFAULT_AK_HANDLE)
        with pytest.raises(UnavailableError, match="TPM2_EvictControl"):
            tpm.persist(key, DEFAULT_AK_HANDLE)


def test_a_bank_that_is_not_allocated_is_named(tpm: Tpm) -> None:
    with pytest.raises(UnavailableError, match="PCR"):
        tpm.read_pcrs([PcrSelection(Algorithm.SHA3_256, (0,))])


def test_a_bank_that_gives_nothing_is_named(tpm: Tpm) -> None:
    """What a TPM answers about a bank that it knows and has not allocated."""

    class Silent:
        def pcr_read(self, selection: object) -> tuple[int, object, list[bytes]]:
            return 1, selection, []

    with pytest.raises(ConfigurationError, match="bank sha384"):
        Tpm(Silent(), tpm._library).read_pcrs([PcrSelection(Algorithm.SHA384, (0,))])


def test_no_tpm_is_said_with_what_to_do() -> None:
    with (
        pytest.raises(UnavailableError, match="--tcti"),
        open_tpm("swtpm:host=127.0.0.1,port=1"),
    ):
        pass


def test_a_tcti_that_is_none_is_said_with_what_to_do() -> None:
    with (
        pytest.raises(UnavailableError, match="--tcti"),
        open_tpm("nonsense:"),
    ):
        pass
