"""Enrolment of a software TPM with a broker that makes real credentials."""

from __future__ import annotations

import builtins
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from kbs.cli.context import main_with
from kbs.cli.guest import guest
from kbs.client.enrol import Enroller, Enrolment, without_padding
from kbs.client.retry import Patience
from kbs.client.tpm import Tpm, open_tpm
from kbs.client.tpm_attester import DEFAULT_AK_HANDLE, attestation_key
from kbs.client.tpm_keys import EkKind, ek_kind_of
from kbs.client.transport import Transport
from kbs.core.encode import b64, parse_b64
from kbs.core.errors import (
    ForbiddenError,
    KbsError,
    MalformedError,
    UnavailableError,
    VerificationError,
)
from kbs.core.ids import ScopedName
from kbs.evidence.vtpm.credential import make_credential
from kbs.evidence.vtpm.public import parse_public
from tests.fakes.guest_broker import Answered, FakeBroker, problem, serving
from tests.fakes.swtpm import SoftwareTpm, software_tpm

pytestmark = [pytest.mark.tpm, pytest.mark.enable_socket]

_NOW = datetime(2026, 11, 22, tzinfo=UTC)
GROUP = ScopedName("acme", "hosts")
ISSUER = ec.generate_private_key(ec.SECP256R1())


def certify(key: Any) -> bytes:
    """A certificate about a key, by an issuer that the fake broker does not check."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "EK CA")])
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(name)
        .public_key(key)
        .serial_number(7)
        .not_valid_before(_NOW)
        .not_valid_after(_NOW + timedelta(days=1))
        .sign(ISSUER, hashes.SHA256())
        .public_bytes(Encoding.DER)
    )


def ek_certificate(tpm: Tpm, kind: EkKind) -> bytes:
    with tpm.primary(kind.template) as ek:
        return certify(parse_public(ek.public).key)


def write_nv(tpm: Tpm, index: int, data: bytes) -> None:
    """Put a certificate where a maker would."""
    library, context = tpm._library, tpm._context
    public = library.TPM2B_NV_PUBLIC(
        library.TPMS_NV_PUBLIC(
            nvIndex=index,
            nameAlg=library.TPM2_ALG.SHA256,
            attributes=library.TPMA_NV.parse("ownerwrite|authread|ownerread|no_da"),
            dataSize=len(data),
        )
    )
    handle = context.nv_define_space(b"", public, library.ESYS_TR.OWNER)
    for start in range(0, len(data), 512):
        part = data[start : start + 512]
        context.nv_write(handle, part, start, library.ESYS_TR.OWNER)


class EnrollingBroker(FakeBroker):
    """Keeps what it was sent; makes credentials like the real one."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.enrol = self.answer
        self.seen: list[dict[str, Any]] = []
        self.refuse: Answered | None = None
        self.change: Mapping[str, object] = {}
        self.pending: Mapping[str, object] = {}

    def answer(self, path: str, body: dict[str, Any]) -> Answered:
        self.seen.append(body)
        if self.refuse is not None:
            refused, self.refuse = self.refuse, None
            return refused
        if path == "/v1/enrolments":
            made = make_credential(
                parse_public(parse_b64(body["ek"], "ek", limit=1024)),
                parse_public(parse_b64(body["ak"], "ak", limit=1024)).name,
                b"s" * 32,
            )
            return 200, {
                "enrolment": "token",
                "credential_blob": b64(made.credential_blob),
                "encrypted_secret": b64(made.secret),
                "expires": "2026-11-22T08:05:00Z",
                **self.change,
            }
        if body != {"enrolment": "token", "secret": b64(b"s" * 32)}:
            return problem(403, "enrolment.secret")
        begun = self.seen[0]
        name = parse_public(parse_b64(begun["ak"], "ak", limit=1024)).name
        return 201, {
            "id": "0" * 32,
            "status": "pending",
            "group": begun["group"],
            "ak_name": name.hex(),
            **self.pending,
        }


@pytest.fixture
def software(tmp_path: Path) -> Iterator[SoftwareTpm]:
    with software_tpm(tmp_path) as running:
        yield running


