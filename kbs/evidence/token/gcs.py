"""Tokens of Google Cloud Attestation for Confidential Space (`gcs`).

Claims: "Attestation token claims" of its documentation. OIDC tokens are signed by keys
that Google publishes as a set, PKI tokens carry their chain to a pinned root (`x5c`).
Bound by `eat_nonce`: one nonce, never a list of them.
"""

from __future__ import annotations

from kbs.core.claims import ClaimType, ClaimValue, Safety
from kbs.evidence.token.fields import Table, read_fields, value_at
from kbs.evidence.token.service import Service, Token, eat_nonce, is_eat_nonce
from kbs.pki.issuers import Profile

_TABLE = Table("gcs", "token of Google Cloud Attestation")
_ROW = _TABLE.row
_CONTAINER = ("submods", "container")
_GCE = ("submods", "gce")

FIELDS = (
    _ROW("iss", ClaimType.TEXT, "the service"),
    _ROW("aud", ClaimType.TEXT, "audience"),
    _ROW("sub", ClaimType.TEXT, "the instance, as a URL"),
    _ROW("eat_profile", ClaimType.TEXT, "EAT profile"),
    _ROW("eat_nonce", ClaimType.TEXT, "the nonce, where there is exactly one"),
    _ROW(
        "hwmodel",
        ClaimType.TEXT,
        "TEE of the instance",
        safety=Safety(
            reason="a shielded VM (GCP_SHIELDED_VM) has no encrypted memory",
            default=("GCP_INTEL_TDX", "GCP_AMD_SEV", "GCP_AMD_SEV_ES"),
        ),
    ),
    _ROW(
        "swname",
        ClaimType.TEXT,
        "software of the instance",
        safety=Safety(
            reason="only Confidential Space says which container runs",
            default=("CONFIDENTIAL_SPACE",),
        ),
    ),
    _ROW("swversion", ClaimType.TEXTS, "version of the image"),
    _ROW("oemid", ClaimType.INT, "IANA number of the maker"),
    _ROW(
        "secboot",
        ClaimType.BOOL,
        "secure boot",
        safety=Safety(reason="another kernel may have booted", default=(True,)),
    ),
    _ROW(
        "dbgstat",
        ClaimType.TEXT,
        "debug state of the image",
        safety=Safety(
            reason="the operator of a debug image has a shell in it",
            default=("disabled-since-boot",),
        ),
    ),
    _ROW("attester_tcb", ClaimType.TEXTS, "whose hardware the evidence comes from"),
    _ROW("google_service_accounts", ClaimType.TEXTS, "accounts of the workload"),
    _ROW(
        ("submods", "confidential_space", "support_attributes"),
        ClaimType.TEXTS,
        "how the image is supported",
    ),
    _ROW(
        ("submods", "confidential_space", "monitoring_enabled", "memory"),
        ClaimType.BOOL,
        "whether memory use is told to the operator",
    ),
    _ROW((*_CONTAINER, "image_reference"), ClaimType.TEXT, "image as it was named"),
    _ROW(
        (*_CONTAINER, "image_digest"),
        ClaimType.TEXT,
        "digest of the image's manifest",
        boot=True,
    ),
    _ROW(
        (*_CONTAINER, "image_id"),
        ClaimType.TEXT,
        "digest of the image's configuration",
        boot=True,
    ),
    _ROW((*_CONTAINER, "restart_policy"), ClaimType.TEXT, "restart policy"),
    _ROW((*_CONTAINER, "args"), ClaimType.TEXTS, "arguments, the program first"),
    _ROW((*_CONTAINER, "cmd_override"), ClaimType.TEXTS, "arguments that the host set"),
    _ROW((*_GCE, "project_id"), ClaimType.TEXT, "project"),
    _ROW((*_GCE, "project_number"), ClaimType.TEXT, "number of the project"),
    _ROW((*_GCE, "zone"), ClaimType.TEXT, "zone"),
    _ROW((*_GCE, "instance_name"), ClaimType.TEXT, "name of the instance"),
    _ROW((*_GCE, "instance_id"), ClaimType.TEXT, "number of the instance"),
)

_ENVIRONMENT = _TABLE.spec(
    "submods.container.env_override",
    ClaimType.TEXTS,
    "variables that whoever started it set, as NAME=VALUE, sorted",
)


def _devices(token: Token) -> tuple[dict[str, ClaimValue], ...]:
    values = read_fields(FIELDS, token.claims)
    path = ("submods", "container", "env_override")
    variables = value_at(token.claims, path)
    if isinstance(variables, dict) and all(map(_is_variable, variables.items())):
        pairs = (f"{name}={value}" for name, value in variables.items())
        values[_ENVIRONMENT.name] = tuple(sorted(pairs))
    return (values,)


def _is_variable(pair: tuple[str, object]) -> bool:
    # One spelling: `A=1` is never a name.
    return "=" not in pair[0] and isinstance(pair[1], str)


SERVICE = Service(
    profile=Profile.GCS,
    fields=FIELDS,
    derived=(_ENVIRONMENT,),
    devices=_devices,
    bound=eat_nonce,
    is_bound=is_eat_nonce,
)
