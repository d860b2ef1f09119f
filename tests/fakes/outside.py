"""A broker process seen from outside: guests of both doors, its administrator, its log.

Guests keep what they were told, so that a test can hold the log against it: whoever got
a key has an entry, and what the log grants was asked for.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from kbs.channel.binding import Mode
from kbs.cli.admin_client import AdminClient
from kbs.cli.admin_transport import AdminTransport
from kbs.cli.profile import load_profile
from kbs.client.guest import Attested, GuestClient
from kbs.client.log_watch import LogWatch
from kbs.client.sample import SampleAttester
from kbs.client.transport import Reply, Transport
from kbs.core.clock import Clock, SystemClock
from kbs.core.errors import KbsError
from kbs.core.ids import parse_key_ref
from tests.fakes.rcar_client import RcarClient, open_jwe
from tests.fakes.rcar_evidence import PATH, POLICY, SECRET
from tests.fakes.served import Folders, Served, kbs

_EXPORT = "/admin/v1/audit/export"

RECOVERY_SECONDS = 30.0
"""How long a broker may take to notice that a fault is over."""


@dataclass(frozen=True)
class Said:
    """How a request ended: status 0 is no answer at all; `decision` gave a key."""

    status: int
    text: str = ""
    code: str = ""
    decision: str | None = None


class Guest(Protocol):
    """One guest that wants one key."""

    def begin(self) -> Said:
        """Prove what it is, or prepare to."""
        ...

    def send(self) -> Said:
        """Ask for the key; the same request each time."""
        ...


class _Heard(Transport):
    """Keeps the last answer as it came."""

    last: Reply | None = None

    def request(self, *arguments: object, **options: object) -> Reply:
        self.last = None
        self.last = super().request(*arguments, **options)  # type: ignore[arg-type]
        return self.last


class V1Guest:
    """A guest of the v1 door: the product's own client, without its patience."""

    def __init__(
        self, served: Served, *, path: str = PATH, secret: bytes = SECRET
    ) -> None:
        self._transport = _Heard(served.url, total_seconds=60)
        self._refs = [parse_key_ref(path)]
        self._secret = secret
        pinned = load_pem_public_key(
            Path(str(served.line["response_key"])).read_bytes()
        )
        assert isinstance(pinned, Ed25519PublicKey)
        self._client = GuestClient(
            self._transport,
            pinned,
            SampleAttester({"svn": 1}),
            log=LogWatch(self._transport),
        )
        self._attested: Attested | None = None

    def begin(self) -> Said:
        return self._said(self._attest)

    def send(self) -> Said:
        return self._said(self._fetch)

    def _attest(self) -> Said:
        self._attested = self._client.attest(self._refs, mode=Mode.RELEASE)
        return Said(200)

    def _fetch(self) -> Said:
        assert self._attested is not None
        fetched = self._client.send(self._attested)
        assert [one.value for one in fetched.keys] == [self._secret]
        return Said(200, decision=fetched.answer.decision)

    def _said(self, run: Callable[[], Said]) -> Said:
        try:
            return run()
        except KbsError as exc:
            heard = self._transport.last
            if heard is None:
                return Said(0, str(exc))
            if heard.status == 200:
                raise
            document = heard.json()
            return Said(heard.status, str(document["detail"]), str(document["code"]))
        finally:
            # The next request may go to another worker.
            self._transport.close()


class RcarGuest:
    """A guest of the RCAR door."""

    def __init__(
        self, served: Served, *, path: str = PATH, secret: bytes = SECRET
    ) -> None:
        self._client = RcarClient(served.send)
        self._path = path
        self._secret = secret

    def begin(self) -> Said:
        return self._said(self._handshake)

    def send(self) -> Said:
        return self._said(self._fetch)

    def _handshake(self) -> Said:
        answer = self._client.handshake()
        text = "" if answer.status == 200 else answer.json["detail"]
        return Said(answer.status, text)

    def _fetch(self) -> Said:
        answer = self._client.get(self._path)
        if answer.status != 200:
            return Said(answer.status, answer.json["detail"])
        assert open_jwe(answer.json, self._client.key) == self._secret
        return Said(200, decision=answer.headers["Kbs-Decision"])

    def _said(self, run: Callable[[], Said]) -> Said:
        try:
            return run()
        except OSError as exc:
            return Said(0, str(exc))


GUESTS: tuple[Callable[..., Guest], ...] = (V1Guest, RcarGuest)