def enrol(
    software: SoftwareTpm,
    broker: FakeBroker,
    *,
    certificate: bytes | None = None,
    chain: tuple[bytes, ...] = (),
) -> Enrolment:
    with serving(broker) as url:
        return Enroller(
            tcti=software.tcti,
            ak_handle=DEFAULT_AK_HANDLE,
            certificate=certificate,
            chain=chain,
        ).enrol(Transport(url), GROUP, Patience(total_seconds=5, first_seconds=0.01))


@pytest.mark.parametrize("kind", list(EkKind))
@pytest.mark.parametrize("padding", [b"", b"\xff" * 100], ids=["exact", "padded"])
def test_the_certificate_in_the_tpm_is_used(
    software: SoftwareTpm, kind: EkKind, padding: bytes
) -> None:
    with open_tpm(software.tcti) as tpm:
        certificate = ek_certificate(tpm, kind)
        write_nv(tpm, kind.nv_certificate, certificate + padding)
    broker = EnrollingBroker()
    pending = enrol(software, broker, chain=(b"issuer",))
    with (
        open_tpm(software.tcti) as tpm,
        attestation_key(tpm, DEFAULT_AK_HANDLE) as ak,
    ):
        assert pending.ak_name == parse_public(ak.public).name.hex()
    assert pending.to_json()["status"] == "pending"
    assert pending.group == "acme/hosts"
    assert broker.seen[0]["ek_certificate"] == b64(certificate)
    assert broker.seen[0]["ek_chain"] == [b64(b"issuer")]


def test_a_given_certificate_comes_before_the_tpms(software: SoftwareTpm) -> None:
    with open_tpm(software.tcti) as tpm:
        certificate = ek_certificate(tpm, EkKind.RSA)
        ecc = EkKind.ECC
        write_nv(tpm, ecc.nv_certificate, ek_certificate(tpm, ecc))
    broker = EnrollingBroker()
    enrol(software, broker, certificate=certificate)
    assert broker.seen[0]["ek_certificate"] == b64(certificate)


def test_without_a_certificate_it_is_said_where_to_get_one(
    software: SoftwareTpm,
) -> None:
    with pytest.raises(UnavailableError, match="--ek-cert"):
        enrol(software, EnrollingBroker())


def test_the_certificate_of_another_tpm_is_refused(software: SoftwareTpm) -> None:
    other = ec.generate_private_key(ec.SECP256R1()).public_key()
    broker = EnrollingBroker()
    with pytest.raises(VerificationError, match="not the certificate's"):
        enrol(software, broker, certificate=certify(other))
    assert broker.seen == []


@pytest.mark.parametrize(
    "certificate",
    [
        b"not a certificate",
        certify(rsa.generate_private_key(65537, 3072).public_key()),
        certify(ec.generate_private_key(ec.SECP384R1()).public_key()),
        certify(ed25519.Ed25519PrivateKey.generate().public_key()),
    ],
    ids=["bytes", "RSA 3072", "P-384", "Ed25519"],
)
def test_a_certificate_about_another_kind_of_key_is_malformed(
    software: SoftwareTpm, certificate: bytes
) -> None:
    with pytest.raises(MalformedError, match="EK certificate"):
        enrol(software, EnrollingBroker(), certificate=certificate)


def test_a_busy_broker_is_tried_again(software: SoftwareTpm) -> None:
    broker = EnrollingBroker()
    broker.refuse = problem(503, "unavailable")
    with open_tpm(software.tcti) as tpm:
        certificate = ek_certificate(tpm, EkKind.ECC)
    assert enrol(software, broker, certificate=certificate).status == "pending"


@pytest.mark.parametrize(
    ("refusal", "kind"),
    [
        (problem(403, "evidence.refused", checks=["vtpm.chain"]), ForbiddenError),
        (problem(400, "malformed"), MalformedError),
    ],
)
def test_a_refusal_is_reported(
    software: SoftwareTpm, refusal: Answered, kind: type[KbsError]
) -> None:
    broker = EnrollingBroker()
    broker.refuse = refusal
    with open_tpm(software.tcti) as tpm:
        certificate = ek_certificate(tpm, EkKind.ECC)
    with pytest.raises(kind, match="not signed"):
        enrol(software, broker, certificate=certificate)


