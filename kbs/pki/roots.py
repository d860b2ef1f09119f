"""The pinned roots: whom we trust, as SHA-256 of a SubjectPublicKeyInfo.

A certificate is never trusted because it lies somewhere; it is trusted because the
digest of its public key is in this table. Each pin has one purpose, and a chain for
one purpose never ends at a root of another.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Purpose(StrEnum):
    """What a root may vouch for."""

    SNP = "snp"  # reports of AMD SEV-SNP
    TPM = "tpm"  # endorsement and attestation keys of TPMs and vTPMs
    NITRO = "nitro"  # attestation documents of AWS Nitro enclaves and NitroTPMs
    DCAP = "dcap"  # quotes of Intel SGX and TDX, and the collateral to judge them
    NVGPU = "nvgpu"  # reports of NVIDIA GPUs and NVSwitches
    NVIDIA_RIM = "nvidia-rim"  # NVIDIA's reference integrity manifests


@dataclass(frozen=True, slots=True)
class PinnedRoot:
    """One root: SHA-256 of its SubjectPublicKeyInfo (hex), its name, its purpose."""

    spki_sha256: str
    name: str
    purpose: Purpose


_AMD_PREFIX = "AMD ARK "
_NVIDIA_DEVICE = "NVIDIA Device Identity CA"
_NVIDIA_RIM = "NVIDIA CoRIM signing Root CA"
# How the names of the roots of each purpose begin; all others are TPMs'.
_PREFIXES: Mapping[str, Purpose] = {
    _AMD_PREFIX: Purpose.SNP,
    "Intel SGX ": Purpose.DCAP,
    "AWS Nitro": Purpose.NITRO,
    _NVIDIA_DEVICE: Purpose.NVGPU,
    _NVIDIA_RIM: Purpose.NVIDIA_RIM,
}

PINNED_ROOTS: tuple[PinnedRoot, ...] = (
    # https://kdsintf.amd.com/vcek/v1/Milan/cert_chain (valid 2020-10-22 to 2045-10-22)
    PinnedRoot(
        "9f056bee44377e29308cb5ffa895bdfb62d18881fa6bed8d6f075b0204089cb9",
        "AMD ARK Milan",
        Purpose.SNP,
    ),
    # https://kdsintf.amd.com/vcek/v1/Genoa/cert_chain (valid 2022-01-26 to 2047-01-26)
    PinnedRoot(
        "429a69c9422aa258ee4d8db5fcda9c6470ef15f8cd5a9cebd6cbc7d90b863831",
        "AMD ARK Genoa",
        Purpose.SNP,
    ),
    # https://kdsintf.amd.com/vcek/v1/Turin/cert_chain (valid 2023-05-15 to 2048-05-15)
    PinnedRoot(
        "4f125410563a2ab9a50356f9243f6fe0b6f73de98603f53f90339c70e9d7ad08",
        "AMD ARK Turin",
        Purpose.SNP,
    ),
    # https://certificates.trustedservices.intel.com/IntelSGXRootCA.der
    # (valid 2018-05-21 to 2049-12-31), certificate SHA-256 44a0196b2b99f889…
    PinnedRoot(
        "a0af031289f5d5d4132f9186068a7fc13628633ba235777472e29b6b6c67a49e",
        "Intel SGX Root CA",
        Purpose.DCAP,
    ),
    # CN=Azure Virtual TPM Root Certificate Authority 2023 (2023-06-01 to 2048-06-01),
    # certificate SHA-256 e6c596b17f8ffefb…
    PinnedRoot(
        "5cbc52672ae101263c2976736044a964c1182ce9412c39937183baddcccb8cdf",
        "Azure Virtual TPM Root Certificate Authority 2023",
        Purpose.TPM,
    ),
    # CN=EK/AK CA Root, OU=Google Cloud (2022-07-08 to 2122-07-08),
    # certificate SHA-256 594759594b9b6152…
    PinnedRoot(
        "56a613f57126a385dd6949294e93b0b566f96ab0573be0c2368e6f5ca779831f",
        "Google EK/AK CA Root",
        Purpose.TPM,
    ),
    # CN=tpm_ek_v1_cloud_host_root-signer-0-2018-04-06…, OU=Cloud (2018 to 2118),
    # certificate SHA-256 9bd5285f8fb18502…
    PinnedRoot(
        "f23057f4f97d1d90e4cae0ce91d5a0fc99069f0a1bc147021dca33b1e9c4d0d9",
        "Google tpm_ek_v1_cloud_host_root",
        Purpose.TPM,
    ),
    # CN=aws.nitro-enclaves, OU=AWS, O=Amazon, C=US (2019-10-28 to 2049-10-28), the root
    # of the commercial partitions: AWS_NitroEnclaves_Root-G1, certificate SHA-256
    # 641a0321a3e244ef…
    PinnedRoot(
        "f2caf5ecc6190b4a8399b78bc58a2bbcd0382375db8a1bfd78a82743874fd225",
        "AWS Nitro Enclaves Root G1",
        Purpose.NITRO,
    ),
    # https://docs.ndis.nvidia.com/certs/identity-root/Root-CA.cer (2021-11-05 to
    # 9999-12-31); the same for Hopper, Blackwell and LS10.
    PinnedRoot(
        "a90c4eb5acfd3e3d03a25db6a26b84f720ad0503196c627c21ddd48dd85b06a4",
        _NVIDIA_DEVICE,
        Purpose.NVGPU,
    ),
    # CN=NVIDIA CoRIM signing Root CA, O=NVIDIA (2023-03-16 to 2053-03-08), as shipped
    # with NVIDIA's own verifiers.
    PinnedRoot(
        "dec1dc316477aa851eebdf51327ae9f864bc8d89254657ed1e7eb9168af1e1a3",
        _NVIDIA_RIM,
        Purpose.NVIDIA_RIM,
    ),
)


def pinned_roots(
    purpose: Purpose, override: Mapping[str, str] | None = None
) -> Mapping[str, str]:
    """Return SPKI SHA-256 (hex) to name of the roots for one purpose.

    `override` takes the place of the shipped pins (tests pass a fake vendor's root);
    its purpose follows from how the name begins (`_PREFIXES`), and is else a TPM's.
    """
    if override is None:
        return {
            root.spki_sha256: root.name
            for root in PINNED_ROOTS
            if root.purpose is purpose
        }
    return {
        spki: name for spki, name in override.items() if _purpose_of(name) is purpose
    }


def amd_product_line(root_name: str) -> str | None:
    """Return the product line that an AMD root vouches for: Milan, Genoa, Turin."""
    if not root_name.startswith(_AMD_PREFIX):
        return None
    return root_name.removeprefix(_AMD_PREFIX)


def _purpose_of(name: str) -> Purpose:
    for prefix, purpose in _PREFIXES.items():
        if name.startswith(prefix):
            return purpose
    return Purpose.TPM
