"""The whole story on one machine: `make demo`.

No TEE and no network are needed: the guest's vTPM is a software TPM, and the broker
listens on loopback. Everything is made in a fresh folder and gone in the end.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sqlite3
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.demo.attacks import KEY, Target, run_attacks
from tests.demo.machine import Machine, powered
from tests.demo.stage import DemoError, Stage, colour, good, say, show, step
from tests.fakes.tpm_ca import FakeTpmCA, certificate_pem

START_SECONDS = 20.0

WORKLOAD_POLICY = b"""\
package runtime
# What the container runtime of the guest enforces: this image, and nothing else.
default allow = false
allow { input.image == "registry.acme.example/chat@sha256:4f1c" }
"""

RELEASE_POLICY = """\
kind: ReleasePolicy
name: chat
releases: ["acme/model/*"]
allow:
  - rule: enrolled-host-with-known-boot
    all:
      - {safe: true}
      - {claim: vtpm.ak.group, equals: hosts}
%s
      - {claim: vtpm.eventlog.secure_boot, equals: true}
      - {claim: vtpm.pcr.sha256.15, measures: {workload_policy: runtime, version: 1}}
"""


@contextmanager
def serving(folder: Path) -> Iterator[tuple[Stage, dict[str, object]]]:
    """Run the broker on a free loopback port until the block ends."""
    command = [
        sys.executable,
        "-m",
        "kbs",
        "serve",
        "--json",
        "--data",
        str(folder / "data"),
        "--trust",
        str(folder / "trust"),
        "--profile",
        str(folder / "profile"),
        "--listen",
        "127.0.0.1:0",
    ]
    log = (folder / "broker.log").open("wb")
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log)
    try:
        line = _first_line(process)
        if not line:
            raise DemoError((folder / "broker.log").read_text() or "no broker")
        ready = json.loads(line)
        yield Stage(folder, ready["url"], folder / "profile"), ready
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
        log.close()


def _first_line(process: subprocess.Popen[bytes]) -> bytes:
    if process.stdout is None:
        return b""
    return process.stdout.readline()


def enrol(stage: Stage, machine: Machine, broker_key: Path) -> None:
    """Let the guest prove its TPM, and an administrator trust it."""
    maker = FakeTpmCA("Demo TPM Maker")
    root = stage.folder / "tpm-maker.pem"
    issuer = stage.folder / "tpm-maker-ca.der"
    root.write_text(certificate_pem(maker.root))
    issuer.write_text(certificate_pem(maker.intermediate))
    certificate = stage.folder / "ek.der"
    machine.certify(maker, certificate)
    stage.kbs("ref", "add", "ca", "acme/tpm-maker", str(root), "--purpose", "ek")
    enrolled = stage.kbs(
        "guest",
        "enroll",
        "--group",
        "acme/hosts",
        "--tcti",
        machine.tcti,
        "--broker-key",
        str(broker_key),
        "--ek-cert",
        str(certificate),
        "--ek-chain",
        str(issuer),
        json=True,
    ).document()
    good("the TPM opened the credential that was made for its EK and AK")
    stage.kbs("ref", "list", "--pending")
    stage.kbs("ref", "add", "ak", "--pending", str(enrolled["id"]))
    good("a signed statement made the pending enrolment trust")


def write_model(path: Path) -> str:
    """Write a small safetensors file and return its digest."""
    values = struct.pack("<1024f", *(number / 7 for number in range(1024)))
    header = json.dumps(
        {"layer.weight": {"dtype": "F32", "shape": [32, 32], "data_offsets": [0, 4096]}}
    ).encode()
    header += b" " * (-len(header) % 8)
    data = len(header).to_bytes(8, "little") + header + values
    path.write_bytes(data)
    return hashlib.sha256(data).hexdigest()


def register(stage: Stage, machine: Machine) -> None:
    """Register the workload policy and the release policy."""
    runtime = stage.folder / "runtime.rego"
    runtime.write_bytes(WORKLOAD_POLICY)
    stage.kbs("policy", "register", str(runtime), "--workload", "acme/runtime")
    boot = "\n".join(
        f'      - {{claim: vtpm.pcr.sha256.{pcr}, equals: "{value}"}}'
        for pcr, value in sorted(
            machine.pcr_values().items(), key=lambda one: int(one[0])
        )
    )
    policy = stage.folder / "chat.yaml"
    policy.write_text(RELEASE_POLICY % boot)
    stage.kbs("policy", "check", str(policy))
    stage.kbs("policy", "register", str(policy))
    good("policies are in force by signed statements")


def tamper(stage: Stage, fetch: list[str]) -> None:
    """Change the policy by SQL behind the broker's back."""
    database = stage.folder / "data" / "kbs.db"
    with sqlite3.connect(database, timeout=10) as sql:
        (content,) = sql.execute(
            "SELECT content FROM governed_objects WHERE kind = 'release-policy'"
        ).fetchone()
        weaker = content.replace(b'"equals":"hosts"', b'"present":true')
        changed = sql.execute(
            "UPDATE governed_objects SET content = ? WHERE kind = 'release-policy'",
            (weaker,),
        ).rowcount
    sql.close()
    if changed != 1 or weaker == content:
        raise DemoError("the policy was not changed")
    say(
        "Somebody with write access to the database drops the AK group from the policy."
    )
    refused = stage.kbs(*fetch, expect=3)
    show(refused.err)
    good("nothing is released")
    health = stage.kbs("health", expect=3)
    show(health.out)
    with sqlite3.connect(database, timeout=10) as sql:
        sql.execute(
            "UPDATE governed_objects SET content = ? WHERE kind = 'release-policy'",
            (content,),
        )
    sql.close()
    stage.kbs(*fetch)
    good("with the row as it was signed, releases go on")
    reported = stage.kbs("audit", "query", "--kind", "integrity.reported")
    show(reported.out)


