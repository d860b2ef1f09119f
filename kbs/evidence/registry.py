"""Every evidence family of this release: kind to verifier, one explicit table."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from kbs.core.claims import ClaimSpec, ClaimType, Vocabulary
from kbs.evidence.azure.verify import AzureVerifier
from kbs.evidence.cca.verify import CcaVerifier
from kbs.evidence.model import Verifier
from kbs.evidence.nitro.document import TPM
from kbs.evidence.nitro.verify import NitroVerifier
from kbs.evidence.nvgpu.verify import NvGpuVerifier
from kbs.evidence.sample.verify import DEVICE, SampleVerifier
from kbs.evidence.sgx.verify import SgxVerifier
from kbs.evidence.snp.verify import SnpVerifier
from kbs.evidence.tdx.verify import TdxVerifier
from kbs.evidence.token.verify import TokenVerifier
from kbs.evidence.vtpm.verify import VtpmVerifier

_SNP, _TDX = SnpVerifier(), TdxVerifier()

_FAMILIES: tuple[Verifier, ...] = (
    _SNP,
    _TDX,
    SgxVerifier(),
    CcaVerifier(),
    TokenVerifier(),
    VtpmVerifier(),
    NitroVerifier(),
    NitroVerifier(TPM),
    AzureVerifier(_SNP, _TDX),
    NvGpuVerifier(),
    SampleVerifier(),
    SampleVerifier(DEVICE),
)

VERIFIERS: Mapping[str, Verifier] = MappingProxyType(
    {verifier.kind: verifier for verifier in _FAMILIES}
)
"""The verifiers keep no state, so that one of each serves every thread."""

REQUEST_VOCABULARY: tuple[ClaimSpec, ...] = (
    ClaimSpec(
        name="request.door",
        type=ClaimType.TEXT,
        description="the front door that the request came through: v1, rcar, kms, skr",
        source="the broker",
    ),
    ClaimSpec(
        name="request.freshness",
        type=ClaimType.TEXT,
        description="what proves the evidence fresh: challenge, token_age, none",
        source="the broker",
    ),
    ClaimSpec(
        name="request.token_age",
        type=ClaimType.INT,
        description="age of the token in seconds, where freshness is token_age",
        source="the broker",
    ),
    ClaimSpec(
        name="request.time",
        type=ClaimType.TIME,
        description="the time at which everything was verified",
        source="the broker's clock",
    ),
)
"""Claims about the request itself."""


def vocabulary() -> Vocabulary:
    """Return every claim name that the verifiers of the day can give."""
    return Vocabulary.of(
        *(verifier.vocabulary for verifier in _FAMILIES), REQUEST_VOCABULARY
    )
