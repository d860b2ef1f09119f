"""Targets: evidence of every family, raw and in bundles, and what comes with it."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable, Sequence
from functools import cache

from cryptography.hazmat.primitives.serialization import Encoding

from kbs.cli.evidence_files import guess_kind
from kbs.cli.x509_files import load_collateral
from kbs.client.snp import parse_certificate_table
from kbs.core.encode import b64
from kbs.core.errors import AuthenticationError, MalformedError, VerificationError
from kbs.evidence.bundle import MAX_BUNDLE_BYTES, Bundle, parse_bundle, verify_bundle
from kbs.evidence.forms import FORMS, item_of, items_of
from kbs.evidence.model import EnrolledKey, Trust, TrustedCA
from kbs.evidence.registry import VERIFIERS
from kbs.evidence.snp.abi import parse_report, serialize_report
from kbs.evidence.snp.certificates import parse_endorsement_key
from kbs.evidence.vtpm.abi import (
    parse_attest,
    parse_signature,
    serialize_attest,
    serialize_signature,
)
from kbs.evidence.vtpm.credential import check_endorsement_certificate, make_credential
from kbs.evidence.vtpm.eventlog import parse_event_log, replay
from kbs.evidence.vtpm.item import load_ak
from kbs.evidence.vtpm.pcrs import parse_pcr_file
from kbs.evidence.vtpm.public import parse_public, serialize_public
from kbs.pki.certificates import (
    MAX_CERTIFICATE_BYTES,
    MAX_CRL_BYTES,
    der,
    load_certificates,
    load_crls,
)
from kbs.wire.rcar import MAX_MESSAGE_BYTES, parse_attestation, parse_auth_request
from tests.fakes.amd import FakeAmd, item
from tests.fakes.azure import azure
from tests.fakes.cca import FakeCca
from tests.fakes.eventlog import typical_log
from tests.fakes.rcar_client import RcarClient
from tests.fakes.rcar_evidence import (
    Evidence,
    cca_evidence,
    snp_evidence,
    tpm_evidence,
)
from tests.fakes.tpm import FakeTpm
from tests.fakes.tpm_ca import NOW, FakeTpmCA, certificate_b64
from tests.fuzz.target import KIB, Shape, Target

AMD = FakeAmd()
TURIN = FakeAmd(product="Turin")
TPM = FakeTpm()
MAKER = FakeTpmCA()
MAX_SMALL = 8 * KIB


@cache
def _trust() -> Trust:
    """Trust in all of the fakes, as a broker would have it."""
    enrolled = EnrolledKey(
        tenant="acme", group="hosts", name=TPM.ak_name, public=TPM.ak_public
    )
    return Trust(
        now=AMD.now,
        collateral=AMD.collateral(),
        enrolled_keys={TPM.ak_name: (enrolled,)},
        cas=(
            TrustedCA(
                tenant="acme", name="maker", purpose="ak", certificate=MAKER.root
            ),
        ),
        development=True,
        pinned_roots={**AMD.pins(), **TURIN.pins()},
    )


def _verify(bundle: Bundle) -> None:
    for recorded in (_trust(), Trust(now=NOW, recorded=True)):
        verify_bundle(
            bundle, trust=recorded, verifiers=VERIFIERS, binding=None, recorded=True
        )
    for index, one in enumerate(bundle.items):
        verifier = VERIFIERS.get(bundle.kind(index))
        if verifier is not None:
            _inspected(verifier.kind, one)


def _inspected(kind: str, one: object) -> None:
    assert isinstance(one, dict)
    try:
        parsed = VERIFIERS[kind].parse(one, 0)
    except MalformedError:
        return
    json.dumps(VERIFIERS[kind].inspect(parsed)).encode()


# -- whole items -----------------------------------------------------------------------


def _bundle_seeds() -> Iterable[bytes]:
    certified = FakeTpm(scheme="rsapss", endorsement="rsa")
    chain = [certificate_b64(MAKER.certify(certified.public.key)), MAKER.intermediate]
    quotes = [
        TPM.quote_item(bytes(32), event_log=typical_log().to_bytes()),
        {
            **certified.quote_item(bytes(32)),
            "ak_certificates": [chain[0], certificate_b64(MAKER.intermediate)],
        },
    ]
    reports = [
        AMD.bundle_item(bytes(64)),
        AMD.bundle_item(bytes(64), vlek=True),
        TURIN.bundle_item(bytes(64), version=5),
    ]
    sample = {"kind": "sample", "report_data": b64(bytes(48)), "claims": {"svn": 1}}
    sets = [[one] for one in (*quotes, *reports, sample)]
    for items in (*sets, [reports[0], quotes[0], sample]):
        yield json.dumps({"format": "kbs.evidence/1", "items": items}).encode()


def _message_seeds() -> Iterable[bytes]:
    made: Sequence[tuple[str, Evidence | None]] = (
        ("snp", snp_evidence(AMD)),
        ("tpm", tpm_evidence(TPM)),
        ("cca", cca_evidence(FakeCca())),
        ("az-snp-vtpm", azure().evidence),
        ("sample", None),
    )
    for tee, evidence in made:
        options = {"evidence": evidence} if evidence else {}
        client = RcarClient(lambda *_: _nobody(), tee=tee, **options)  # type: ignore[arg-type]
        body = 'version = "0.1.0"\nalgorithm = "sha256"\n'
        data = {"format": "toml", "body": body}
        yield tee.encode() + b"\n" + json.dumps(client.message()).encode()
        message = client.message(**{"init-data": data})
        yield tee.encode() + b"\n" + json.dumps(message).encode()


def _nobody() -> None:
    raise AssertionError("nothing is sent here")


def _attestation(data: bytes) -> None:
    tee, _, body = data.partition(b"\n")
    name = tee.decode("latin-1")
    message = parse_attestation(body)
    if message.init_data is not None:
        message.init_data.digest()
    items = [item_of(name, message.primary)]
    for each, found in message.devices.items():
        items += items_of(each, found)
    _verify(Bundle(tuple(items)))


def _auth(data: bytes) -> None:
    parse_auth_request(data)


def _auth_seeds() -> Iterable[bytes]:
    for tee in FORMS:
        body = {"version": "0.4.0", "tee": tee, "extra-params": {"a": ["sha384"]}}
        yield json.dumps(body).encode()


# -- certificates and revocation lists -------------------------------------------------


def _certificates(data: bytes) -> None:
    found = load_certificates(data, "certificates")
    for one in found:
        try:
            parse_endorsement_key(one)
        except MalformedError:
            continue
    texts = [b64(der(one)) for one in found]
    report = {**item(AMD.report()), "certificates": texts}
    quote = {**TPM.quote_item(bytes(32)), "ak_certificates": texts}
    _verify(Bundle((report, quote)))
    for one in found:
        try:
            check_endorsement_certificate(TPM.endorsement_public, one)
        except VerificationError:
            continue


def _certificate_seeds() -> Iterable[bytes]:
    mine = (AMD.vcek(), AMD.vlek(), AMD.ask, AMD.ark, TURIN.vcek(), MAKER.root)
    keys = (TPM.public.key, TPM.endorsement_public.key)
    theirs = tuple(
        MAKER.certify(key, signs=index == 0) for index, key in enumerate(keys)
    )
    for one in (*mine, *theirs):
        yield one.public_bytes(Encoding.DER)
    yield b"".join(one.public_bytes(Encoding.PEM) for one in mine[:2])


def _lists(data: bytes) -> None:
    for crl in load_crls(data, "list"):
        made = AMD.bundle_item(bytes(64), crl=False)
        _verify(Bundle(({**made, "crl": b64(der(crl))},)))


def _list_seeds() -> Iterable[bytes]:
    lists = (AMD.crl(), AMD.crl(revoked=(1, 0x77)), *MAKER.revocation_lists())
    for one in lists:
        yield one.public_bytes(Encoding.DER)
    yield lists[0].public_bytes(Encoding.PEM)


def _table_seeds() -> Iterable[bytes]:
    certificate = AMD.vcek().public_bytes(Encoding.DER)
    guid = bytes.fromhex("63da758de6644564adc5f4b93be8accd")
    size = len(certificate).to_bytes(4, "little")
    head = guid + (48).to_bytes(4, "little") + size + bytes(24)
    yield head + certificate


# -- structures of the TPM -------------------------------------------------------------


def _same(read: Callable[[bytes], bytes]) -> Callable[[bytes], None]:
    def run(data: bytes) -> None:
        assert read(data) == data, "what was read is written back as something else"

    return run


def _event_log(data: bytes) -> None:
    log = parse_event_log(data)
    assert log.used_bytes == len(data)
    replay(log)


def _enrolment(data: bytes) -> None:
    # What a stranger enrols: the public area of an endorsement key.
    make_credential(parse_public(data), TPM.ak_name, bytes(32))


def _key_seeds() -> Iterable[bytes]:
    yield from (TPM.ak_public, TPM.ek_public, TPM.ak_spki)
    rsa = FakeTpm(scheme="rsassa", endorsement="rsa")
    yield from (rsa.ak_public, rsa.ek_public, rsa.ak_spki)
    yield b"-----BEGIN PUBLIC KEY-----\n" + base64.encodebytes(TPM.ak_spki)


def _pcr_seeds() -> Iterable[bytes]:
    yield b'{"sha256": {"0": "' + b"00" * 32 + b'"}}'
    yield b"sha256:\n  0 : 0x" + b"00" * 32 + b"\n  1 : 0x" + b"AA" * 32 + b"\n"


TARGETS: Sequence[Target] = (
    Target(
        name="evidence.bundle",
        run=lambda data: _verify(parse_bundle(data)),
        seeds=_bundle_seeds,
        shape=Shape.JSON,
        most_bytes=MAX_BUNDLE_BYTES,
    ),
    Target(
        name="evidence.guess",
        run=guess_kind,
        seeds=lambda: (AMD.report(), TPM.quote(b"")[0], b"{}"),
        recorded=(
            *(
                "snp/*.bin",
                "eventlogs/*.bin",
                "vtpm-gcp/*",
                "vtpm-azure/*.bin",
                "tpm/*",
            ),
            *("nitro/*.cbor", "cca/*.cbor", "tokens/*.jwt", "nvidia/*.bin"),
        ),
        most_bytes=MAX_BUNDLE_BYTES,
    ),
    Target(
        name="rcar.auth",
        run=_auth,
        seeds=_auth_seeds,
        allowed=(MalformedError, AuthenticationError),
        shape=Shape.JSON,
        most_bytes=MAX_MESSAGE_BYTES,
    ),
    Target(
        name="rcar.attestation",
        run=_attestation,
        seeds=_message_seeds,
        shape=Shape.JSON,
        most_bytes=MAX_MESSAGE_BYTES,
    ),
    Target(
        name="snp.report",
        run=_same(lambda data: serialize_report(parse_report(data))),
        seeds=lambda: (
            each.report(version=version)
            for each in (AMD, TURIN)
            for version in (2, 3, 5)
        ),
        recorded=("snp/*.bin",),
        most_bytes=MAX_SMALL,
    ),
    Target(
        name="snp.certificate_table",
        run=parse_certificate_table,
        seeds=_table_seeds,
    ),
    Target(
        name="x509.certificates",
        run=_certificates,
        seeds=_certificate_seeds,
        recorded=("snp/*.pem", "snp/*.der", "tpm/*.pem", "tpm/*.der", "vtpm-gcp/*.pem"),
        most_bytes=MAX_CERTIFICATE_BYTES,
    ),
    Target(
        name="x509.lists",
        run=_lists,
        seeds=_list_seeds,
        recorded=("snp/*.crl.pem", "tdx/*crl.der", "sgx/*crl.der"),
        most_bytes=MAX_CRL_BYTES,
    ),
    Target(
        name="x509.collateral",
        run=lambda data: load_collateral(data, "file"),
        seeds=lambda: (*_certificate_seeds(), *_list_seeds()),
        most_bytes=MAX_BUNDLE_BYTES,
    ),
    Target(
        name="vtpm.attest",
        run=_same(lambda data: serialize_attest(parse_attest(data))),
        seeds=lambda: (
            TPM.quote(bytes(32))[0],
            TPM.quote(b"", (0, 23), ("sha1", "sha384"))[0],
        ),
        recorded=("vtpm-gcp/*quote*", "tpm/*quote*", "vtpm-azure/*quote*"),
        most_bytes=MAX_SMALL,
    ),
    Target(
        name="vtpm.signature",
        run=_same(lambda data: serialize_signature(parse_signature(data))),
        seeds=lambda: (
            TPM.quote(b"")[1],
            FakeTpm("rsassa").sign(b""),
            FakeTpm("rsapss").sign(b""),
            FakeTpm("ecdsa", "sha384").sign(b""),
        ),
        recorded=("vtpm-gcp/*sig*", "tpm/*sig*", "vtpm-azure/*sig*"),
        most_bytes=MAX_SMALL,
    ),
    Target(
        name="vtpm.public",
        run=_same(lambda data: serialize_public(parse_public(data))),
        seeds=_key_seeds,
        recorded=("tpm/*pub*", "vtpm-gcp/*pub*", "vtpm-azure/*pub*"),
        most_bytes=MAX_SMALL,
    ),
    Target(
        name="vtpm.enrolment",
        run=_enrolment,
        seeds=lambda: (TPM.ek_public, FakeTpm(endorsement="rsa").ek_public),
        allowed=(MalformedError, VerificationError),
        most_bytes=MAX_SMALL,
    ),
    Target(
        name="vtpm.key",
        run=load_ak,
        seeds=_key_seeds,
        recorded=("tpm/*", "vtpm-azure/*ak*", "vtpm-gcp/*ak*"),
        most_bytes=MAX_SMALL,
    ),
    Target(name="vtpm.pcrs", run=parse_pcr_file, seeds=_pcr_seeds, shape=Shape.JSON),
    Target(
        name="vtpm.event_log",
        run=_event_log,
        seeds=lambda: (
            typical_log().to_bytes(),
            typical_log(("sha1", "sha256", "sha384")).to_bytes(),
        ),
        recorded=("eventlogs/*.bin",),
        most_bytes=512 * KIB,
    ),
)
