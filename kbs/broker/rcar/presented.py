"""An RCAR attestation as evidence of a door: a bundle, its binding, its init-data."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from kbs.channel.challenge import Door
from kbs.channel.rcar_binding import RcarBinding
from kbs.channel.session import Session
from kbs.channel.tee_key import TeeKey, parse_tee_key
from kbs.core.checks import Check, Status
from kbs.core.claims import Claims
from kbs.core.errors import AuthenticationError, MalformedError
from kbs.core.ids import KeyRef
from kbs.evidence.bundle import MAX_ITEMS, Bundle
from kbs.evidence.forms import form_of, item_of, items_of
from kbs.evidence.joining import BundleBinding
from kbs.wire.rcar import InitData, parse_attestation

INIT_DATA = "rcar.init_data"
"""The check that the init-data text is what the hardware measured."""

# Registers that the host sets at start: the claim, and its bytes.
_SET_REGISTERS = {
    "host_data": ("snp.host_data", 32),
    "mr_config_id": ("tdx.mr_config_id", 48),
    "config_id": ("sgx.config_id", 64),
}

PRIMARY = "rcar.primary"
"""The check that the evidence which binds the others is the session's own kind."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RcarPresented:
    """One message of `/attest`, well-formed; nothing of it is proven."""

    session: Session
    body: bytes = field(repr=False)
    bundle: Bundle
    tee_key: TeeKey
    additional: str = field(repr=False)
    init_data: InitData | None
    init_data_register: str | None
    evidence_digest: bytes
    """The digest of the message, by which recorded evidence is found again."""

    @property
    def door_name(self) -> str:
        """The door as claims and entries name it."""
        return Door.RCAR.name.lower()

    @property
    def binding(self) -> BundleBinding:
        """The bytes that the items must carry."""
        return RcarBinding(self.session.nonce, self.tee_key, self.additional)

    @property
    def keys(self) -> tuple[KeyRef, ...] | None:
        """What is asked for is said later, resource by resource."""
        return None


def present(body: bytes, session: Session) -> RcarPresented:
    """Read a message of `/attest`.

    Raises:
        MalformedError: it lacks the promised shape.
        AuthenticationError: it is about another nonce than the session's.
    """
    message = parse_attestation(body)
    if message.nonce != session.nonce:
        raise AuthenticationError(
            "runtime-data nonce",
            got="another one",
            expected="the nonce of this session's challenge",
            hint="begin again with /auth",
            code="session.nonce",
        )
    items = [item_of(session.tee, message.primary)]
    for tee, evidence in message.devices.items():
        items += items_of(tee, evidence)
    if len(items) > MAX_ITEMS:
        raise MalformedError(
            "tee-evidence", got=f"{len(items)} items", expected=f"at most {MAX_ITEMS}"
        )
    return RcarPresented(
        session=session,
        body=body,
        bundle=Bundle(tuple(items)),
        tee_key=parse_tee_key(message.tee_pubkey),
        additional=message.additional,
        init_data=message.init_data,
        init_data_register=form_of(session.tee).init_data,
        evidence_digest=hashlib.sha256(body).digest(),
    )


def check_primary(primary: int | None) -> Check:
    """Say whether the item that binds the set is the one that the session names."""
    if primary == 0:
        return Check(id=PRIMARY, status=Status.PASS)
    return Check(
        id=PRIMARY,
        status=Status.FAIL,
        detail="another item than the primary evidence would bind the set",
        got="none" if primary is None else f"item {primary}",
        expected="item 0",
    )


def check_init_data(presented: RcarPresented, claims: Claims | None) -> Check | None:
    """Say whether the init-data is what its register holds; None where none came.

    Confidential Containers put its digest into HOST_DATA of an SNP guest, MRCONFIGID of
    a TD or CONFIGID of an enclave (cut or padded to that field), into the
    personalization value of a CCA realm (as it is), and extend PCR 8 by it in guests
    with a TPM.
    """
    data = presented.init_data
    if data is None:
        return None
    register = presented.init_data_register
    if register is None:
        return Check(
            id=INIT_DATA,
            status=Status.SKIPPED,
            detail="nothing in evidence of this kind carries init-data",
        )
    if claims is None:
        return Check(
            id=INIT_DATA, status=Status.SKIPPED, detail="the evidence is not verified"
        )
    digest = data.digest()
    if register in _SET_REGISTERS:
        name, size = _SET_REGISTERS[register]
        expected = digest[:size].ljust(size, b"\0")
    elif register == "personalization_value":
        name, expected = "cca.realm.personalization_value", digest
    else:
        # The vTPM's own family, or that of a VM whose hardware vouches for it.
        name = f"{claims.items[0].family}.pcr.sha256.8"
        expected = hashlib.sha256(bytes(32) + digest).digest()
    got = claims.items[0].values.get(name)
    if got == expected.hex():
        return Check(id=INIT_DATA, status=Status.PASS, item=0)
    return Check(
        id=INIT_DATA,
        status=Status.FAIL,
        item=0,
        detail=f"the init-data is not what {name} holds",
        got="absent" if got is None else str(got),
        expected=expected.hex(),
    )
