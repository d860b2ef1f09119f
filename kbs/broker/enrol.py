"""Enrolment: a guest proves that its AK lives in the TPM of a certified EK.

1. `begin`: the EK's certificate chains to a governed CA of purpose `ek` in that
   tenant, the AK has the attributes of one; the answer is a credential that only that
   TPM opens, and a token that carries everything, so that nothing is stored.
2. `activate`: the secret comes back; the enrolment is pending, logged, and trusts
   nobody until an administrator's signed statement makes it so.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from cryptography import x509

from kbs.audit.events import EnrolmentPending
from kbs.broker.actors import Actor
from kbs.broker.commit import Work
from kbs.broker.enrolment_token import MAX_PUBLIC_BYTES, Candidate, EnrolmentTokens
from kbs.broker.governance import Governance
from kbs.broker.identity import Identity
from kbs.broker.journal import Journal
from kbs.broker.pending import PendingSeal, require_room
from kbs.broker.ports import Database, PendingEnrolment, Transaction
from kbs.broker.snapshot import Snapshot
from kbs.core.clock import Clock, format_time
from kbs.core.encode import (
    b64,
    parse_b64,
    require_list,
    require_members,
)
from kbs.core.errors import (
    ConflictError,
    IntegrityError,
    NotFoundError,
    VerificationError,
)
from kbs.core.ids import SHARED_TENANT, parse_scoped_name
from kbs.evidence.model import TrustedCA
from kbs.evidence.vtpm.ak import FORBIDDEN, REQUIRED
from kbs.evidence.vtpm.credential import (
    check_endorsement_certificate,
    make_credential,
)
from kbs.evidence.vtpm.public import parse_public
from kbs.governance.authority import Role
from kbs.pki import certificates as pki
from kbs.pki.chain import Chain, build_chain, out_of_date

MAX_CHAIN = 8
SECRET_BYTES = 32
LIFETIME = timedelta(minutes=5)
"""How long a guest has to open its credential."""

PENDING_LIFETIME = timedelta(days=30)


class Enrolment:
    """The use cases around attestation keys that want to be trusted."""

    def __init__(
        self,
        *,
        database: Database,
        governance: Governance,
        identity: Identity,
        seal: PendingSeal,
        journal: Journal,
        clock: Clock,
        refused: Callable[[VerificationError], None],
    ) -> None:
        """Use what the composition root made.

        `refused` is told of every EK that no CA vouches for, with the names that only
        administrators may know.
        """
        self._database = database
        self._governance = governance
        self._identity = identity
        self._seal = seal
        self._tokens = EnrolmentTokens(identity.state_key)
        self._journal = journal
        self._clock = clock
        self._refused = refused

    def begin(self, body: dict[str, object]) -> dict[str, object]:
        """Answer with a credential that only this EK's TPM can open for this AK.

        Raises:
            MalformedError: a structure lacks its shape.
            VerificationError: the EK is not certified here, or the AK is no AK.
        """
        members = require_members(
            body,
            "enrolment",
            required={"group", "ak", "ek", "ek_certificate", "ek_chain"},
        )
        group = parse_scoped_name(members["group"], "group")
        ak_public = parse_b64(members["ak"], "ak", limit=MAX_PUBLIC_BYTES)
        attestation = parse_public(ak_public)
        endorsement = parse_public(
            parse_b64(members["ek"], "ek", limit=MAX_PUBLIC_BYTES)
        )
        _require_attestation_key(ak_public)
        certificate, pool = _certificates(members)
        check_endorsement_certificate(endorsement, certificate)
        now = self._clock.now()
        with self._database.read() as tx:
            cas = _endorsing(self._governance.snapshot(tx), group.tenant)
        ca = self._certified_by(certificate, pool, cas, group.tenant, now)
        secret = secrets.token_bytes(SECRET_BYTES)
        credential = make_credential(endorsement, attestation.name, secret)
        candidate = Candidate(
            group=group,
            ak_public=ak_public,
            ak_name=attestation.name,
            ek_certificate=pki.der(certificate),
            ca=ca,
            expires=now + LIFETIME,
        )
        return {
            "enrolment": self._tokens.make(candidate, secret),
            "credential_blob": b64(credential.credential_blob),
            "encrypted_secret": b64(credential.secret),
            "expires": format_time(candidate.expires),
        }

    def _certified_by(
        self,
        certificate: x509.Certificate,
        pool: tuple[x509.Certificate, ...],
        cas: Sequence[TrustedCA],
        tenant: str,
        now: datetime,
    ) -> str:
        for ca in cas:
            if _chains_to(certificate, pool, ca, now):
                return f"{ca.tenant}/{ca.name}"
        names = ", ".join(f"{ca.tenant}/{ca.name}" for ca in cas)
        self._refused(_uncertified(certificate, tenant, names or "none registered"))
        # A stranger does not learn which tenants trust somebody, and whom.
        raise _uncertified(certificate, tenant)

    def activate(self, body: dict[str, object]) -> dict[str, object]:
        """Keep a pending enrolment whose TPM opened the credential.

        What is pending already keeps its id, and nothing is logged a second time: a
        token may be shown again and again while it lasts.

        Raises:
            AuthenticationError: the token is not ours, too old, or the secret wrong.
            ConflictError: this AK is pending there with another EK of its TPM.
            UnavailableError: too many are pending.
        """
        members = require_members(body, "activation", required={"enrolment", "secret"})
        secret = parse_b64(members["secret"], "secret", limit=SECRET_BYTES)
        now = self._clock.now()
        candidate = self._tokens.open(members["enrolment"], secret, now)
        pending = self._seal.seal(
            PendingEnrolment(
                id=secrets.token_hex(16),
                tenant=candidate.group.tenant,
                group=candidate.group.name,
                ak_public=candidate.ak_public,
                ak_name=candidate.ak_name,
                ek=_ek_digest(candidate.ek_certificate),
                ek_certificate=candidate.ek_certificate,
                ca=candidate.ca,
                created=now,
                expires=now + PENDING_LIFETIME,
            )
        )

        def run(work: Work) -> str:
            known = self._known(work, pending)
            if known is not None:
                return known.id
            require_room(work.tx.enrolments, pending)
            work.tx.enrolments.insert(pending)
            work.append(
                self._journal.entry(
                    EnrolmentPending(
                        enrolment=pending.id,
                        tenant=pending.tenant,
                        group=pending.group,
                        ak_name=pending.ak_name.hex(),
                        ek=self._identity.pseudonym(pending.ek),
                        ca=pending.ca,
                    )
                )
            )
            return pending.id

        return {
            "id": self._journal.change(run).value,
            "status": "pending",
            "group": str(candidate.group),
            "ak_name": pending.ak_name.hex(),
        }

    def _known(self, work: Work, pending: PendingEnrolment) -> PendingEnrolment | None:
        found = work.tx.enrolments.find_key(
            pending.tenant, pending.group, pending.ak_name
        )
        # One that is over, or that somebody changed, gives way to what was just proven.
        if found is None or found.expires <= pending.created:
            return None
        if self._seal.fault(found) is not None:
            return None
        if found.ek != pending.ek:
            raise ConflictError(
                f"enrolment of {pending.ak_name.hex()}",
                got="one that is pending with another endorsement key",
                expected="one endorsement key for an AK in a group",
                hint="have an administrator accept or forget the pending one",
                code="enrolment.pending",
            )
        return found

    def list(self, actor: Actor) -> dict[str, object]:
        """Return the pending enrolments of the caller's tenants.

        Rows that were changed in the database are named apart, without their content.
        """
        actor.require_any()
        with self._database.read() as tx:
            rows = tx.enrolments.list(actor.tenants(*Role))
        faults = [(row, self._seal.fault(row)) for row in rows]
        return {
            "enrolments": [_to_json(row) for row, fault in faults if fault is None],
            "tampered": [
                _fault_json(row, fault) for row, fault in faults if fault is not None
            ],
        }

    def show(self, actor: Actor, enrolment_id: str) -> dict[str, object]:
        """Return one pending enrolment.

        Raises:
            NotFoundError: there is none, or no role reaches its tenant.
            IntegrityError: it was changed in the database.
        """
        actor.require_any()
        with self._database.read() as tx:
            found = self._visible(tx, actor, enrolment_id)
        self._seal.verify(found)
        return _to_json(found)

    def forget(self, actor: Actor, enrolment_id: str) -> dict[str, object]:
        """Forget one pending enrolment, also one that was changed in the database.

        Raises:
            NotFoundError: there is none, or no role reaches its tenant.
            ForbiddenError: the caller is no policy administrator of its tenant.
        """
        actor.require_any()
        with self._database.read() as tx:
            tenant = self._visible(tx, actor, enrolment_id).tenant
        actor.require(Role.POLICY_ADMIN, tenant)

        def run(work: Work) -> None:
            if self._visible(work.tx, actor, enrolment_id).tenant != tenant:
                raise ConflictError(f"enrolment {enrolment_id}", got="another tenant's")
            work.tx.enrolments.remove(enrolment_id)

        done = self._journal.administer(
            actor,
            "enrolment.forget",
            run,
            target=f"enrolment {enrolment_id}",
            tenant=tenant,
        )
        return {"id": enrolment_id, "entry": done.placed[0].entry.id}

    @staticmethod
    def _visible(tx: Transaction, actor: Actor, enrolment_id: str) -> PendingEnrolment:
        found = tx.enrolments.find(enrolment_id)
        if found is None or not actor.may_see(found.tenant):
            raise NotFoundError(f"enrolment {enrolment_id}", got="none pending")
        return found


def _require_attestation_key(ak_public: bytes) -> None:
    public = parse_public(ak_public)
    wrong = [f"{flag.name} not set" for flag in REQUIRED if not public.has(flag)]
    wrong += [f"{flag.name} set" for flag in FORBIDDEN if public.has(flag)]
    if wrong:
        raise VerificationError(
            "attestation key",
            got=", ".join(wrong),
            expected=", ".join(str(flag.name) for flag in REQUIRED) + ", not DECRYPT",
            hint="a key with other attributes can sign a forged quote",
            code="vtpm.ak.attributes",
        )


def _certificates(
    members: dict[str, object],
) -> tuple[x509.Certificate, tuple[x509.Certificate, ...]]:
    limit = pki.MAX_CERTIFICATE_BYTES
    der = parse_b64(members["ek_certificate"], "ek certificate", limit=limit)
    chain = require_list(members["ek_chain"], "ek chain", limit=MAX_CHAIN)
    pool = tuple(
        pki.load_der_certificate(parse_b64(one, "ek chain", limit=limit), "ek chain")
        for one in chain
    )
    return pki.load_der_certificate(der, "ek certificate"), pool


def _endorsing(snapshot: Snapshot, tenant: str) -> list[TrustedCA]:
    scopes = {tenant}
    if snapshot.view(tenant).shared:
        scopes.add(SHARED_TENANT)
    return [ca for ca in snapshot.cas if ca.purpose == "ek" and ca.tenant in scopes]


def _uncertified(
    certificate: x509.Certificate, tenant: str, cas: str | None = None
) -> VerificationError:
    return VerificationError(
        "endorsement certificate",
        got=f"one issued by {pki.describe(certificate.issuer)}",
        expected=f"one that chains to a CA of purpose ek in {tenant}"
        + ("" if cas is None else f" ({cas})"),
        hint="an administrator registers it: kbs ref add ca … --purpose ek",
        code="vtpm.ek.chain",
    )


def _chains_to(
    certificate: x509.Certificate,
    pool: tuple[x509.Certificate, ...],
    ca: TrustedCA,
    now: datetime,
) -> bool:
    found = build_chain(certificate, pool, roots={}, anchors=(ca.certificate,))
    return isinstance(found, Chain) and not out_of_date(found.certificates, now)


def _ek_digest(ek_certificate: bytes) -> bytes:
    certificate = pki.load_der_certificate(ek_certificate, "ek certificate")
    return bytes.fromhex(pki.spki_sha256(certificate))


def _fault_json(row: PendingEnrolment, fault: IntegrityError) -> dict[str, object]:
    return {"id": row.id, "code": fault.code, "detail": str(fault)}


def _to_json(row: PendingEnrolment) -> dict[str, object]:
    return {
        "id": row.id,
        "tenant": row.tenant,
        "group": row.group,
        "ak_public": b64(row.ak_public),
        "ak_name": row.ak_name.hex(),
        "ek": row.ek.hex(),
        "ek_certificate": b64(row.ek_certificate),
        "ca": row.ca,
        "created": format_time(row.created),
        "expires": format_time(row.expires),
    }
