"""Attestation keys on their way to trust: what a guest proved, or a file by hand."""

from __future__ import annotations

from collections.abc import Mapping

from kbs.core.encode import b64, parse_b64, parse_hex
from kbs.core.errors import MalformedError
from kbs.core.ids import parse_name
from kbs.governance.attestation_key import (
    AttestationKey,
    Enrolment,
    parse_attestation_key,
    tpm_name,
)

_MAX_PUBLIC = 1024
_DIGITS = 12
# A name has at most 64 characters: the group, a dash, the digits.
_MAX_GROUP = 64 - 1 - _DIGITS


def accepted(pending: Mapping[str, object]) -> tuple[str, AttestationKey]:
    """Return tenant and key of a pending enrolment, ready to be signed.

    Raises:
        MalformedError: it lacks its shape, or its name is not that of its key.
    """
    public = parse_b64(pending.get("ak_public"), "ak_public", limit=_MAX_PUBLIC)
    key = parse_attestation_key(
        {
            "group": pending.get("group"),
            "name": parse_hex(pending.get("ak_name"), "ak_name").hex(),
            "public": b64(public),
            "how": Enrolment.ACTIVATION.value,
            "ek": pending.get("ek"),
        }
    )
    return parse_name(pending.get("tenant"), "enrolment tenant"), key


def by_hand(group: str, data: bytes) -> AttestationKey:
    """Return a key that nobody proved to live in a TPM.

    Raises:
        MalformedError: the file is no TPM2B_PUBLIC.
    """
    try:
        name = tpm_name(data)
    except MalformedError as exc:
        raise MalformedError(
            "--public",
            got=str(exc),
            expected="TPM2B_PUBLIC",
            hint="PEM does not say whether the key is restricted; "
            "tpm2_readpublic -f tss writes what is needed",
        ) from exc
    return AttestationKey(
        group=parse_name(group, "group"),
        name=name,
        public=data,
        how=Enrolment.MANUAL,
    )


def object_name(key: AttestationKey) -> str:
    """Return the object's name: the group and digits of the AK's name."""
    group = key.group[:_MAX_GROUP].rstrip("._-")
    # TPM 2.0 Library, Part 1, section 16: u16 algorithm, then the digest.
    return f"{group}-{key.name[2:].hex()[:_DIGITS]}"


def print_pending(answer: Mapping[str, object]) -> None:
    """Print pending enrolments as a table, below a line for each damaged one."""
    import click

    from kbs.cli.context import one_line
    from kbs.cli.render import table

    damaged = answer.get("tampered")
    for row in damaged if isinstance(damaged, list) else []:
        if isinstance(row, dict):
            click.echo(one_line(f"TAMPERED {row.get('id')}: {row.get('detail')}"))

    listed = answer.get("enrolments")
    rows = listed if isinstance(listed, list) else []
    columns = ("id", "tenant", "group", "ak_name", "ca", "expires")
    table(
        columns,
        [[row.get(name) for name in columns] for row in rows if isinstance(row, dict)],
    )
