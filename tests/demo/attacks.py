"""Seven attacks on the broker, each by somebody with a genuine TPM."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from kbs.channel.binding import Mode, RuntimeData
from kbs.channel.recipient import Suite, generate_recipient_key, recipient_of
from kbs.channel.signing import parse_response_key
from kbs.client.attester import collect_bundle
from kbs.client.guest import Attested, GuestClient
from kbs.client.log_watch import LogWatch
from kbs.client.tpm_attester import TpmAttester
from kbs.client.transport import Transport
from kbs.core.encode import canonical_json
from kbs.core.ids import parse_key_ref
from tests.demo.machine import Machine
from tests.demo.stage import DemoError, Stage, good, say, show

KEY = "acme/model/chat"


@dataclass(frozen=True)
class Target:
    """What the attackers are up against."""

    stage: Stage
    response_key: Path
    policy: bytes
    host: Machine
    stranger: Machine

    def attester(self, machine: Machine) -> TpmAttester:
        """The guest's own attester, on any machine."""
        return TpmAttester(tcti=machine.tcti, event_log=machine.event_log)

    def client(self, machine: Machine) -> GuestClient:
        """A guest's client on any machine; attackers use the same code."""
        transport = Transport(self.stage.server)
        return GuestClient(
            transport,
            parse_response_key(self.response_key.read_bytes()),
            self.attester(machine),
            log=LogWatch(transport),
        )

    def boot(self, *policies: bytes) -> None:
        """Reboot the host and measure these policies, in this order."""
        self.host.reboot()
        for policy in policies:
            self.host.measure(policy)

    def attest(self, machine: Machine, key: str = KEY) -> Attested:
        """Evidence over a fresh challenge."""
        return self.client(machine).attest([parse_key_ref(key)], mode=Mode.RELEASE)

    def post(self, attested: Attested, body: bytes | None = None) -> dict[str, object]:
        """Send a request, changed or not, and return the refusal."""
        reply = Transport(self.stage.server).post(
            "/v1/release", attested.bundle.raw if body is None else body
        )
        if reply.status == 200:
            raise DemoError("an attack got a key")
        return reply.json()


def another_policy(target: Target) -> dict[str, object]:
    """Another workload policy is measured: its author allows more."""
    target.boot(target.policy + b"allow { true }\n")
    return target.post(target.attest(target.host))


def extended_later(target: Target) -> dict[str, object]:
    """The right policy's digest, extended after a wrong one."""
    target.boot(b"package evil\n", target.policy)
    return target.post(target.attest(target.host))


def replayed_challenge(target: Target) -> dict[str, object]:
    """A challenge that was used already, under fresh evidence."""
    target.boot(target.policy)
    client = target.client(target.host)
    first = client.attest([parse_key_ref(KEY)], mode=Mode.RELEASE)
    client.send(first)
    again = attest_for(target, target.host, first.runtime_data)
    return target.post(again)


def another_recipient(target: Target) -> dict[str, object]:
    """A genuine quote, with the attacker's key in place of the guest's."""
    attested = target.attest(target.host)
    document = json.loads(attested.bundle.raw)
    thief = recipient_of(generate_recipient_key(Suite.X25519))
    document["runtime_data"]["recipient"] = thief.to_json()
    return target.post(attested, canonical_json(document))


def stranger(target: Target) -> dict[str, object]:
    """A machine with the same software and a genuine TPM that nobody enrolled."""
    target.stranger.reboot()
    target.stranger.measure(target.policy)
    return target.post(target.attest(target.stranger))


def changed_pcr(target: Target) -> dict[str, object]:
    """The right PCR value written beside a quote over a wrong one."""
    target.boot(b"package evil\n")
    attested = target.attest(target.host)
    document = json.loads(attested.bundle.raw)
    right = hashlib.sha256(bytes(32) + hashlib.sha256(target.policy).digest())
    document["items"][0]["pcrs"]["sha256"]["15"] = right.hexdigest()
    return target.post(attested, canonical_json(document))


def uncovered_key(target: Target) -> dict[str, object]:
    """A key that no policy covers, from a guest that is entirely in order."""
    target.boot(target.policy)
    return target.post(target.attest(target.host, "acme/dataset/payroll"))


ATTACKS: Sequence[tuple[str, Callable[[Target], dict[str, object]], str]] = (
    ("another workload policy measured", another_policy, "vtpm.pcr.sha256.15"),
    ("the right digest after a wrong one", extended_later, "vtpm.pcr.sha256.15"),
    ("a replayed challenge", replayed_challenge, "challenge.replayed"),
    ("a quote bound to another recipient key", another_recipient, "binding.primary"),
    ("an AK that is not enrolled", stranger, "vtpm.ak.trust"),
    ("a PCR value changed", changed_pcr, "vtpm.quote.pcr_digest"),
    ("a key that no policy covers", uncovered_key, "policy.none"),
)


def attest_for(target: Target, machine: Machine, data: RuntimeData) -> Attested:
    """Evidence by this machine for runtime data of which only the key pair is new."""
    private = generate_recipient_key(Suite.X25519)
    renewed = replace(data, recipient=recipient_of(private))
    bundle = collect_bundle(renewed, target.attester(machine), ())
    return Attested(
        bundle=bundle, runtime_data=renewed, private_key=private, good_until=0.0
    )


def run_attacks(target: Target) -> None:
    """Run all of them; each must be refused for its own reason."""
    for number, (title, attack, reason) in enumerate(ATTACKS, 1):
        print()
        say(f"Attack {number}: {title}. {attack.__doc__}")
        refusal = attack(target)
        decision = str(refusal["decision"])
        seen = json.dumps(refusal)
        if reason not in seen:
            raise DemoError(f"refused, but not for {reason}: {seen[:500]}")
        good(f"refused with {refusal['status']}: the guest learns {reason}")
        explained = target.stage.kbs("audit", "explain", decision)
        if reason not in explained.out:
            raise DemoError(f"the explanation lacks {reason}:\n{explained.out}")
        show(re.sub(r"\n{2,}", "\n", explained.out))
