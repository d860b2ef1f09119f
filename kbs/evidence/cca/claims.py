"""Claims of Arm CCA tokens, by the names of the specification (DEN0137, A7.2.3)."""

from __future__ import annotations

import hashlib

from kbs.core.claims import ClaimSpec, ClaimType, ClaimValue, Safety, SpecTable
from kbs.core.encode import canonical_json
from kbs.evidence.cca.abi import CcaToken, Platform, SoftwareComponent

_BYTES, _TEXT = ClaimType.BYTES, ClaimType.TEXT
_REALM = SpecTable("cca", "CCA realm token").spec
_PLATFORM = SpecTable("cca", "CCA platform token").spec

# DEN0137, A7.2.3.2.5; draft-ffm-rats-cca-token, section 4.3.2: ranges of 256 values.
_LIFECYCLES = {
    0x00: "unknown",
    0x10: "assembly_and_test",
    0x20: "cca_platform_rot_provisioning",
    0x30: "secured",
    0x40: "non_cca_platform_rot_debug",
    0x50: "recoverable_cca_platform_rot_debug",
    0x60: "decommissioned",
}


CCA_CLAIMS: tuple[ClaimSpec, ...] = (
    _REALM(
        "realm.profile", _TEXT, "EAT profile of the realm token, where it names one"
    ),
    _REALM("realm.challenge", _BYTES, "what the realm asked to have signed", size=64),
    _REALM(
        "realm.personalization_value", _BYTES, "what the host gave the realm", size=64
    ),
    _REALM(
        "realm.initial_measurement",
        _BYTES,
        "measurement of its initial state",
        boot=True,
    ),
    *(
        _REALM(
            f"realm.extensible_measurement{index}",
            _BYTES,
            f"register {index}, which it extends",
        )
        for index in range(4)
    ),
    _REALM("realm.hash_algo_id", _TEXT, "hash of the realm's measurements"),
    _REALM("realm.public_key_hash_algo_id", _TEXT, "hash by which its key is named"),
    _PLATFORM("platform.profile", _TEXT, "EAT profile of the platform token"),
    _PLATFORM(
        "platform.implementation_id", _BYTES, "implementation of the platform", size=32
    ),
    _PLATFORM(
        "platform.instance_id", _BYTES, "instance of the platform (UEID)", size=33
    ),
    _PLATFORM("platform.config", _BYTES, "configuration of the platform"),
    _PLATFORM(
        "platform.lifecycle",
        _TEXT,
        "state of the platform's life cycle, in words",
        safety=Safety(
            reason="in any other state somebody debugs or provisions the platform",
            default=("secured",),
        ),
    ),
    _PLATFORM("platform.hash_algo_id", _TEXT, "hash of the platform's measurements"),
    _PLATFORM("platform.verification_service", _TEXT, "who it says can verify it"),
    _PLATFORM(
        "platform.sw_components",
        ClaimType.TEXTS,
        "firmware, each as type=…;version=…;measurement=…;signer=…",
    ),
    _PLATFORM(
        "platform.sw_components_sha256",
        _BYTES,
        "SHA-256 of the canonical JSON of that list, for reference values",
        size=32,
    ),
)


def claims_of(token: CcaToken) -> dict[str, ClaimValue]:
    """Return every claim of a token, by full name."""
    realm, platform = token.realm, token.platform
    values: dict[str, ClaimValue] = {
        "cca.realm.challenge": realm.challenge.hex(),
        "cca.realm.personalization_value": realm.personalization_value.hex(),
        "cca.realm.initial_measurement": realm.initial_measurement.hex(),
        "cca.realm.hash_algo_id": realm.hash_algo_id,
        "cca.realm.public_key_hash_algo_id": realm.public_key_hash_algo_id,
        **{
            f"cca.realm.extensible_measurement{index}": value.hex()
            for index, value in enumerate(realm.extensible_measurements)
        },
        **_platform_claims(platform),
    }
    if realm.profile is not None:
        values["cca.realm.profile"] = realm.profile
    return values


def lifecycle_of(value: int) -> str:
    """Return the state that a life cycle value names; `reserved` is none of them."""
    return _LIFECYCLES.get(value >> 8, "reserved") if value >= 0 else "reserved"


def _platform_claims(platform: Platform) -> dict[str, ClaimValue]:
    components = tuple(_written(one) for one in platform.sw_components)
    digest = hashlib.sha256(canonical_json(list(components)))
    values: dict[str, ClaimValue] = {
        "cca.platform.profile": platform.profile,
        "cca.platform.implementation_id": platform.implementation_id.hex(),
        "cca.platform.instance_id": platform.instance_id.hex(),
        "cca.platform.config": platform.config.hex(),
        "cca.platform.lifecycle": lifecycle_of(platform.lifecycle),
        "cca.platform.hash_algo_id": platform.hash_algo_id,
        "cca.platform.sw_components": components,
        "cca.platform.sw_components_sha256": digest.hexdigest(),
    }
    if platform.verification_service is not None:
        values["cca.platform.verification_service"] = platform.verification_service
    return values


def _written(component: SoftwareComponent) -> str:
    # The texts come from signed firmware; a separator in them must not look like ours.
    texts = {
        "type": component.component_type,
        "version": component.version,
        "measurement": component.measurement_value.hex(),
        "signer": component.signer_id.hex(),
    }
    return ";".join(
        f"{name}={text.replace('%', '%25').replace(';', '%3b')}"
        for name, text in texts.items()
        if text is not None
    )