@pytest.mark.parametrize(
    "change",
    [
        {"credential_blob": "!"},
        {"encrypted_secret": 7},
        {"enrolment": 7},
        {"enrolment": "x" * (88 * 1024 + 1)},
        {"more": 1},
    ],
)
def test_an_answer_of_another_shape_is_not_a_broker(
    software: SoftwareTpm, change: Mapping[str, object]
) -> None:
    broker = EnrollingBroker()
    broker.change = change
    with open_tpm(software.tcti) as tpm:
        certificate = ek_certificate(tpm, EkKind.ECC)
    with (
        serving(broker) as url,
        pytest.raises(UnavailableError, match="broker's answer"),
    ):
        Enroller(
            tcti=software.tcti, ak_handle=DEFAULT_AK_HANDLE, certificate=certificate
        ).enrol(Transport(url), GROUP, Patience())


@pytest.mark.parametrize(
    ("change", "kind", "code"),
    [
        ({"group": "acme/other"}, VerificationError, "enrolment.answer"),
        ({"ak_name": "000b" + "00" * 32}, VerificationError, "enrolment.answer"),
        ({"status": "trusted"}, VerificationError, "enrolment.answer"),
        ({"status": ["pending"]}, VerificationError, "enrolment.answer"),
        ({"id": "0" * 31 + ";"}, UnavailableError, "unavailable"),
        ({"id": "$(reboot)"}, UnavailableError, "unavailable"),
        ({"id": 7}, UnavailableError, "unavailable"),
        ({"more": 1}, UnavailableError, "unavailable"),
    ],
)
def test_what_a_stranger_says_is_pending_is_not_shown(
    software: SoftwareTpm, change: Mapping[str, object], kind: type[KbsError], code: str
) -> None:
    """The id ends up in a command line that the owner hands to an administrator."""
    broker = EnrollingBroker()
    broker.pending = change
    with open_tpm(software.tcti) as tpm:
        certificate = ek_certificate(tpm, EkKind.ECC)
    with serving(broker) as url, pytest.raises(kind) as caught:
        Enroller(
            tcti=software.tcti, ak_handle=DEFAULT_AK_HANDLE, certificate=certificate
        ).enrol(Transport(url), GROUP, Patience())
    assert caught.value.code == code


def test_a_credential_for_another_key_stays_closed(software: SoftwareTpm) -> None:
    """The TPM, not the guest, sees to it that a secret belongs to this AK."""
    with open_tpm(software.tcti) as tpm:
        certificate = ek_certificate(tpm, EkKind.ECC)
        with tpm.primary(EkKind.ECC.template) as ek:
            made = make_credential(
                parse_public(ek.public), b"\x00\x0b" + bytes(32), b"s" * 32
            )
    broker = EnrollingBroker()
    broker.change = {
        "credential_blob": b64(made.credential_blob),
        "encrypted_secret": b64(made.secret),
    }
    with serving(broker) as url:
        enroller = Enroller(
            tcti=software.tcti, ak_handle=DEFAULT_AK_HANDLE, certificate=certificate
        )
        with pytest.raises(UnavailableError, match="ActivateCredential"):
            enroller.enrol(Transport(url), GROUP, Patience())
        assert len(broker.seen) == 1, "no secret is sent"
        broker.change, broker.seen = {}, []
        assert enroller.enrol(Transport(url), GROUP, Patience()).status == "pending"


@pytest.mark.parametrize("blob", [b64(b"\x00\x04none"), b64(b"")])
def test_a_credential_that_the_tpm_does_not_read_is_reported(
    software: SoftwareTpm, blob: str
) -> None:
    broker = EnrollingBroker()
    broker.change = {"credential_blob": blob}
    with open_tpm(software.tcti) as tpm:
        certificate = ek_certificate(tpm, EkKind.ECC)
    with serving(broker) as url, pytest.raises(UnavailableError):
        Enroller(
            tcti=software.tcti, ak_handle=DEFAULT_AK_HANDLE, certificate=certificate
        ).enrol(Transport(url), GROUP, Patience())


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"\x30\x03abc", b"\x30\x03abc"),
        (b"\x30\x03abc\xff\xff", b"\x30\x03abc"),
        (b"\x30\x81\x02abcd", b"\x30\x81\x02ab"),
        (b"\x30\x82\x00\x02abcd", b"\x30\x82\x00\x02ab"),
        (b"\x30\x82\xff\xffab", b"\x30\x82\xff\xffab"),
        (b"\x31\x01abcd", b"\x31\x01abcd"),
        (b"\x30", b"\x30"),
        (b"", b""),
    ],
)
def test_padding_behind_der_is_cut_off(data: bytes, expected: bytes) -> None:
    assert without_padding(data) == expected


