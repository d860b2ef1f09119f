"""The instance in the certificate of a vTPM of Compute Engine."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from kbs.evidence.model import Trust
from kbs.evidence.vtpm.instance import instance_claims
from kbs.evidence.vtpm.verify import VtpmVerifier
from kbs.pki.certificates import load_certificates
from tests.fakes.tpm import FakeTpm
from tests.fakes.tpm_ca import NOW, FakeTpmCA, certificate_b64

GOOD = (b"\x0c\x01z", b"\x02\x01\x07", b"\x0c\x01p", b"\x02\x01\x09", b"\x0c\x01n")
RECORDED = {
    "openpcc-ak-cert.pem": {
        "vtpm.gce.zone": "us-west1-b",
        "vtpm.gce.project_number": "227362733779",
        "vtpm.gce.project_id": "nonvolatile-dev",
        "vtpm.gce.instance_id": "8033817256003918212",
        "vtpm.gce.instance_name": "jfquinn-tdx-tpm-ubuntu-test-us-west1-b",
    },
    "pca-tpm-rsa-sign-cert.pem": {
        "vtpm.gce.zone": "us-central1-a",
        "vtpm.gce.project_number": "117478743145",
        "vtpm.gce.project_id": "google.com:wuale-gcp-testing",
        "vtpm.gce.instance_id": "218557372616137117",
        "vtpm.gce.instance_name": "cs-debug-pca",
    },
}


def sequence(*elements: bytes) -> bytes:
    content = b"".join(elements)
    return b"\x30" + bytes([len(content)]) + content


@pytest.mark.parametrize(
    ("root", "counts"), [("Google EK/AK CA Root", True), ("Fake TPM Root", False)]
)
def test_the_instance_counts_below_googles_roots_only(
    root: str, *, counts: bool
) -> None:
    ca, tpm = FakeTpmCA(), FakeTpm()
    key = tpm.key.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    leaf = ca.certify(key, attestation=False, instance=sequence(*GOOD))
    chain = (leaf, ca.intermediate, ca.root)
    item = {
        **tpm.quote_item(b""),
        "ak_certificates": [certificate_b64(one) for one in chain],
    }
    (spki,) = ca.pins
    verifier = VtpmVerifier()
    trust = Trust(
        now=NOW, pinned_roots={spki: root}, require_revocation=False, recorded=True
    )
    result = verifier.verify(verifier.parse(item, 0), trust)
    assert result.claims is not None
    found = {
        name: value
        for name, value in result.claims.values.items()
        if name.startswith("vtpm.gce.")
    }
    expected = {
        "vtpm.gce.zone": "z",
        "vtpm.gce.project_number": "7",
        "vtpm.gce.project_id": "p",
        "vtpm.gce.instance_id": "9",
        "vtpm.gce.instance_name": "n",
    }
    assert found == (expected if counts else {})
    assert set(found) <= {spec.name for spec in verifier.vocabulary}


@pytest.mark.parametrize(
    "extension",
    [
        None,
        b"",
        b"\x30\x01",
        sequence(*GOOD[:4]),
        sequence(GOOD[1], *GOOD[1:]),
        sequence(*GOOD[:4], b"\x0c\x00"),
        sequence(*GOOD[:4], b"\x0c\x01\xff"),
        sequence(*GOOD[:4], b"\x0c\x01\n"),
        sequence(GOOD[0], b"\x02\x01\xff", *GOOD[2:]),
        sequence(GOOD[0], b"\x02\x02\x00\x01", *GOOD[2:]),
        sequence(*GOOD) + b"\0",
    ],
)
def test_another_form_says_nothing(extension: bytes | None) -> None:
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    leaf = FakeTpmCA().certify(key, attestation=False, instance=extension)
    assert instance_claims(leaf, "vtpm") == {}


@pytest.mark.vectors
@pytest.mark.parametrize("name", RECORDED)
def test_recorded_certificates_name_their_instance(vectors: Path, name: str) -> None:
    data = (vectors / "vtpm-gcp" / name).read_bytes()
    (leaf,) = load_certificates(data[data.find(b"-----BEGIN") :], name)
    assert instance_claims(leaf, "vtpm") == RECORDED[name]
