"""The guest: attest to a broker that was pinned, and take keys from it alone.

One request: a signed challenge, which names the log's key too; evidence over it and
over a key pair that was just made; a signed answer, sealed to that key pair; a receipt
from the log. The same bytes are sent again when a connection dies, so that the broker
answers the same and counts once. A refusal is never tried again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from kbs.audit.receipt import read_receipt
from kbs.channel.answer import Answer, Outcome, ReleasedKey
from kbs.channel.binding import Mode, ReleaseRequest, RuntimeData
from kbs.channel.opening import (
    ChallengeOffer,
    OpenedAnswer,
    open_answer,
    open_challenge,
)
from kbs.channel.recipient import (
    RecipientPrivateKey,
    Suite,
    generate_recipient_key,
    recipient_of,
)
from kbs.client.attester import Attester, Bundle, collect_bundle
from kbs.client.log_watch import LogWatch, WatchedReceipt
from kbs.client.refusal import denial, error_of, parse_problem
from kbs.client.retry import Patience
from kbs.client.transport import Reply, Transport
from kbs.core.encode import require_members
from kbs.core.errors import AuthenticationError, MalformedError, UnavailableError
from kbs.core.ids import KeyRef

# A challenge that ends while its answer is on the way wastes a quote.
_MARGIN_SECONDS = 10.0
_CHALLENGES = 3
_OK = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Attested:
    """Evidence ready to be sent; the private key stays in this process.

    `good_until` is on the clock of `monotonic`: guests at boot may lack the time.
    """

    bundle: Bundle
    runtime_data: RuntimeData
    private_key: RecipientPrivateKey = field(repr=False)
    good_until: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """A verified answer with its keys (none in a dry run) and its receipt."""

    answer: Answer
    keys: tuple[ReleasedKey, ...]
    receipt: WatchedReceipt


class GuestClient:
    """Asks one broker for keys, with the evidence of one machine.

    `response_key` is the whole trust in the broker and its log. `primary` is the CPU's
    attester, or the TPM's where it is alone; `devices` are the others.
    """

    def __init__(
        self,
        transport: Transport,
        response_key: Ed25519PublicKey,
        primary: Attester,
        *,
        log: LogWatch,
        devices: Sequence[Attester] = (),
        suite: Suite = Suite.X25519,
        patience: Patience | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Contact nobody yet."""
        self._transport = transport
        self._response_key = response_key
        self._primary = primary
        self._devices = tuple(devices)
        self._log = log
        self._suite = suite
        self._patience = patience or Patience()
        self._monotonic = monotonic

    def challenge(self) -> ChallengeOffer:
        """Return a fresh challenge that the pinned broker signed.

        Raises:
            AuthenticationError: somebody else signed it.
            UnavailableError: nobody answers, or not in this protocol.
        """
        reply = self._transport.post("/v1/challenge", b"{}")
        if reply.status != _OK:
            raise error_of(reply)
        try:
            members = require_members(
                reply.json(),
                "challenge answer",
                required={"answer", "signature", "keyid"},
            )
            return open_challenge(
                members["answer"],
                _signature(members),
                response_key=self._response_key,
            )
        except MalformedError as exc:
            raise _not_understood(exc) from exc

    def attest(
        self, keys: Sequence[KeyRef], *, mode: Mode, partial: bool = False
    ) -> Attested:
        """Return evidence over a fresh challenge and a key pair made for it.

        Raises:
            AuthenticationError: the challenge is not the pinned broker's.
            VerificationError: its log has another key than was pinned or seen before.
            UnavailableError: broker or device do not answer.
        """
        started = self._monotonic()
        offer = self.challenge()
        self._trust_log(offer)
        private_key = generate_recipient_key(self._suite)
        runtime_data = RuntimeData(
            audience=offer.audience,
            nonce=offer.challenge,
            recipient=recipient_of(private_key),
            request=ReleaseRequest(
                keys=tuple(keys), mode=mode, partial=partial, suite=self._suite
            ),
        )
        lifetime = (offer.expires - offer.time).total_seconds()
        return Attested(
            bundle=collect_bundle(runtime_data, self._primary, self._devices),
            runtime_data=runtime_data,
            private_key=private_key,
            good_until=started + lifetime - _MARGIN_SECONDS,
        )

    def fetch(self, keys: Sequence[KeyRef], *, partial: bool = False) -> Fetched:
        """Return the keys: all of them, or with `partial` those that are granted.

        Raises:
            RefusalError: the broker does not release them to this guest.
            AuthenticationError: an answer is not the pinned broker's.
            VerificationError: the answer or its receipt does not hold.
            UnavailableError: not now.
        """
        return self._ask(keys, Mode.RELEASE, partial=partial)

    def check(self, keys: Sequence[KeyRef], *, partial: bool = False) -> Fetched:
        """Return what `fetch` would decide; no key leaves the broker.

        Raises:
            KbsError: as `fetch`.
        """
        return self._ask(keys, Mode.CHECK, partial=partial)

    def send(self, attested: Attested) -> Fetched:
        """Send evidence and return the verified answer; the same bytes every time.

        Raises:
            KbsError: as `fetch`.
        """
        reply = self._transport.post("/v1/release", attested.bundle.raw)
        if reply.status != _OK and "answer" not in _members(reply):
            raise error_of(reply)
        try:
            return self._open(reply, attested)
        except MalformedError as exc:
            raise _not_understood(exc) from exc

    def _trust_log(self, offer: ChallengeOffer) -> None:
        try:
            self._log.trust(offer.audience, offer.log_key)
        except MalformedError as exc:
            raise _not_understood(exc) from exc

    def _ask(self, keys: Sequence[KeyRef], mode: Mode, *, partial: bool) -> Fetched:
        pending: Attested | None = None

        def attempt() -> Fetched:
            nonlocal pending
            for remaining in reversed(range(_CHALLENGES)):
                if pending is None or self._monotonic() > pending.good_until:
                    pending = self.attest(keys, mode=mode, partial=partial)
                try:
                    return self.send(pending)
                except AuthenticationError as exc:
                    if not exc.code.startswith("challenge.") or not remaining:
                        raise
                    pending = None
            raise AssertionError  # pragma: no cover - the loop returns or raises

        return self._patience.persist(attempt)

    def _open(self, reply: Reply, attested: Attested) -> Fetched:
        members = reply.json()
        opened: OpenedAnswer = open_answer(
            members.get("answer"),
            _signature(members),
            response_key=self._response_key,
            runtime_data=attested.runtime_data,
            primary=attested.bundle.primary,
            private_key=attested.private_key,
        )
        receipt = members.get("receipt")
        if opened.answer.outcome is Outcome.DENIED:
            seen = self._log.verify_denial(opened.answer, receipt)
            raise denial(opened.answer, parse_problem(reply).checks, receipt=seen)
        watched = self._log.verify(opened.answer, read_receipt(receipt))
        return Fetched(answer=opened.answer, keys=opened.keys, receipt=watched)


def _members(reply: Reply) -> dict[str, object]:
    return reply.json() if reply.is_problem else {}


def _signature(members: dict[str, object]) -> dict[str, object]:
    return {"keyid": members.get("keyid"), "sig": members.get("signature")}


def _not_understood(exc: MalformedError) -> UnavailableError:
    # Nothing that the person at the guest wrote is malformed: whoever answered is not
    # a broker, or one of a version that we do not understand.
    return UnavailableError(
        "server's answer", got=str(exc)[:300], code="answer.malformed"
    )
