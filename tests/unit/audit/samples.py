"""A small log with one entry of most kinds, made the way the broker makes it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from kbs.audit.announcement import announce, spki_text
from kbs.audit.checkpoint import Checkpoint, sign_checkpoint
from kbs.audit.entry import prepare
from kbs.audit.events import (
    CheckReport,
    Event,
    GovernanceChange,
    InstanceInit,
    KeyDecision,
    Release,
)
from kbs.audit.kinds import Mode, Outcome, Purpose
from kbs.audit.log import StoredCheckpoint, append_batch
from kbs.audit.logkey import LogKey, LogSigner
from kbs.core.checks import Check, Status
from kbs.core.decision import Denied, Granted, PolicyRef, Reason
from kbs.core.encode import canonical_json
from tests.fakes.logs import MemoryLog

ORIGIN = "kbs.example.org/4f0c"
INSTANCE = "4f" * 16
AUTHORITY = "a1" * 32
START = datetime(2026, 11, 22, 8, 0, tzinfo=UTC)

DIGEST_1 = "d1" * 32
DIGEST_2 = "d2" * 32


def private_key(seed: int) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32)


def signer(seed: int = 1) -> LogSigner:
    return LogSigner(ORIGIN, private_key(seed))


def init(seed: int = 1) -> InstanceInit:
    return InstanceInit(
        instance=INSTANCE,
        log=ORIGIN,
        authority=AUTHORITY,
        public_keys={
            "log": spki_text(private_key(seed).public_key()),
            "response": spki_text(private_key(100).public_key()),
        },
    )


def policy(digest: str = DIGEST_1, name: str = "acme/chat") -> PolicyRef:
    return PolicyRef(name=name, version=1, digest=digest)


def key_decision(digest: str = DIGEST_1, name: str = "acme/chat") -> KeyDecision:
    granted = Granted(by=((policy(digest, name), "milan"),))
    return KeyDecision.of("acme/model/llama", 1, granted)


def denied_key(key: str = "beta/data/set") -> KeyDecision:
    reason = Reason(
        id="snp.measurement",
        detail="not a known image",
        policy="beta/data",
        rule="r",
        got="00",
        expected="01",
    )
    return KeyDecision.of(
        key, None, Denied(reasons=(reason,), policies=(policy(name="beta/data"),))
    )


def release(
    *keys: KeyDecision,
    governance: int = 1,
    outcome: Outcome = Outcome.GRANTED,
    mode: Mode = Mode.RELEASE,
    development: bool = False,
) -> Release:
    checks = (
        Check(id="snp.report.signature", status=Status.PASS, item=0),
        Check(id="snp.chain", status=Status.FAIL, detail="d", got="g", expected="e"),
    )
    return Release(
        decision="de" * 16,
        door="v1",
        mode=mode,
        outcome=outcome,
        keys=keys or (key_decision(),),
        governance=governance,
        request="e1" * 32,
        freshness="challenge",
        appraised=START,
        checks=CheckReport(checks, checks[1:]),
        recipient="e2" * 32,
        answer="e3" * 32,
        evidence="e4" * 32,
        primary="snp",
        development=development,
    )


@dataclass
class Governance:
    """Makes statements that form a chain."""

    seq: int = 0
    prev: str = AUTHORITY

    def state(
        self,
        action: str = "activate",
        digest: str = DIGEST_1,
        *,
        kind: str = "release-policy",
        tenant: str = "acme",
        name: str = "chat",
    ) -> GovernanceChange:
        self.seq += 1
        statement = {
            "typ": "kbs.statement/1",
            "instance": INSTANCE,
            "seq": self.seq,
            "prev": self.prev,
            "action": action,
            "kind": kind,
            "tenant": tenant,
            "name": name,
            "version": 1,
            "digest": digest,
            "not_before": None,
            "expires": None,
        }
        self.prev = hashlib.sha256(canonical_json(statement)).hexdigest()
        return GovernanceChange(
            statement=statement, signatures=[{"keyid": "00", "alg": "EdDSA", "sig": ""}]
        )


@dataclass
class BuiltLog:
    """A log in memory whose clock moves a second an entry."""

    signer: LogSigner = field(default_factory=signer)
    log: MemoryLog = field(default_factory=MemoryLog)
    keys: list[LogKey] = field(default_factory=list)
    note: bytes = b""
    time: datetime = START

    def __post_init__(self) -> None:
        self.keys.append(self.signer.key)

    def append(self, *events: Event) -> bytes:
        """Append events as one batch, sign the tree and return the checkpoint."""
        prepared = []
        for event in events:
            prepared.append(prepare(event, time=self.time))
            self.time += timedelta(seconds=1)
        with self.log.transaction() as transaction:
            done = append_batch(transaction, prepared)
            self.note = sign_checkpoint(
                Checkpoint(ORIGIN, done.size, done.root), self.signer
            )
            transaction.store_checkpoint(StoredCheckpoint(done.size, self.note))
        return self.note

    def rotate(self, seed: int) -> None:
        """Announce another log key, and sign with it from then on."""
        self.append(
            announce(
                log=ORIGIN,
                purpose=Purpose.LOG,
                public_key=private_key(seed).public_key(),
                previous=self.signer._private,
            )
        )
        self.signer = signer(seed)
        self.keys.append(self.signer.key)


def small_log() -> BuiltLog:
    """Six entries: init, a policy, a grant, a denial, its revocation, a probe."""
    built, governance = BuiltLog(), Governance()
    built.append(init())
    built.append(governance.state(), release())
    built.append(
        release(denied_key(), outcome=Outcome.DENIED),
        governance.state("deactivate"),
        release(denied_key(), outcome=Outcome.DENIED, mode=Mode.CHECK, governance=2),
    )
    return built
