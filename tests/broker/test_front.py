"""What stands before the use cases: rates, headers, self-description, collateral."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from kbs.api.application import Application, Limits
from kbs.api.limits import (
    BURST_SECONDS,
    DEBT_SECONDS,
    MAX_CLIENTS,
    RateLimit,
    work_limit,
)
from kbs.core.clients import client_of
from kbs.core.encode import b64
from tests.fakes.amd import FakeAmd
from tests.fakes.answers import Seen, releases, see
from tests.fakes.databases import Place
from tests.fakes.world import World


class Ticks:
    """A monotonic clock that moves when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_client_has_its_rate_and_a_burst() -> None:
    ticks = Ticks()
    limit = RateLimit(2, ticks)
    burst = 2 * BURST_SECONDS
    assert [limit.admit("a") for _ in range(burst + 1)] == [True] * burst + [False]
    # Another client is not to blame.
    assert limit.admit("b")
    ticks.now += 0.5
    assert limit.admit("a")
    assert not limit.admit("a")
    # Whoever was quiet for long gets no more than the burst.
    ticks.now += 3600
    assert sum(limit.admit("a") for _ in range(100)) == burst


def test_no_rate_is_no_limit() -> None:
    limit = RateLimit(0, Ticks())
    assert all(limit.admit("a") for _ in range(1000))


def test_what_was_costly_is_paid_for_later() -> None:
    ticks = Ticks()
    limit = work_limit(1, ticks)
    assert limit.admit("a")
    limit.charge("a", 3_600_000.0)
    assert not limit.admit("a")
    assert limit.admit("b")
    # However much it was, it is over at last.
    ticks.now += DEBT_SECONDS + 1
    assert limit.admit("a")
    off = work_limit(0, ticks)
    off.charge("a", 3_600_000.0)
    assert off.admit("a")


def test_a_client_whose_requests_are_costly_may_send_few() -> None:
    ticks = Ticks()
    work = RateLimit(1, ticks)
    off = RateLimit(0, ticks)
    app = Application(Limits(each=off, total=off, work=work))

    @app.get("/v1/busy")
    @app.get("/admin/v1/busy")
    def busy() -> str:
        end = time.thread_time() + 0.02
        while time.thread_time() < end:
            pass
        return "done"

    def status(path: str, address: str = "192.0.2.1") -> int:
        given = {"REMOTE_ADDR": address, "PATH_INFO": path}
        return app.test_client().get(environ_overrides=given).status_code

    # What administrators ask for may be costly, and is not charged.
    assert [status("/admin/v1/busy") for _ in range(2)] == [200, 200]
    assert [status("/v1/busy") for _ in range(2)] == [200, 429]
    assert status("/v1/busy", "192.0.2.2") == 200
    assert status("/admin/v1/busy") == 200
    ticks.now += DEBT_SECONDS + 1
    assert status("/v1/busy") == 200
    # However the same path is spelled.
    assert status("//v1/busy") == 429


def test_clients_are_forgotten_oldest_first() -> None:
    limit = RateLimit(1, Ticks())
    while limit.admit("first"):
        pass
    for number in range(MAX_CLIENTS):
        limit.admit(f"client-{number}")
    assert limit.admit("first")
    assert len(limit._buckets) == MAX_CLIENTS


@pytest.mark.parametrize(
    ("address", "client"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::1", "2001:db8:1:2::/64"),
        ("unknown", "unknown"),
    ],
)
def test_one_network_is_one_client(address: str, client: str) -> None:
    assert client_of(address) == client


def test_all_guests_together_have_a_rate_and_administrators_are_heard(
    tmp_path: Path, sqlite_place: Place
) -> None:
    with closing(sqlite_place.connect()) as opened:
        world = World.create(tmp_path, database=opened)
        limited = world.restarted_with(rate_limit_total=1, monotonic=Ticks())
        client = limited.app.test_client()
        statuses = [
            client.post(
                "/v1/challenge",
                json={},
                environ_base={"REMOTE_ADDR": f"192.0.2.{number}"},
            ).status_code
            for number in range(6)
        ]
        assert statuses == [200] * 4 + [429] * 2
        assert client.post("/kbs/v0/auth", data=b"{}").status_code == 429
        assert client.get("/health/ready").status_code == 200
        assert limited.call("GET", "/admin/v1/keys").status_code == 200


def test_too_many_requests(tmp_path: Path, sqlite_place: Place) -> None:
    with closing(sqlite_place.connect()) as opened:
        world = World.create(tmp_path, database=opened)
        limited = world.restarted_with(rate_limit=1, monotonic=Ticks())
        client = limited.app.test_client()
        answers = [client.post("/v1/challenge", json={}) for _ in range(6)]
        assert [one.status_code for one in answers] == [200] * 4 + [429] * 2
        seen = Seen.of(limited, answers[-1])
        assert seen.code == "rate.limited"
        assert int(answers[-1].headers["Retry-After"]) > 0


def test_a_broker_says_who_it_is(world: World) -> None:
    response = world.app.test_client().get("/v1/broker")
    document = response.get_json()
    identity = world.broker.identity
    assert document["audience"] == identity.origin
    assert document["log_key"] == identity.log_vkey
    assert document["response_key"].startswith("-----BEGIN PUBLIC KEY-----")
    assert document["development"] is False
    assert response.headers["X-Content-Type-Options"] == "nosniff"


def test_evidence_need_not_be_kept(tmp_path: Path, sqlite_place: Place) -> None:
    with closing(sqlite_place.connect()) as opened:
        world = World.create(tmp_path, database=opened, evidence_retention_days=0)
        assert see(world, world.request(world.standard())).status == 200
        digest = releases(world)[0]["evidence"]
        with opened.read() as tx:
            assert tx.evidence.find(bytes.fromhex(digest)) is None


# -- collateral ------------------------------------------------------------------------


def test_collateral_is_imported_once_and_listed(world: World, amd: FakeAmd) -> None:
    pem = amd.ark.public_bytes(Encoding.PEM) + amd.ask.public_bytes(Encoding.PEM)
    crl = amd.crl().public_bytes(Encoding.PEM)
    body = {"items": [b64(pem), b64(crl)]}
    first = world.must("POST", "/admin/v1/collateral", body)
    assert (first["read"], first["added"]) == (3, 3)
    again = world.must("POST", "/admin/v1/collateral", body)
    assert (again["read"], again["added"]) == (3, 0)
    listed: Any = world.must("GET", "/admin/v1/collateral")["collateral"]
    assert sorted(one["kind"] for one in listed) == [
        "certificate",
        "certificate",
        "crl",
    ]


@pytest.mark.parametrize("rubbish", [b"", b"rubbish", b"-----BEGIN CERTIFICATE-----"])
def test_one_file_that_is_none_keeps_the_others_out(
    world: World, amd: FakeAmd, rubbish: bytes
) -> None:
    good = amd.ark.public_bytes(Encoding.DER)
    response = world.call(
        "POST", "/admin/v1/collateral", {"items": [b64(good), b64(rubbish)]}
    )
    assert response.status_code == 400
    assert "collateral item 2" in response.get_json()["detail"]
    assert world.must("GET", "/admin/v1/collateral") == {"collateral": []}


@pytest.mark.parametrize(
    "path", ["/v1//broker", "//v1/broker", "/admin/v1/objects/x/acme/0%2F/1"]
)
def test_a_path_with_two_slashes_is_no_other_path(world: World, path: str) -> None:
    answer = world.call("GET", path)
    assert answer.status_code == 404
    assert answer.mimetype == "application/problem+json"
