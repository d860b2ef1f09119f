"""The administrators' HTTP API, from the command line.

Every request carries a token of its own, signed by the profile's key over method, path
and body. Statements are signed here, over digests that were computed here: a broker
cannot make an administrator sign something else than what he registered.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Self, TypeVar

from kbs.channel.token import SignedRequest, mint_token
from kbs.cli.admin_transport import AdminTransport, error_of, path_with
from kbs.cli.context import CliContext
from kbs.cli.profile import Profile, load_profile
from kbs.client.transport import Reply
from kbs.core.clock import Clock, SystemClock
from kbs.core.encode import b64, parse_hex, require_integer
from kbs.core.errors import ConflictError, VerificationError
from kbs.core.ids import ScopedName, parse_hex32
from kbs.governance.signature import sign_statement
from kbs.governance.statement import Action, Envelope, Kind, Statement

T = TypeVar("T")

STATEMENT_RETRIES = 20
"""How often a statement is signed anew when another administrator was faster."""

_RETRY_SECONDS = 0.2
_LONGEST_SECONDS = 1.0
_OK = range(200, 300)


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What the next statement must follow, and the authority as the broker shows it."""

    seq: int
    prev: str
    document: Mapping[str, object]


class AdminClient:
    """Calls the broker as the administrator of a profile; a context manager."""

    def __init__(
        self,
        profile: Profile,
        transport: AdminTransport,
        *,
        clock: Clock | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Read the private key; connect when first asked."""
        self.profile = profile
        self._transport = transport
        self._key = profile.admin_key()
        self._clock = clock or SystemClock()
        self._sleep = sleep

    @classmethod
    def from_context(cls, context: CliContext) -> Self:
        """Return a client of the profile's broker, or of `--server`.

        Raises:
            MalformedError: there is no profile.
            ForbiddenError: its private key may be read by others.
        """
        profile = load_profile(context.profile)
        server = context.server or profile.server or context.require_server()
        transport = AdminTransport(server, tls_sha256=profile.tls_sha256)
        return cls(profile, transport)

    def __enter__(self) -> Self:
        """Return the client."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the connections."""
        self._transport.close()

    def get(
        self, path: str, params: Mapping[str, str | int | None] | None = None
    ) -> dict[str, object]:
        """Read a JSON object; parameters that are None are left out.

        Raises:
            KbsError: the broker refuses, or does not answer.
        """
        whole = path_with(path, params)
        headers = self._headers("GET", whole, b"")
        return _checked(self._transport.get(whole, headers)).json()

    def post(self, path: str, body: Mapping[str, object]) -> dict[str, object]:
        """Send a JSON object and return the answer.

        Raises:
            KbsError: the broker refuses, or does not answer.
        """
        data = json.dumps(body, ensure_ascii=True, separators=(",", ":")).encode()
        headers = self._headers("POST", path, data)
        return _checked(self._transport.post(path, data, headers)).json()

    def get_public(self, path: str) -> Reply:
        """Read what anybody may read, such as the log's checkpoint.

        Raises:
            KbsError: the broker refuses, or does not answer.
        """
        return _checked(self._transport.get(path))

    @contextmanager
    def lines(self, path: str) -> Iterator[Iterator[bytes]]:
        """Give the lines of an answer of any length, with their ends.

        Raises:
            KbsError: the broker refuses, or does not answer.
        """
        headers = self._headers("GET", path, b"")
        with self._transport.streaming(path, headers) as (reply, lines):
            _checked(reply)
            yield lines

    def sign_and_submit(
        self,
        action: Action,
        kind: Kind,
        *,
        tenant: str,
        name: str,
        version: int,
        digest: str,
    ) -> dict[str, object]:
        """Sign the next statement and have it accepted; it is in force on return.

        When another administrator was faster, the statement is signed anew.

        Raises:
            ConflictError: the object does not fit what is in force, or others were
                faster every time.
            KbsError: the broker refuses, or does not answer.
        """
        subject = ScopedName(tenant, name)

        def once(head: Head) -> dict[str, object]:
            return self.submit_after(
                head, action, kind, subject, version=version, digest=digest
            )

        return self.at_head(once)

    def submit_after(
        self,
        head: Head,
        action: Action,
        kind: Kind,
        subject: ScopedName,
        *,
        version: int,
        digest: str,
    ) -> dict[str, object]:
        """Sign the statement right after a head and have it accepted.

        Raises:
            ConflictError: it does not follow the head any more, or does not fit.
            KbsError: the broker refuses, or does not answer.
        """
        return self.submit(
            Statement(
                instance=self.profile.instance,
                seq=head.seq + 1,
                prev=head.prev,
                action=action,
                kind=kind,
                tenant=subject.tenant,
                name=subject.name,
                version=version,
                digest=digest,
            )
        )

    def at_head(self, once: Callable[[Head], T]) -> T:
        """Return what `once` makes of the head; again when somebody moved it meanwhile.

        Raises:
            ConflictError: others were faster every time, or as `once`.
            VerificationError: another instance answers; nothing was signed.
            KbsError: the broker refuses, or does not answer.
        """
        for attempt in range(STATEMENT_RETRIES + 1):
            try:
                return once(self._head())
            except ConflictError as exc:
                if exc.code != "statement.sequence" or attempt == STATEMENT_RETRIES:
                    raise
            # Apart from each other, or the same ones would meet again.
            longest = min(_RETRY_SECONDS * (attempt + 1), _LONGEST_SECONDS)
            self._sleep(longest * random.random())  # noqa: S311
        raise AssertionError("the last attempt returns or raises")

    def submit(self, statement: Statement) -> dict[str, object]:
        """Sign a statement and have it accepted; it is in force on return.

        Raises:
            ConflictError: it does not follow the head, or does not fit.
            KbsError: the broker refuses, or does not answer.
        """
        envelope = Envelope(statement, (sign_statement(statement, self._key),))
        body = {"envelope": envelope.to_json()}
        return self.post("/admin/v1/governance/statements", body)

    def store_object(
        self, kind: Kind, *, tenant: str, name: str, source: bytes, digest: str
    ) -> dict[str, object]:
        """Store the next version of an object; it is not in force.

        Returns at least `version`, `digest` and `warnings`. `digest` is what was
        computed here, and what the broker must have understood.

        Raises:
            VerificationError: the broker understood something else.
            KbsError: it refuses, or does not answer.
        """
        body = {
            "kind": kind.value,
            "tenant": tenant,
            "name": name,
            "source": b64(source),
        }
        stored = self.post("/admin/v1/objects", body)
        require_integer(stored.get("version"), "stored version", least=1, most=2**53)
        if stored.get("digest") != digest:
            raise VerificationError(
                f"{kind} {tenant}/{name} at the broker",
                got=f"digest {str(stored.get('digest'))[:80]}",
                expected=f"{digest}, as computed here",
                hint="the broker reads it in another way; nothing was signed",
                code="statement.digest",
            )
        return stored

    def create_key(
        self, key_id: str, kind: str, value: bytes | None = None
    ) -> dict[str, object]:
        """Create version 1 of a key: generated by the broker, or these bytes.

        Raises:
            ConflictError: the key exists.
            KbsError: the broker refuses, or does not answer.
        """
        body: dict[str, object] = {"id": key_id, "kind": kind}
        if value is not None:
            body["value"] = b64(value)
        return self.post("/admin/v1/keys", body)

    def rotate_key(self, key_id: str, value: bytes | None = None) -> dict[str, object]:
        """Give a key its next version: generated by the broker, or these bytes.

        Raises:
            KbsError: the broker refuses, or does not answer.
        """
        body = {} if value is None else {"value": b64(value)}
        return self.post(f"/admin/v1/keys/{key_id}/rotate", body)

    def import_key(self, key_id: str, kind: str, value: bytes) -> dict[str, object]:
        """Bring bytes in as version 1 of a key, or as its next version.

        Raises:
            KbsError: the broker refuses, or does not answer.
        """
        try:
            return self.create_key(key_id, kind, value)
        except ConflictError as exc:
            if exc.code != "key.exists":
                raise
            return self.rotate_key(key_id, value)

    def _head(self) -> Head:
        head = self.get("/admin/v1/governance/head")
        instance = parse_hex32(head.get("instance"), "head instance")
        if instance != self.profile.instance:
            raise VerificationError(
                f"instance at {self._transport.server}",
                got=instance,
                expected=f"{self.profile.instance}, the profile's",
                hint="this is another broker; nothing was signed",
                code="profile.instance",
            )
        seq = require_integer(head.get("seq"), "head seq", least=0, most=2**53 - 1)
        prev = parse_hex(head.get("prev"), "head prev", size=32).hex()
        return Head(seq=seq, prev=prev, document=head)

    def _headers(self, method: str, path: str, body: bytes) -> dict[str, str]:
        token = mint_token(
            self._key,
            SignedRequest(method, path, body),
            instance=self.profile.instance,
            now=self._clock.now(),
        )
        return {"Authorization": f"Bearer {token}"}


def _checked(reply: Reply) -> Reply:
    if reply.status in _OK:
        return reply
    raise error_of(reply)
