"""What a measurement register must hold when exactly these things were measured.

Extend: new = H(old ‖ digest) (TPM 2.0 Library, Part 1, 17.2 "PCR Extend"). A register
that is set (SNP HOST_DATA) holds the digest itself, padded with zeros to its size.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from kbs.core.claims import ClaimSpec
from kbs.policy.context import TenantView
from kbs.policy.model import DigestStep, Measured, WorkloadStep

# PC Client Platform TPM Profile 1.05, section 4.6: PCRs 17–22 start as ones until a
# dynamic launch, all others as zeros.
_STARTS_WITH_ONES = range(17, 23)


@dataclass(frozen=True, slots=True)
class Missing:
    """A name that does not resolve, so that nothing can be compared."""

    detail: str


def expected_register(
    spec: ClaimSpec, measured: Measured, view: TenantView
) -> str | Missing:
    """Return the register's value as hex, if it holds these steps and nothing else."""
    algorithm = spec.register
    if algorithm is None:
        return Missing(f"{spec.name} is no register")
    digests: list[bytes] = []
    for step in measured.steps:
        digest = _digest(step, algorithm, view)
        if isinstance(digest, Missing):
            return digest
        digests.append(digest)
    if spec.register_style == "set":
        return digests[0].ljust(spec.size or 0, b"\0").hex()
    return _extended(algorithm, _initial_fill(spec), digests).hex()


def _digest(
    step: WorkloadStep | DigestStep, algorithm: str, view: TenantView
) -> bytes | Missing:
    if isinstance(step, DigestStep):
        return bytes.fromhex(step.digest)
    known = view.workload_policy(step.name, step.version)
    if known is None:
        return Missing(f"workload policy {step.name} version {step.version} not found")
    digest = known.by(algorithm)
    if digest is None:
        return Missing(f"no {algorithm} digest of workload policy {step.name}")
    return bytes.fromhex(digest)


def _initial_fill(spec: ClaimSpec) -> bytes:
    number = spec.name.rpartition(".")[2]
    late = spec.resettable and number.isdecimal() and int(number) in _STARTS_WITH_ONES
    return b"\xff" if late else b"\x00"


def _extended(algorithm: str, fill: bytes, digests: list[bytes]) -> bytes:
    register = fill * hashlib.new(algorithm).digest_size
    for digest in digests:
        register = hashlib.new(algorithm, register + digest).digest()
    return register
