"""Who calls as an administrator, and what their roles reach.

Neither loopback nor a forwarded header gives rights: only a token signed by a key of
the authority in force, for this instance, method, path and body, at most 60 seconds
old, and single use for writes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from kbs.broker.governance import Governance
from kbs.broker.ports import Database
from kbs.broker.reading import read_latest
from kbs.channel.token import SignedRequest, VerifiedToken, verify_token
from kbs.channel.upload_token import verify_upload_token
from kbs.core.clock import Clock
from kbs.core.errors import (
    AuthenticationError,
    ConflictError,
    ForbiddenError,
    KbsError,
)
from kbs.core.ids import SHARED_TENANT
from kbs.governance.authority import Administrator, Authority, Role
from kbs.governance.statement import EVERY_TENANT

log = logging.getLogger("kbs.admin")

SAFE_METHODS = frozenset({"GET", "HEAD"})


@dataclass(frozen=True, slots=True)
class Actor:
    """An authenticated administrator under the authority in force at that moment."""

    administrator: Administrator
    authority: Authority

    @property
    def name(self) -> str:
        """The name that the authority gives this key."""
        return self.administrator.name

    def may(self, role: Role, tenant: str) -> bool:
        """Whether this administrator has a role in a tenant."""
        return self.administrator.may(role, tenant)

    def require(self, role: Role, tenant: str) -> None:
        """Return if this administrator has `role` in `tenant`.

        Raises:
            ForbiddenError: not so.
        """
        self.require_one_of({role}, tenant)

    def require_one_of(self, roles: Collection[Role], tenant: str) -> None:
        """Return if this administrator has one of `roles` in `tenant`.

        Raises:
            ForbiddenError: not so.
        """
        if not any(self.may(role, tenant) for role in roles):
            raise ForbiddenError(
                f"administrator {self.name}",
                got=self._roles(),
                expected=f"{' or '.join(sorted(roles))} in {tenant}",
                hint="an authority change gives roles",
                code="admin.role",
            )

    def require_anywhere(self, role: Role) -> None:
        """Return if this administrator has `role` in some repository.

        Raises:
            ForbiddenError: not so.
        """
        if not any(grant.role is role for grant in self.administrator.roles):
            self.require(role, EVERY_TENANT)

    def require_any(self) -> None:
        """Return if this administrator has any role at all.

        Raises:
            ForbiddenError: none.
        """
        if not self.administrator.roles:
            raise ForbiddenError(
                f"administrator {self.name}",
                got="no role",
                expected="any role",
                code="admin.role",
            )

    def require_tenant(self, tenant: str) -> None:
        """Return if some role of this administrator reaches `tenant`.

        Raises:
            ForbiddenError: none does.
        """
        if not any(self.may(role, tenant) for role in Role):
            raise ForbiddenError(
                f"administrator {self.name}",
                got=self._roles(),
                expected=f"a role in {tenant}",
                hint="an authority change gives roles",
                code="admin.role",
            )

    def tenants(self, *roles: Role) -> tuple[str, ...] | None:
        """Return the tenants in which one of `roles` is held; None means all."""
        names: set[str] = set()
        for grant in self.administrator.roles:
            if grant.role in roles:
                names.update(grant.repositories)
        return None if EVERY_TENANT in names else tuple(sorted(names))

    def may_see(self, tenant: str) -> bool:
        """Whether some role reaches this tenant, or it is shared."""
        return tenant == SHARED_TENANT or any(self.may(role, tenant) for role in Role)

    def _roles(self) -> str:
        grants = [
            f"{grant.role} in {', '.join(grant.repositories)}"
            for grant in self.administrator.roles
        ]
        return "; ".join(grants) or "no role"


class Actors:
    """Turns an Authorization header into an `Actor`."""

    def __init__(
        self,
        database: Database,
        governance: Governance,
        clock: Clock,
        *,
        instance: str,
        refused: Callable[[AuthenticationError], None] = lambda _: None,
        forbidden: Callable[[Actor, str, ForbiddenError], object] = lambda *_: None,
    ) -> None:
        """Tell `refused` of every token that does not authenticate.

        `forbidden` is told of known administrators who may not do what they try.
        """
        self._database = database
        self._governance = governance
        self._clock = clock
        self._instance = instance
        self._refused = refused
        self._forbidden = forbidden

    def authenticate(
        self, header: str | None, *, method: str, path: str, body: bytes
    ) -> Actor:
        """Return who signed this request.

        Raises:
            AuthenticationError: no token, or one that is not good for this request.
        """
        try:
            return self._authenticate(header, method=method, path=path, body=body)
        except AuthenticationError as exc:
            self._refused(exc)
            raise

    def authenticate_upload(self, header: str | None) -> Actor:
        """Return who signed a token of the RCAR tools, which is good for uploads only.

        Raises:
            AuthenticationError: no token, or one that is not good.
        """
        try:
            return self._authenticate_upload(_bearer(header))
        except AuthenticationError as exc:
            self._refused(exc)
            raise

    def _authenticate_upload(self, text: str) -> Actor:
        snapshot = read_latest(self._database, self._governance.snapshot)
        authority = snapshot.state.authority.content
        keys = {
            one.keyid: key
            for one in authority.administrators
            if isinstance(key := one.public_key, Ed25519PublicKey)
        }
        keyid = verify_upload_token(text, keys, now=self._clock.now())
        administrator = authority.find(keyid)
        if administrator is None:
            raise AuthenticationError("token key", got="unknown", code="admin.token")
        return Actor(administrator, authority)

    def forbid(self, actor: Actor, action: str, error: ForbiddenError) -> None:
        """Record that a known administrator was refused; the refusal stands anyway."""
        try:
            self._forbidden(actor, action, error)
        except KbsError as exc:
            log.error("refusal of %s is not recorded: %s", actor.name, exc)  # noqa: TRY400

    def _authenticate(
        self, header: str | None, *, method: str, path: str, body: bytes
    ) -> Actor:
        text = _bearer(header)
        is_safe, governance = method in SAFE_METHODS, self._governance
        find = governance.proven if is_safe else governance.snapshot
        snapshot = read_latest(self._database, find)
        authority = snapshot.state.authority.content

        def find_key(keyid: str) -> Ed25519PublicKey | None:
            found = authority.find(keyid)
            key = None if found is None else found.public_key
            return key if isinstance(key, Ed25519PublicKey) else None

        token = verify_token(
            text,
            SignedRequest(method=method, path=path, body=body),
            instance=self._instance,
            find_key=find_key,
            now=self._clock.now(),
        )
        administrator = authority.find(token.keyid)
        if administrator is None:
            raise AuthenticationError("token key", got="unknown", code="admin.token")
        if method not in SAFE_METHODS:
            self._spend(token)
        return Actor(administrator, authority)

    def _spend(self, token: VerifiedToken) -> None:
        try:
            with self._database.write() as tx:
                tx.tokens.use(token.jti, token.expires)
        except ConflictError as exc:
            raise AuthenticationError(
                "token",
                got="one that was used already",
                expected="a fresh one for every change",
                code="admin.token_replayed",
            ) from exc


def _bearer(header: str | None) -> str:
    scheme, _, text = (header or "").partition(" ")
    if scheme.lower() != "bearer" or not text:
        raise AuthenticationError(
            "Authorization",
            got="none" if header is None else "another scheme",
            expected="Bearer and an administrator's token",
            hint="the command line signs one from its profile",
            code="admin.token",
        )
    return text
