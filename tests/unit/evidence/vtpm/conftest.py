"""TPMs and trust that the tests of the vtpm family share."""

from __future__ import annotations

import pytest

from tests.fakes.tpm import FakeTpm


@pytest.fixture(scope="session")
def ecc_tpm() -> FakeTpm:
    """A TPM with an ECDSA P-256 attestation key; tests do not change it."""
    return FakeTpm("ecdsa", "sha256")


@pytest.fixture(scope="session")
def rsa_tpm() -> FakeTpm:
    """A TPM with an RSASSA attestation key and an RSA endorsement key."""
    return FakeTpm("rsassa", "sha256", endorsement="rsa")