def audit(stage: Stage) -> None:
    """Query, verify offline, corrupt a copy and find the place."""
    show(stage.kbs("audit", "query", "--key", KEY, "--limit", "20").out)
    export = stage.folder / "log.jsonl"
    stage.kbs("audit", "export", str(export))
    show(stage.kbs("audit", "verify", str(export)).out)
    good("the copy verifies offline, with the log's key from the profile")
    data = bytearray(export.read_bytes())
    place = data.index(b'"kind":"release.granted"', len(data) // 3)
    data[place + 10] ^= 1
    corrupt = stage.folder / "corrupt.jsonl"
    corrupt.write_bytes(data)
    line = data[:place].count(b"\n") + 1
    result = stage.kbs("audit", "verify", str(corrupt), expect=1)
    show(result.out + result.err)
    if f"line {line}" not in result.out + result.err:
        raise DemoError(f"the damage in line {line} was not located")
    good(f"one bit flipped in line {line}: found, and where")


def run(folder: Path) -> None:
    """Tell the story."""
    step(1, "A broker, fresh: SQLite, TLS, a generated administrator's key")
    with serving(folder) as (stage, ready):
        good(f"listening on {ready['url']}")
        good(f"TLS certificate SHA-256 {str(ready['tls_sha256'])[:32]}…")
        broker_key = Path(str(ready["response_key"]))
        with powered(folder / "host") as host, powered(folder / "other") as other:
            _with_machines(stage, broker_key, host, other)


def _with_machines(
    stage: Stage, broker_key: Path, host: Machine, other: Machine
) -> None:
    folder = stage.folder
    step(2, "A guest whose vTPM boots: firmware measures itself into PCRs 0 to 7")
    host.reboot()
    for pcr, value in sorted(host.pcr_values().items(), key=lambda one: int(one[0])):
        show(f"PCR {pcr}  {value}")
    runtime = folder / "workload-policy.rego"
    runtime.write_bytes(WORKLOAD_POLICY)
    stage.kbs("guest", "measure", str(runtime), "--tcti", host.tcti)
    good("the container runtime measured the policy that it enforces into PCR 15")

    step(3, "The administrator: trust the TPM, register policies, seal a model")
    enrol(stage, host, broker_key)
    register(stage, host)
    model = folder / "model.safetensors"
    digest = write_model(model)
    sealed = folder / "model.sealed"
    stage.kbs("model", "seal", str(model), str(sealed), "--key", KEY, "--new")
    good(f"model.safetensors (SHA-256 {digest[:16]}…) is sealed with {KEY}")

    step(4, "The guest attests, gets the key, and opens the model")
    keys = folder / "keys"
    fetch = [
        "guest", "fetch", KEY, "--kind", "vtpm", "--tcti", host.tcti,
        "--broker-key", str(broker_key), "--event-log", str(host.event_log),
        "--out", str(keys), "--retry-for", "0",
    ]  # fmt: skip
    started = time.monotonic()
    stage.kbs(*fetch)
    good(f"quote, verify, appraise, record, seal: {time.monotonic() - started:.1f} s")
    opened = folder / "opened.safetensors"
    stage.kbs("guest", "unseal", str(sealed), "--keys", str(keys), "--out", str(opened))
    if hashlib.sha256(opened.read_bytes()).hexdigest() != digest:
        raise DemoError("the opened model differs")
    good("the opened model has the same digest")

    step(5, "Seven attacks, each refused, each explained to the administrator")
    run_attacks(Target(stage, broker_key, WORKLOAD_POLICY, host, other))

    step(6, "The database is changed behind the broker's back; the log is checked")
    host.reboot()
    host.measure(WORKLOAD_POLICY)
    fetch[fetch.index("--tcti") + 1] = host.tcti
    tamper(stage, fetch)
    audit(stage)


def main() -> int:
    """Run the demo in a fresh folder; 0 when everything happened as told."""
    started = time.monotonic()
    os.environ["TSS2_LOG"] = "all+none"
    with tempfile.TemporaryDirectory(prefix="kbs-demo-") as folder:
        try:
            run(Path(folder))
        except DemoError as exc:
            print(colour("31", f"\nThe demo failed: {exc}"), file=sys.stderr)
            return 1
    print(f"\n{colour('1;32', 'Done')} in {time.monotonic() - started:.0f} s.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