def test_the_kind_of_an_ek_is_that_of_its_certificate() -> None:
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    assert ek_kind_of(x509.load_der_x509_certificate(certify(key))) is EkKind.ECC


@pytest.fixture
def run(
    software: SoftwareTpm, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """The command line, with this TPM."""
    root = click.Group("kbs", commands={"guest": guest})

    def call(*arguments: str) -> tuple[int, str, str]:
        command, *rest = arguments
        code = main_with(root, ["guest", command, "--tcti", software.tcti, *rest])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def test_the_command_line_enrols_with_certificates_from_files(
    software: SoftwareTpm,
    run: Callable[..., tuple[int, str, str]],
    tmp_path: Path,
) -> None:
    with open_tpm(software.tcti) as tpm:
        der = ek_certificate(tpm, EkKind.ECC)
    pem = x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM)
    (tmp_path / "ek.pem").write_bytes(pem)
    (tmp_path / "issuer.der").write_bytes(der)
    broker = EnrollingBroker()
    (tmp_path / "broker.pem").write_bytes(broker.response_pem)
    arguments = (
        *("enroll", "--group", "acme/hosts", "--ek-cert", str(tmp_path / "ek.pem")),
        *("--ek-chain", str(tmp_path / "issuer.der")),
        *("--broker-key", str(tmp_path / "broker.pem")),
    )
    with serving(broker) as url:
        code, out, _ = run(*arguments, "--server", url)
    assert code == 0
    assert f"kbs ref add ak --pending {'0' * 32}" in out
    assert broker.seen[0]["ek_certificate"] == b64(der)
    assert broker.seen[0]["ek_chain"] == [b64(der)]


def test_an_enrolment_for_programs(
    software: SoftwareTpm, run: Callable[..., tuple[int, str, str]]
) -> None:
    with open_tpm(software.tcti) as tpm:
        ecc = EkKind.ECC
        write_nv(tpm, ecc.nv_certificate, ek_certificate(tpm, ecc))
    with serving(EnrollingBroker()) as url:
        code, out, _ = run("enroll", "--group", "acme/hosts", "--json", "--server", url)
    assert code == 0
    assert sorted(json.loads(out)) == ["ak_name", "group", "id", "status"]


def test_another_broker_than_the_pinned_one_is_not_enrolled_at(
    run: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    broker = EnrollingBroker()
    (tmp_path / "broker.pem").write_bytes(FakeBroker().response_pem)
    key = str(tmp_path / "broker.pem")
    with serving(broker) as url:
        code, _, err = run(
            *("enroll", "--group", "acme/hosts", "--broker-key", key, "--server", url)
        )
    assert code == 1
    assert "--broker-key" in err
    assert broker.seen == []


def test_a_file_that_is_no_certificate_is_2(
    run: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    path = tmp_path / "ek"
    for data in (b"nonsense", b"-----BEGIN CERTIFICATE-----\nx", b"x" * (2 << 20)):
        path.write_bytes(data)
        code, _, err = run(
            *("enroll", "--group", "acme/hosts", "--ek-cert", str(path)),
            *("--server", "http://127.0.0.1:1"),
        )
        assert (code, len(err.splitlines())) == (2, 1)


def test_the_command_line_measures_once(
    run: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    policy = tmp_path / "policy"
    policy.write_bytes(b"policy")
    code, out, _ = run("measure", str(policy), "--json")
    assert code == 0
    extended = hashlib.sha256(bytes(32) + hashlib.sha256(b"policy").digest())
    assert json.loads(out)["values"]["sha256"] == extended.hexdigest()
    code, _, err = run("measure", str(policy))
    assert code == 1
    assert "reboot" in err
    code, out, _ = run("measure", str(policy), "--pcr", "14")
    assert code == 0
    assert f"sha256:14 {extended.hexdigest()}" in out


def test_without_the_library_it_is_said_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = builtins.__import__

    def refuse(name: str, *args: Any, **more: Any) -> Any:
        if name == "tpm2_pytss":
            raise ImportError("no libtss2")
        return real(name, *args, **more)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(UnavailableError, match="kbs\\[guest\\]"), open_tpm("device:x"):
        pass
    assert os.environ["TSS2_LOG"] == "all+none"
