"""A broker as a guest sees it: signs, seals and logs for real, and errs on command.

What it appraises is one thing only, that the evidence is bound to the request; which
keys it gives is told by the test.
"""

from __future__ import annotations

import hashlib
import json
import ssl
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from kbs.audit import merkle
from kbs.audit.checkpoint import Checkpoint, sign_checkpoint
from kbs.audit.entry import prepare
from kbs.audit.events import EnrolmentPending, Event, KeyDecision, Release
from kbs.audit.kinds import Mode as EntryMode
from kbs.audit.kinds import Outcome as EntryOutcome
from kbs.audit.log import append_batch
from kbs.audit.logkey import LogSigner
from kbs.audit.receipt import Receipt
from kbs.audit.tiles import parse_path, read_tile
from kbs.channel.answer import (
    Answer,
    Outcome,
    ReleasedKey,
    WithheldKey,
    seal_keys,
)
from kbs.channel.binding import (
    Mode,
    RuntimeData,
    device_digest,
    parse_runtime_data,
    primary_binding,
)
from kbs.channel.challenge import ChallengeKey, Door, mint_challenge
from kbs.channel.opening import ChallengeOffer, sign_answer, sign_challenge
from kbs.channel.signing import ResponseSignature, serialize_response_key
from kbs.core.decision import PolicyRef, Reason
from kbs.core.encode import canonical_json, parse_b64
from kbs.core.errors import NotFoundError
from kbs.core.ids import KeyId, KeyRef, new_decision_id
from tests.fakes.logs import MemoryLog

ORIGIN = "broker.example/0f1e2d3c"
POLICY = PolicyRef(name="acme/chat", version=1, digest="ab" * 32)
_NOW = datetime(2026, 11, 22, 8, tzinfo=UTC)

Answered = tuple[int, dict[str, object]]