@dataclass
class Outside:
    """One broker, and everything that it told anybody."""

    folders: Folders
    served: Served
    given: list[str] = field(default_factory=list)
    """The decisions that gave a key, in no order."""
    clock: Clock = field(default_factory=SystemClock)
    """The administrator's, and what a command needs to have the same time."""
    environ: Mapping[str, str] = field(default_factory=dict)

    def administer(self) -> None:
        """Register a policy for samples, and a key under it."""
        policy = self.folders.base / "policy.yaml"
        policy.write_text(POLICY)
        done = self.kbs("policy", "register", str(policy))
        assert done == 0
        assert self.import_key(PATH, SECRET) == ""

    def kbs(self, *arguments: str) -> int:
        """Run a command as the administrator; return its exit code."""
        environ = {**self.environ, "KBS_PROFILE": str(self.folders.profile)}
        done = kbs(*arguments, "--server", self.served.url, environ=environ)
        assert "Traceback" not in done.stderr
        return done.returncode

    def import_key(self, path: str, value: bytes) -> str:
        """Import a key; return what is said against it, or nothing."""
        try:
            with self._administrator() as client:
                client.import_key(path, "opaque", value)
        except KbsError as exc:
            return f"{exc.code}: {exc}"
        return ""

    def _administrator(self) -> AdminClient:
        profile = load_profile(self.folders.profile)
        transport = AdminTransport(self.served.url, tls_sha256=profile.tls_sha256)
        return AdminClient(profile, transport, clock=self.clock)

    def guests(self) -> list[Guest]:
        """Return a guest of each door that is ready to ask."""
        made = [kind(self.served) for kind in GUESTS]
        for guest in made:
            assert guest.begin() == Said(200)
        return made

    def send(self, guest: Guest) -> Said:
        """Let a guest ask, and keep what it was told."""
        said = guest.send()
        if said.decision is not None:
            self.given.append(said.decision)
        return said

    def fetch(self) -> list[Said]:
        """Let a new guest of each door ask; return what they were told."""
        return [self.send(guest) for guest in self.guests()]

    def ready(self) -> tuple[int, dict[str, str]]:
        """Return the status of readiness, and what is missing; 0 without an answer."""
        try:
            status, _, body = self.served.call("GET", "/health/ready")
        except OSError:
            return 0, {}
        missing = {one["what"]: one["detail"] for one in json.loads(body)["missing"]}
        return status, missing

    def await_ready(self, *, is_ready: bool = True) -> dict[str, str]:
        """Wait until every worker says so (asked often enough); return what is missing.

        Each question is a connection of its own, which the kernel gives to any worker.
        """
        deadline = time.monotonic() + RECOVERY_SECONDS
        alike = 0
        missing: dict[str, str] = {}
        while alike < 6 * len(self.served.workers()):
            assert time.monotonic() < deadline, self.ready()
            status, missing = self.ready()
            alike = alike + 1 if (status == 200) is is_ready else 0
            if not alike:
                time.sleep(0.1)
        return missing

    def hold_against_log(self, *, unheard: int = 0) -> None:
        """The log holds, and has what guests were given, once.

        `unheard`: how many guests may have been granted what did not reach them.
        """
        assert self.kbs("audit", "verify") == 0
        with self._administrator() as client, client.lines(_EXPORT) as lines:
            found = [json.loads(line) for line in lines]
        granted = [
            one["body"]["decision"]
            for one in found
            if one.get("body", {}).get("kind") == "release.granted"
        ]
        assert len(granted) == len(set(granted))
        lost = set(self.given) - set(granted)
        assert not lost, f"keys left without an entry: {lost}"
        surplus = set(granted) - set(self.given)
        assert len(surplus) <= unheard, f"entries of nobody: {surplus}"

    @contextmanager
    def asked_all_the_time(self, *, threads: int = 1) -> Iterator[list[Said]]:
        """Keep guests of each door coming while the block runs.

        The list has what they were told. A guest that is not answered asks again with
        the same request, as guests do, until the block is over.
        """
        over = threading.Event()
        told: list[Said] = []
        failures: list[BaseException] = []

        def run(kind: Callable[..., Guest]) -> None:
            try:
                while not over.is_set():
                    self._ask(kind(self.served), told, over)
            except BaseException as exc:
                failures.append(exc)
                raise

        workers = [
            threading.Thread(target=run, args=(kind,), daemon=True)
            for kind in GUESTS
            for _ in range(threads)
        ]
        for worker in workers:
            worker.start()
        try:
            yield told
        finally:
            over.set()
            for worker in workers:
                worker.join(timeout=60)
        assert not failures, failures

    def _ask(self, guest: Guest, told: list[Said], over: threading.Event) -> None:
        said = guest.begin()
        is_begun = said.status == 200
        while True:
            told.append(said)
            time.sleep(0.05)
            # 401 is for evidence that grew too old meanwhile.
            if not is_begun or said.decision or said.status == 401 or over.is_set():
                return
            said = self.send(guest)


def statuses(told: list[Said]) -> Counter[int]:
    """Count answers by status."""
    return Counter(one.status for one in told)
