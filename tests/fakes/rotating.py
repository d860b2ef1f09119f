"""A key that is rotated without a pause, and guests that read it all the while.

What a version's material seals, only that version's material opens; so a reader knows
whether version and material belong together, and whether it is one of those that could
have been in force while it asked.
"""

from __future__ import annotations

import http.client
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from itertools import count, cycle

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from kbs.channel.answer import ReleasedKey
from kbs.channel.binding import Mode, ReleaseRequest, RuntimeData
from kbs.channel.opening import ChallengeOffer, open_answer, open_challenge
from kbs.channel.recipient import (
    RecipientPrivateKey,
    Suite,
    generate_recipient_key,
    recipient_of,
)
from kbs.cli.admin_client import AdminClient
from kbs.client.attester import Bundle, collect_bundle
from kbs.client.sample import SampleAttester
from kbs.core.ids import KeyRef, parse_key_id
from tests.fakes.rcar_client import Answer, RcarClient, open_jwe
from tests.fakes.served import Served

PLAINTEXT = b"sealed by version %d"

MOST_VERSIONS = 40
"""Then the next key takes over: every decision reads all versions of its key."""

PATIENCE = 20
"""How often a guest asks again that was told 503 or 429."""


class Connections:
    """Connections that stay open; every request takes the next one, as a proxy may."""

    def __init__(self, servers: Sequence[Served], each: int) -> None:
        self._all = [
            http.client.HTTPSConnection(
                "127.0.0.1", served.port, timeout=60, context=served.context
            )
            for _ in range(each)
            for served in servers
        ]
        self._turns = cycle(self._all)

    def __call__(
        self, method: str, path: str, body: bytes, headers: Mapping[str, str]
    ) -> Answer:
        connection = next(self._turns)
        connection.request(method, path, body=body, headers=dict(headers))
        answer = connection.getresponse()
        names = {name.title(): value for name, value in answer.getheaders()}
        return Answer(answer.status, names, answer.read())

    def close(self) -> None:
        for one in self._all:
            one.close()


@dataclass
class Rotated:
    """One key: the material of each version, and which may be in force."""

    key_id: str
    values: list[bytes] = field(default_factory=list)
    acknowledged: int = 0

    @property
    def begun(self) -> int:
        """The newest version that may be there."""
        return len(self.values)

    def next_value(self) -> bytes:
        """Material of the next version, known before the broker knows it."""
        self.values.append(secrets.token_bytes(32))
        return self.values[-1]

    def sealed(self, version: int) -> bytes:
        """What somebody sealed under one version."""
        key = AESGCM(self.values[version - 1])
        return key.encrypt(version.to_bytes(12), PLAINTEXT % version, None)

    def check(self, version: int, value: bytes, oldest: int) -> None:
        """Require a whole version that could be in force since `oldest` was."""
        assert oldest <= version <= self.begun
        opened = AESGCM(value).decrypt(version.to_bytes(12), self.sealed(version), None)
        assert opened == PLAINTEXT % version


class Rotator:
    """Rotates until it is stopped; `current` is the key to read."""

    def __init__(self, client: AdminClient) -> None:
        self._client = client
        self._numbers = count(1)
        self.rotations = 0
        self.current = self._create()

    def run(self, stop: threading.Event) -> None:
        while not stop.is_set():
            if self.current.begun >= MOST_VERSIONS:
                self.current = self._create()
            key = self.current
            made = self._client.rotate_key(key.key_id, key.next_value())
            assert made["version"] == key.begun
            key.acknowledged = key.begun
            self.rotations += 1

    def _create(self) -> Rotated:
        key = Rotated(f"default/rotating/k{next(self._numbers)}")
        self._client.create_key(key.key_id, "opaque", key.next_value())
        key.acknowledged = 1
        return key


@dataclass
class Seen:
    """What all readers together saw."""

    reads: int = 0
    answers: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def refused(self, answer: Answer) -> None:
        with self.lock:
            code = answer.json.get("code", answer.json.get("type"))
            self.answers[f"{answer.status} {code}"] += 1

    def read(self, seconds: float) -> None:
        with self.lock:
            self.reads += 1
            self.slowest = max(self.slowest, seconds)


@dataclass(frozen=True)
class Request:
    """The bytes of one release, and what opens its answer."""

    data: RuntimeData
    bundle: Bundle
    private_key: RecipientPrivateKey

    @property
    def raw(self) -> bytes:
        """What is sent, and sent again."""
        return self.bundle.raw