@dataclass
class FakeBroker:
    """A broker whose keys, refusals and errors a test chooses.

    `faults` are taken one per release request, in order: `_REFUSALS`, `_FORGERIES`,
    `_RAW`. `log_key` is what a challenge says of the log's key, if not the truth.
    """

    keys: dict[KeyId, tuple[int, bytes]] = field(default_factory=dict)
    denied: dict[KeyId, tuple[str, ...]] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    lifetime: timedelta = timedelta(seconds=300)
    response_key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    log: MemoryLog = field(default_factory=MemoryLog)
    bodies: list[bytes] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    enrol: Callable[[str, dict[str, Any]], Answered] | None = None
    log_key: str | None = None
    errors: list[BaseException] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.signer = LogSigner(ORIGIN, Ed25519PrivateKey.generate())
        self.challenge_key = ChallengeKey(1, b"k" * 32)
        self.spent: dict[str, tuple[bytes, Answered]] = {}

    def note_error(self, *_: object) -> None:
        """Keep what a handler did not mean to raise; a closed connection is meant."""
        error = sys.exc_info()[1]
        if error is not None and not isinstance(error, OSError):
            self.errors.append(error)

    @property
    def response_pem(self) -> bytes:
        """What a guest pins."""
        return serialize_response_key(self.response_key.public_key())

    def challenge(self) -> Answered:
        """Answer a challenge, signed."""
        minted = mint_challenge(
            self.challenge_key, door=Door.V1, origin=ORIGIN, now=_NOW
        )
        offer = ChallengeOffer(
            audience=ORIGIN,
            challenge=str(minted),
            expires=minted.expires,
            time=minted.expires - self.lifetime,
            log_key=self.log_key or self.signer.key.vkey,
        )
        return 200, signed(offer.to_json(), sign_challenge(self.response_key, offer))

    def release(self, body: bytes) -> Answered:
        """Answer a request; the same bytes again get the same answer."""
        document = json.loads(body)
        runtime_data = parse_runtime_data(document["runtime_data"])
        digest = hashlib.sha256(body).digest()
        if runtime_data.nonce in self.spent:
            known, answered = self.spent[runtime_data.nonce]
            return answered if known == digest else problem(401, "challenge.replayed")
        primary = self._primary(document["items"], runtime_data)
        if parse_b64(document["items"][0]["report_data"], "P", limit=48) != primary:
            return problem(
                403, "evidence.refused", checks=["binding.primary", "snp.chain"]
            )
        answered = self.decide(runtime_data, primary)
        self.spent[runtime_data.nonce] = (digest, answered)
        return answered

    def _primary(self, items: list[dict[str, Any]], runtime_data: RuntimeData) -> bytes:
        devices = [
            device_digest(item["kind"], canonical_json(item)) for item in items[1:]
        ]
        return primary_binding(items[0]["kind"], runtime_data, devices)

    def decide(self, runtime_data: RuntimeData, primary: bytes) -> Answered:
        """Grant what there is and is not denied; sign, record, and answer."""
        request = runtime_data.request
        decision = new_decision_id()
        granted = [
            ReleasedKey(
                KeyRef(ref.key_id, ref.version or self.keys[ref.key_id][0]),
                self.keys[ref.key_id][1],
            )
            for ref in request.keys
            if ref.key_id in self.keys and ref.key_id not in self.denied
        ]
        withheld = tuple(
            WithheldKey(ref, self.denied.get(ref.key_id, ("policy.none",)))
            for ref in request.keys
            if ref.key_id not in self.keys or ref.key_id in self.denied
        )
        if withheld and not request.partial and request.mode is Mode.RELEASE:
            granted = []
        outcome = Outcome.GRANTED if granted else Outcome.DENIED
        if request.mode is Mode.CHECK:
            outcome = Outcome.CHECKED
        answer = Answer(
            audience=ORIGIN,
            nonce=runtime_data.nonce,
            decision=decision,
            time=_NOW,
            outcome=outcome,
            suite=request.suite,
            keys=tuple(one.ref for one in granted),
            denied=withheld,
            sealed=seal_keys(
                granted, runtime_data=runtime_data, primary=primary, decision=decision
            )
            if outcome is Outcome.GRANTED
            else None,
        )
        return self.sign(answer)

    def sign(self, answer: Answer) -> Answered:
        """Return a signed answer with the receipt of its entry."""
        document = signed(answer.to_json(), sign_answer(self.response_key, answer))
        # As the real one: a body goes to who was granted something, to nobody else.
        body = answer.outcome is Outcome.GRANTED
        document["receipt"] = self.record(answer, body=body).to_json()
        if answer.outcome is not Outcome.DENIED:
            return 200, document
        checks = [one for withheld in answer.denied for one in withheld.reasons]
        status, refusal = problem(403, "denied", checks=checks)
        return status, {**refusal, **document, "decision": answer.decision}

    def record(
        self, answer: Answer, *, body: bool = True, told: Answer | None = None
    ) -> Receipt:
        """Append the entry of an answer and return its receipt.

        A liar's entry names the answer, and tells what is said of `told`.
        """
        told = told or answer
        granted = bool(told.keys)
        event = Release(
            decision=answer.decision,
            door="v1",
            mode=EntryMode.CHECK
            if told.outcome is Outcome.CHECKED
            else EntryMode.RELEASE,
            outcome=EntryOutcome.GRANTED if granted else EntryOutcome.DENIED,
            keys=tuple(
                KeyDecision(
                    id=str(ref.key_id),
                    version=ref.version,
                    outcome=EntryOutcome.GRANTED,
                    policies=((POLICY, "rule"),),
                )
                for ref in told.keys
            )
            or tuple(
                KeyDecision(
                    id=str(one.ref.key_id),
                    version=None,
                    outcome=EntryOutcome.DENIED,
                    policies=(),
                    reasons=(Reason(id=one.reasons[0], detail="no"),),
                )
                for one in told.denied
            ),
            governance=1,
            request="00" * 32,
            freshness="challenge",
            appraised=_NOW,
            answer=answer.digest(),
        )
        return self.append(event, body=body)

    def record_enrolment(self) -> Receipt:
        """Append an entry that is about no answer and return its receipt."""
        pending = EnrolmentPending(
            tenant="acme",
            group="hosts",
            enrolment="0" * 32,
            ak_name="00" * 34,
            ek="hmac:" + "0" * 64,
        )
        return self.append(pending, body=False)

    def append(self, event: Event, *, body: bool) -> Receipt:
        """Append the entry of an event and return its receipt."""
        entry = prepare(event, time=_NOW)
        with self.log.transaction() as tx:
            appended = append_batch(tx, [entry])
        index = appended.entries[0].index
        return Receipt(
            leaf=entry.leaf,
            index=index,
            checkpoint=self.checkpoint(),
            inclusion=self.inclusion(index),
            body=entry.body if body else None,
            salt=entry.salt if body else None,
        )

    def checkpoint(self) -> bytes:
        """Return the signed note over everything."""
        with self.log.transaction() as tx:
            size = tx.head().size
            root = merkle.root(tx, size)
        return sign_checkpoint(Checkpoint(ORIGIN, size, root), self.signer)

    def inclusion(self, index: int) -> tuple[bytes, ...]:
        """Return the proof of one entry under that note."""
        with self.log.transaction() as tx:
            return merkle.inclusion_proof(tx, index, tx.head().size)

    def tile(self, path: str) -> bytes:
        """Return a tile of hashes."""
        with self.log.transaction() as tx:
            return read_tile(tx, parse_path(path), tx.head().size)


