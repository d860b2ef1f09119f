"""Measuring a workload policy into a PCR before the workload starts.

The guest's agent extends the policy's digest once, from the register's initial value,
and refuses otherwise: a policy that is measured after something else would be that
something's word. `kbs.policy` accepts exactly extend(initial, digest) (`measures`).
"""

from __future__ import annotations

from collections.abc import Mapping

from kbs.client.tpm import Tpm
from kbs.core.errors import ConflictError, MalformedError, UnavailableError
from kbs.evidence.vtpm.abi import PcrSelection
from kbs.evidence.vtpm.algorithms import (
    DIGEST_SIZES,
    Algorithm,
    bank_name,
    digest,
    hash_of,
)

DEFAULT_PCR = 15

# PC Client Platform TPM Profile 1.05, section 4.6.2: 16 to 23 can be reset by
# software, so what they hold proves nothing.
_LAST_STATIC_PCR = 15

# What the broker registers (`kbs.governance.objects`): the digest of anything else is
# one that no policy can name.
_MAX_POLICY_BYTES = 1024 * 1024


def measure_workload(tpm: Tpm, policy: bytes, pcr: int = DEFAULT_PCR) -> dict[str, str]:
    """Extend the digest of the policy's exact bytes in every bank; return the values.

    Every allocated bank is extended, or another one could be given a made-up history.

    Raises:
        MalformedError: software can reset this PCR, or there is none of this number;
            or as `require_measurable`.
        ConflictError: the register does not hold its initial value, or does not hold
            the expected one afterwards: something else extends it too.
        UnavailableError: the TPM refuses, or has a bank whose hash we lack.
    """
    if not 0 <= pcr <= _LAST_STATIC_PCR:
        raise MalformedError(
            "PCR", got=str(pcr), expected=f"0 to {_LAST_STATIC_PCR}: the others reset"
        )
    require_measurable(policy)
    digests = policy_digests(tpm.banks(), policy)
    _require_values(tpm, pcr, {bank: bytes(DIGEST_SIZES[bank]) for bank in digests})
    tpm.extend(pcr, digests)
    expected = {
        bank: _extend(bank, bytes(DIGEST_SIZES[bank]), value)
        for bank, value in digests.items()
    }
    _require_values(tpm, pcr, expected)
    return {bank_name(bank): value.hex() for bank, value in expected.items()}


def require_measurable(policy: bytes) -> None:
    """Require a policy that a broker can hold too; what is extended stays until reboot.

    Raises:
        MalformedError: it is empty, or larger than any that can be registered.
    """
    if not 1 <= len(policy) <= _MAX_POLICY_BYTES:
        raise MalformedError(
            "workload policy",
            got=f"{len(policy)} bytes" if policy else "an empty file",
            expected=f"1 to {_MAX_POLICY_BYTES} bytes",
            hint="nothing was measured",
        )


def policy_digests(
    banks: tuple[Algorithm, ...], policy: bytes
) -> dict[Algorithm, bytes]:
    """Return the policy's digest by the hash of each bank.

    Raises:
        UnavailableError: there is no bank, or one whose hash we lack.
    """
    if not banks:
        raise UnavailableError("TPM", got="no PCR bank", expected="one at least")
    return {bank: _digest(bank, policy) for bank in banks}


def _require_values(tpm: Tpm, pcr: int, expected: Mapping[Algorithm, bytes]) -> None:
    values = tpm.read_pcrs([PcrSelection(bank, (pcr,)) for bank in expected])
    for bank, value in expected.items():
        if values[bank, pcr] != value:
            raise ConflictError(
                f"PCR {bank_name(bank)}:{pcr}",
                got=values[bank, pcr].hex(),
                expected=value.hex(),
                hint="something else was measured into it: reboot, and measure once",
                code="vtpm.pcr.not_initial",
            )


def _extend(bank: Algorithm, value: bytes, measured: bytes) -> bytes:
    # TPM 2.0 Library, Part 1, section 17.2: PCR = H(PCR ‖ digest).
    return _digest(bank, value + measured)


def _digest(bank: Algorithm, data: bytes) -> bytes:
    algorithm = hash_of(bank)
    if algorithm is None:
        raise UnavailableError(
            f"PCR bank {bank_name(bank)}",
            got="a hash that is not supported",
            expected="SHA-1 or SHA-2 banks only",
            hint="deallocate the bank, or it could be extended later by anyone",
        )
    return digest(algorithm, data)