class Asking:
    """One guest process at the v1 door."""

    def __init__(
        self, servers: Sequence[Served], response_key: Ed25519PublicKey, seen: Seen
    ) -> None:
        self._send = Connections(servers, 2 if len(servers) == 1 else 1)
        self._response_key = response_key
        self._seen = seen

    def close(self) -> None:
        self._send.close()

    def read(self, key: Rotated) -> None:
        """Read once, and check what came."""
        oldest, started = key.acknowledged, time.monotonic()
        request = self.request(key.key_id, self.challenge())
        # Whatever was refused spent nothing: the same bytes are good all the while.
        (got,) = self._open(self._ask("/v1/release", request.raw), request)
        assert str(got.ref.key_id) == key.key_id
        key.check(got.ref.version or 0, got.value, oldest)
        self._seen.read(time.monotonic() - started)

    def challenge(self) -> ChallengeOffer:
        """Ask for a challenge of the pinned broker's."""
        document = self._ask("/v1/challenge", b"{}")
        return open_challenge(
            document["answer"],
            {"keyid": document["keyid"], "sig": document["signature"]},
            response_key=self._response_key,
        )

    def request(self, key_id: str, offer: ChallengeOffer) -> Request:
        """Make a request for one key, with a recipient of its own."""
        private_key = generate_recipient_key(Suite.X25519)
        data = RuntimeData(
            audience=offer.audience,
            nonce=offer.challenge,
            recipient=recipient_of(private_key),
            request=ReleaseRequest(
                keys=(KeyRef(parse_key_id(key_id)),),
                mode=Mode.RELEASE,
                partial=False,
                suite=Suite.X25519,
            ),
        )
        bundle = collect_bundle(data, SampleAttester({"svn": 1}))
        return Request(data, bundle, private_key)

    def post(self, path: str, body: bytes) -> Answer:
        """Send once, and return whatever comes."""
        return self._send("POST", path, body, {"Content-Type": "application/json"})

    def _open(
        self, document: Mapping[str, object], request: Request
    ) -> tuple[ReleasedKey, ...]:
        return open_answer(
            document["answer"],
            {"keyid": document["keyid"], "sig": document["signature"]},
            response_key=self._response_key,
            runtime_data=request.data,
            primary=request.bundle.primary,
            private_key=request.private_key,
        ).keys

    def _ask(self, path: str, body: bytes) -> dict[str, object]:
        for _ in range(PATIENCE):
            answer = self.post(path, body)
            if answer.status == 200:
                document: dict[str, object] = answer.json
                return document
            self._seen.refused(answer)
            assert answer.status in (429, 503), answer.body
        raise AssertionError(f"refused {PATIENCE} times")


class Fetching:
    """One guest process at the RCAR door, with one session for all its reads."""

    def __init__(self, servers: Sequence[Served], seen: Seen) -> None:
        self._send = Connections(servers, 2 if len(servers) == 1 else 1)
        self._client = RcarClient(self._send)
        self._seen = seen
        assert self._client.handshake().status == 200

    def close(self) -> None:
        self._send.close()

    def read(self, key: Rotated) -> None:
        """Read once, and check what came; this door does not name the version."""
        oldest, started = key.acknowledged, time.monotonic()
        value = self._fetch(key.key_id)
        key.check(key.values.index(value) + 1, value, oldest)
        self._seen.read(time.monotonic() - started)

    def _fetch(self, key_id: str) -> bytes:
        for _ in range(PATIENCE):
            answer = self._client.get(key_id)
            if answer.status == 200:
                return open_jwe(answer.json, self._client.key)
            if answer.error == "TokenNotFound":  # the session is over
                assert self._client.handshake().status == 200
                continue
            self._seen.refused(answer)
            assert answer.status in (429, 503), answer.body
        raise AssertionError(f"refused {PATIENCE} times")


class Crowd:
    """Threads that read together until enough was read, or one of them failed."""

    def __init__(self, reads: int) -> None:
        self._left = iter(range(reads))
        self._lock = threading.Lock()
        self.failures: list[BaseException] = []

    def start(self, run: Callable[[], object]) -> threading.Thread:
        """Run something in a thread of its own."""

        def guarded() -> None:
            try:
                run()
            except BaseException as exc:  # noqa: BLE001 - told by the thread that waits
                self.failures.append(exc)

        thread = threading.Thread(target=guarded)
        thread.start()
        return thread

    def take(self) -> bool:
        """Whether there is another one to read."""
        with self._lock:
            return not self.failures and next(self._left, None) is not None


def read_while_rotating(
    servers: Sequence[Served],
    client: AdminClient,
    response_key: Ed25519PublicKey,
    *,
    reads: int,
    readers: int,
) -> tuple[Seen, Rotator]:
    """Read so often in all, half of it through each door, while a key is rotated."""
    seen, rotator, crowd = Seen(), Rotator(client), Crowd(reads)
    stop = threading.Event()

    def run(number: int) -> None:
        with closing(
            Asking(servers, response_key, seen)
            if number % 2
            else Fetching(servers, seen)
        ) as reader:
            while crowd.take():
                reader.read(rotator.current)

    rotating = crowd.start(lambda: rotator.run(stop))
    threads = [crowd.start(partial(run, number)) for number in range(readers)]
    for thread in threads:
        thread.join()
    stop.set()
    rotating.join()
    if crowd.failures:
        raise crowd.failures[0]
    return seen, rotator