def signed(document: object, signature: ResponseSignature) -> dict[str, object]:
    """Return what stands around something that the broker signed."""
    parts = signature.to_json()
    return {
        "answer": document,
        "signature": parts["sig"],
        "keyid": parts["keyid"],
    }


def problem(
    status: int, code: str, *, checks: list[str] | None = None
) -> tuple[int, dict[str, object]]:
    """Return an unsigned problem document."""
    document: dict[str, object] = {
        "type": f"urn:kbs:problem:{code}",
        "status": status,
        "code": code,
        "detail": f"{code} happened",
        "decision": "0" * 32,
    }
    if checks is not None:
        document["checks"] = [
            {"id": one, "item": 0, "status": "fail"} for one in checks
        ]
    return status, document


def _forge(
    broker: FakeBroker, answered: Answered, change: Callable[[Answer], Answer]
) -> Answered:
    from kbs.channel.answer import parse_answer

    status, document = answered
    return status, {
        **document,
        **broker.sign(change(parse_answer(document["answer"])))[1],
    }


def _lie(broker: FakeBroker, answered: Answered, **changes: Any) -> Answered:
    from kbs.channel.answer import parse_answer

    status, document = answered
    answer = parse_answer(document["answer"])
    receipt = broker.record(
        answer, body=not answer.denied, told=replace(answer, **changes)
    )
    return status, {**document, "receipt": receipt.to_json()}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Head and body in one packet, or each answer waits for a delayed acknowledgement.
    wbufsize = -1
    broker: FakeBroker

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Keep quiet."""

    def do_GET(self) -> None:
        self.broker.paths.append(self.path)
        if self.path == "/v1/broker":
            self.reply(200, {"log_key": self.broker.signer.key.vkey})
        elif self.path.startswith("/v1/log/") and "no_tiles" not in self.broker.faults:
            self.tile(self.path.removeprefix("/v1/log/"))
        else:
            self.reply(*problem(404, "http.not_found"))

    def tile(self, path: str) -> None:
        try:
            self.raw(200, self.broker.tile(path), "application/octet-stream")
        except NotFoundError:
            self.reply(*problem(404, "not_found"))

    def do_POST(self) -> None:
        self.broker.paths.append(self.path)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/v1/challenge":
            self.challenge()
        elif self.path == "/v1/release":
            self.broker.bodies.append(body)
            self.release(body)
        else:
            assert self.broker.enrol is not None
            self.reply(*self.broker.enrol(self.path, json.loads(body)))

    def challenge(self) -> None:
        fault = self.fault("challenge:")
        if fault == "503":
            self.reply(*problem(503, "unavailable"))
        elif fault == "signature":
            other = FakeBroker()
            self.reply(*other.challenge())
        elif fault == "shape":
            self.reply(200, {"answer": {}})
        else:
            self.reply(*self.broker.challenge())

    def release(self, body: bytes) -> None:
        broker, fault = self.broker, self.fault("")
        if fault in _REFUSALS:
            self.reply(*_REFUSALS[fault])
        elif fault == "drop_before":
            self.drop()
        elif fault == "drop_after":
            broker.release(body)
            self.drop()
        elif fault in _FORGERIES:
            self.reply(*_FORGERIES[fault](broker, broker.release(body)))
        elif fault is not None:
            _RAW[fault](self)
        else:
            self.reply(*broker.release(body))

    def fault(self, prefix: str) -> str | None:
        faults = self.broker.faults
        if not faults or faults[0] == "no_tiles":
            return None
        is_ours = faults[0].startswith("challenge:") == bool(prefix)
        return faults.pop(0).removeprefix(prefix) if is_ours else None

    def drop(self) -> None:
        self.close_connection = True
        self.connection.close()

    def reply(self, status: int, document: dict[str, object]) -> None:
        kind = "application/json" if status < 300 else "application/problem+json"
        self.raw(status, json.dumps(document).encode(), kind)

    def raw(self, status: int, body: bytes, kind: str, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)


_REFUSALS: dict[str, Answered] = {
    "503": problem(503, "unavailable"),
    "429": problem(429, "rate"),
    "400": problem(400, "malformed"),
    "404": problem(404, "http.not_found"),
    "409": problem(409, "conflict"),
    "expired": problem(401, "challenge.expired"),
    "unsigned_denial": problem(403, "denied", checks=["vtpm.pcr.sha256.15"]),
    "bare_denial": problem(403, "denied"),
}

_FORGERIES: dict[str, Callable[[FakeBroker, Answered], Answered]] = {
    "signature": lambda broker, got: (
        got[0],
        {**got[1], "signature": "A" * 86},
    ),
    "keyid": lambda broker, got: (got[0], {**got[1], "keyid": "00" * 32}),
    "nonce": lambda broker, got: _forge(
        broker, got, lambda answer: replace(answer, nonce="other")
    ),
    "audience": lambda broker, got: _forge(
        broker, got, lambda answer: replace(answer, audience="other.example")
    ),
    "other_keys": lambda broker, got: _forge(
        broker,
        got,
        lambda answer: replace(
            answer,
            keys=tuple(KeyRef(KeyId("acme", "model", "other"), 1) for _ in answer.keys),
        ),
    ),
    "decision": lambda broker, got: _forge(
        broker, got, lambda answer: replace(answer, decision="f" * 32)
    ),
    "sealed": lambda broker, got: _forge(
        broker,
        got,
        lambda answer: replace(answer, sealed=bytes(len(answer.sealed or b""))),
    ),
    "no_receipt": lambda broker, got: (
        got[0],
        {name: value for name, value in got[1].items() if name != "receipt"},
    ),
    "other_receipt": lambda broker, got: (
        got[0],
        {
            **got[1],
            "receipt": broker.record(
                Answer(
                    audience=ORIGIN,
                    nonce="n",
                    decision="e" * 32,
                    time=_NOW,
                    outcome=Outcome.GRANTED,
                    suite=_suite(),
                    keys=(KeyRef(KeyId("acme", "model", "chat"), 1),),
                    sealed=b"x",
                )
            ).to_json(),
        },
    ),
    "told_as_probe": lambda broker, got: _lie(
        broker, got, outcome=Outcome.CHECKED, sealed=None
    ),
    "told_as_denial": lambda broker, got: _lie(
        broker,
        got,
        outcome=Outcome.DENIED,
        sealed=None,
        keys=(),
        denied=(WithheldKey(KeyRef(KeyId("acme", "model", "chat")), ("policy.none",)),),
    ),
    "told_of_another_key": lambda broker, got: _lie(
        broker, got, keys=(KeyRef(KeyId("acme", "model", "other"), 1),)
    ),
    "told_of_another_version": lambda broker, got: _lie(
        broker, got, keys=(KeyRef(KeyId("acme", "model", "chat"), 1),)
    ),
    "told_of_no_release": lambda broker, got: (
        got[0],
        {**got[1], "receipt": broker.record_enrolment().to_json()},
    ),
    "other_checks": lambda broker, got: (
        got[0],
        {**got[1], "checks": [*got[1]["checks"], {"id": "snp.debug"}]},  # type: ignore[misc]
    ),
    "bodiless_receipt": lambda broker, got: (
        got[0],
        {**got[1], "receipt": _without_body(got[1]["receipt"])},
    ),
    "shapeless_receipt": lambda broker, got: (got[0], {**got[1], "receipt": []}),
    "receipt_by_another": lambda broker, got: (
        got[0],
        {
            **got[1],
            "receipt": {
                **_members(got[1]["receipt"]),
                "checkpoint": FakeBroker().checkpoint().decode(),
            },
        },
    ),
    "unlogged": lambda broker, got: (
        got[0],
        {**got[1], "receipt": _with_index(got[1]["receipt"], 5)},
    ),
}

_RAW: dict[str, Callable[[_Handler], None]] = {
    "garbage": lambda handler: handler.raw(200, b"\xff\xfe", "application/json"),
    "html": lambda handler: handler.raw(502, b"<html>", "text/html"),
    "redirect": lambda handler: handler.raw(
        302, b"", "text/html", Location="http://127.0.0.1:1/"
    ),
    "huge": lambda handler: handler.raw(
        200, b" " * (21 * 1024 * 1024), "application/json"
    ),
    "busy": lambda handler: handler.raw(
        503,
        json.dumps(problem(503, "unavailable")[1]).encode(),
        "application/problem+json",
        Retry_After="7",
    ),
}


def _suite() -> Any:
    from kbs.channel.recipient import Suite

    return Suite.X25519


def _without_body(receipt: Any) -> object:
    return {
        name: value for name, value in receipt.items() if name not in {"body", "salt"}
    }


def _members(receipt: Any) -> dict[str, object]:
    return dict(receipt)


def _with_index(receipt: Any, index: int) -> object:
    return {**receipt, "index": index}


@contextmanager
def serving(
    broker: FakeBroker, certificate: tuple[Path, Path] | None = None
) -> Iterator[str]:
    """Serve on a free loopback port; with a certificate and its key, over TLS."""
    handler = type("Handler", (_Handler,), {"broker": broker})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    server.handle_error = broker.note_error  # type: ignore[method-assign, assignment]
    scheme = "http"
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        scheme = "https"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"{scheme}://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
        if broker.errors:
            raise broker.errors[0]
