"""Every small repository: round trips, conflicts, order, expiry."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest

from kbs.adapters.sql.database import SqlDatabase
from kbs.broker.ports import (
    Instance,
    PendingEnrolment,
    SpentChallenge,
    StoredBrokerKey,
    StoredCollateral,
    StoredEvidence,
    StoredObject,
    StoredStatement,
    TableState,
)
from kbs.core.errors import ConflictError, IntegrityError, MalformedError

NOW = datetime(2026, 11, 22, 8, 0, 0, 123456, tzinfo=UTC)
SECOND = timedelta(seconds=1)

SPENT = SpentChallenge(
    challenge=b"\x00" * 32,
    request_digest=b"\xff" * 32,
    decision="0123456789abcdef" * 2,
    entry_index=2**53,
    status=403,
    answer=b'{"answer":"\x00\xff"}',
    expires=NOW,
)


def test_a_challenge_is_spent_once(database: SqlDatabase) -> None:
    with database.write() as transaction:
        assert transaction.spent.find(SPENT.challenge) is None
        transaction.spent.insert(SPENT)
    with database.read() as transaction:
        assert transaction.spent.find(SPENT.challenge) == SPENT
        assert transaction.spent.find(b"\x01" * 32) is None
    with pytest.raises(ConflictError), database.write() as transaction:
        transaction.spent.insert(replace(SPENT, answer=b"another"))


def test_spent_challenges_go_when_they_expired(database: SqlDatabase) -> None:
    with database.write() as transaction:
        for second in range(4):
            transaction.spent.insert(
                replace(
                    SPENT, challenge=bytes([second]) * 32, expires=NOW + second * SECOND
                )
            )
        assert transaction.spent.purge(NOW + 2 * SECOND) == 2
        assert transaction.spent.purge(NOW + 2 * SECOND) == 0
        left = [transaction.spent.find(bytes([second]) * 32) for second in range(4)]
    assert [spent is None for spent in left] == [True, True, False, False]


def test_a_token_is_used_once_until_it_is_purged(database: SqlDatabase) -> None:
    with database.write() as transaction:
        transaction.tokens.use("one", NOW)
        transaction.tokens.use("two", NOW + SECOND)
    with pytest.raises(ConflictError), database.write() as transaction:
        transaction.tokens.use("one", NOW + SECOND)
    with database.write() as transaction:
        assert transaction.tokens.purge(NOW + SECOND) == 1
        transaction.tokens.use("one", NOW + SECOND)


EVIDENCE = StoredEvidence(
    digest=b"\x01" * 32,
    sealed=b"sealed" * 1000,
    decision="0123456789abcdef" * 2,
    created=NOW,
    expires=NOW + SECOND,
)


@pytest.mark.parametrize(
    ("again", "kept"),
    [
        (NOW + 3 * SECOND, NOW + 3 * SECOND),
        (NOW, NOW + SECOND),
        (NOW + SECOND, NOW + SECOND),
    ],
    ids=["later", "sooner", "same"],
)
def test_the_same_evidence_again_keeps_the_later_expiry(
    database: SqlDatabase, again: datetime, kept: datetime
) -> None:
    with database.write() as transaction:
        transaction.evidence.insert(EVIDENCE)
        transaction.evidence.insert(replace(EVIDENCE, sealed=b"new", expires=again))
    with database.read() as transaction:
        found = transaction.evidence.find(EVIDENCE.digest)
        assert found == replace(EVIDENCE, expires=kept)
        assert transaction.evidence.find(b"\x02" * 32) is None


def test_evidence_goes_when_its_time_is_over(database: SqlDatabase) -> None:
    with database.write() as transaction:
        transaction.evidence.insert(EVIDENCE)
        assert list(transaction.evidence.purge(EVIDENCE.expires, limit=9)) == []
        later = EVIDENCE.expires + SECOND
        assert list(transaction.evidence.purge(later, limit=9)) == [EVIDENCE.digest]
        assert list(transaction.evidence.purge(later, limit=9)) == []
        assert transaction.evidence.find(EVIDENCE.digest) is None


def _evidence(number: int, size: int = 10) -> StoredEvidence:
    digest = number.to_bytes(32, "big")
    expires = NOW + number * SECOND
    return replace(EVIDENCE, digest=digest, sealed=bytes(size), expires=expires)


def test_evidence_goes_in_batches_the_oldest_first(database: SqlDatabase) -> None:
    numbers = (3, 1, 2, 5, 4)
    with database.write() as transaction:
        for number in numbers:
            transaction.evidence.insert(_evidence(number))
    gone: list[int] = []
    for expected in ([1, 2], [3, 4], []):
        with database.write() as transaction:
            batch = transaction.evidence.purge(NOW + 5 * SECOND, limit=2)
        assert [int.from_bytes(digest, "big") for digest in batch] == expected
        gone += expected
    with database.read() as transaction:
        for number in numbers:
            found = transaction.evidence.find(_evidence(number).digest)
            assert (found is None) == (number in gone)


def test_more_evidence_than_a_statement_can_name(database: SqlDatabase) -> None:
    with database.write() as transaction:
        for number in range(1, 1002):
            transaction.evidence.insert(_evidence(number, 1))
        later = NOW + 2000 * SECOND
        assert len(transaction.evidence.purge(later, limit=1000)) == 1000
        assert len(transaction.evidence.purge(later, limit=1000)) == 1


@pytest.mark.parametrize(
    ("most", "left"),
    [
        (61, [1, 2, 3]),
        (60, [1, 2, 3]),
        (59, [2, 3]),
        (50, [2, 3]),
        (49, [3]),
        (30, [3]),
        (29, []),
        (0, []),
    ],
)
def test_the_newest_evidence_that_fits_stays(
    database: SqlDatabase, most: int, left: list[int]
) -> None:
    with database.write() as transaction:
        for number in (1, 2, 3):
            transaction.evidence.insert(_evidence(number, 10 * number))
    with database.write() as transaction:
        before = transaction.evidence.overflow(most)
        if before is not None:
            transaction.evidence.purge(before, limit=9)
        assert transaction.evidence.overflow(most) is None
        found = [
            number
            for number in (1, 2, 3)
            if transaction.evidence.find(_evidence(number).digest) is not None
        ]
    assert found == left
    assert (before is None) == (len(left) == 3)


def test_no_evidence_fits_everywhere(database: SqlDatabase) -> None:
    with database.read() as transaction:
        assert transaction.evidence.overflow(0) is None


def _pending(number: int, **changes: object) -> PendingEnrolment:
    members = {
        "id": f"{number:032x}",
        "tenant": "acme",
        "group": "hosts",
        "ak_public": b"public",
        "ak_name": bytes([number]) * 34,
        "ek": bytes([number % 2]) * 32,
        "ek_certificate": b"certificate",
        "ca": "acme/ek-ca",
        "created": NOW + number * SECOND,
        "expires": NOW + number * SECOND + 60 * SECOND,
        "mac": b"mac",
        **changes,
    }
    return PendingEnrolment(**members)  # type: ignore[arg-type]


def test_pending_enrolments_are_listed_oldest_first(database: SqlDatabase) -> None:
    first, second = _pending(1), _pending(2)
    other = _pending(3, tenant="zeta")
    with database.write() as transaction:
        for pending in (second, other, first):
            transaction.enrolments.insert(pending)
    with database.read() as transaction:
        enrolments = transaction.enrolments
        assert enrolments.list(None) == [first, second, other]
        assert enrolments.list(("acme",)) == [first, second]
        assert enrolments.list(("zeta", "beta")) == [other]
        assert enrolments.list(()) == []
        assert enrolments.count() == 3
        assert enrolments.count(tenant="acme") == 2
        assert enrolments.count(tenant="beta") == 0
        assert enrolments.count(ek=first.ek) == 2
        assert enrolments.count(ek=bytes(31)) == 0
        assert enrolments.find_key("acme", "hosts", second.ak_name) == second
        assert enrolments.find_key("acme", "others", second.ak_name) is None
        assert enrolments.find_key("zeta", "hosts", second.ak_name) is None
        assert enrolments.find(second.id) == second
        assert enrolments.find("no") is None


def test_the_same_ak_in_the_same_group_replaces(database: SqlDatabase) -> None:
    first = _pending(1)
    same = _pending(2, ak_name=first.ak_name)
    elsewhere = _pending(3, ak_name=first.ak_name, group="others")
    with database.write() as transaction:
        for pending in (first, same, elsewhere):
            transaction.enrolments.insert(pending)
        assert transaction.enrolments.list(None) == [same, elsewhere]
        with pytest.raises(ConflictError), transaction.savepoint():
            transaction.enrolments.insert(_pending(4, id=same.id))


def test_enrolments_are_removed_and_purged(database: SqlDatabase) -> None:
    with database.write() as transaction:
        for number in (1, 2, 3):
            transaction.enrolments.insert(_pending(number))
        transaction.enrolments.remove(_pending(1).id)
        transaction.enrolments.remove("not there")
        assert transaction.enrolments.purge(_pending(3).expires) == 1
        assert transaction.enrolments.list(None) == [_pending(3)]


CRL = StoredCollateral(
    digest=b"\x05" * 32,
    kind="crl",
    subject="CN=SEV-Milan",
    issuer="CN=ARK-Milan",
    not_before=NOW,
    not_after=NOW + SECOND,
    der=b"\x30\x00",
    imported=NOW,
)


def test_collateral_is_kept_once_and_changes_the_fingerprint(
    database: SqlDatabase,
) -> None:
    endless = replace(
        CRL, digest=b"\x04" * 32, not_after=None, imported=NOW + timedelta(hours=1)
    )
    with database.write() as transaction:
        collateral = transaction.collateral
        assert collateral.fingerprint() == (0, "")
        assert collateral.insert(CRL)
        assert collateral.fingerprint() == (1, "2026-11-22T08:00:00.123456Z")
        assert not collateral.insert(replace(CRL, subject="other"))
        assert collateral.insert(endless)
    with database.read() as transaction:
        assert transaction.collateral.list() == [CRL, endless]
        assert transaction.collateral.fingerprint() == (
            2,
            "2026-11-22T09:00:00.123456Z",
        )


def test_the_state_of_collateral_is_one_row(database: SqlDatabase) -> None:
    first = TableState(seq=1, digest=b"\x01" * 32, mac=b"one")
    second = TableState(seq=2**40, digest=b"\x02" * 32, mac=b"two")
    with database.write() as transaction:
        assert transaction.collateral.state() is None
        for state in (first, second):
            transaction.collateral.set_state(state)
            assert transaction.collateral.state() == state
    with database.read() as transaction:
        assert transaction.collateral.state() == second


def test_statements_follow_each_other(database: SqlDatabase) -> None:
    chain = [
        StoredStatement(seq, b'{"seq":%d}' % seq, NOW + seq * SECOND)
        for seq in (1, 2, 3)
    ]
    with database.write() as transaction:
        assert transaction.governance.head() == 0
        for statement in chain:
            transaction.governance.append(statement)
    with database.read() as transaction:
        governance = transaction.governance
        assert governance.head() == 3
        assert governance.statements() == chain
        assert governance.statements(after=2) == chain[2:]
        assert governance.statements_at([3, 1, 9]) == {
            1: chain[0].envelope,
            3: chain[2].envelope,
        }
        assert governance.statements_at([]) == {}
    with pytest.raises(ConflictError), database.write() as transaction:
        transaction.governance.append(StoredStatement(3, b"another", NOW))


def _object(tenant: str, name: str, version: int) -> StoredObject:
    return StoredObject(
        kind="release-policy",
        tenant=tenant,
        name=name,
        version=version,
        digest=f"{tenant}{name}{version}".encode().hex().ljust(64, "0"),
        content=f"{tenant}/{name}/{version}".encode(),
        source=b"# as it was written\n",
        registered=NOW,
    )


def test_objects_are_found_by_name_and_by_digest(database: SqlDatabase) -> None:
    # By code points: upper case and punctuation before lower case, on both databases.
    stored = [
        _object(*args)
        for args in (
            ("acme", "a-b", 1),
            ("acme", "a.b", 1),
            ("acme", "ab", 1),
            ("acme", "ab", 2),
            ("acme", "ab", 10),
            ("zeta", "ab", 1),
        )
    ]
    other = replace(_object("acme", "ab", 1), kind="workload-policy")
    with database.write() as transaction:
        for item in (*reversed(stored), other):
            transaction.governance.insert_object(item)
    with database.read() as transaction:
        governance = transaction.governance
        assert governance.objects("release-policy") == stored
        assert governance.objects("release-policy", "acme") == stored[:5]
        assert governance.objects("release-policy", "acme", "ab") == stored[2:5]
        assert governance.objects("release-policy", name="ab") == stored[2:]
        assert governance.objects("deny") == []
        wanted = [stored[0].digest, stored[4].digest, "00" * 32]
        assert governance.contents(wanted) == {
            stored[0].digest: b"acme/a-b/1",
            stored[4].digest: b"acme/ab/10",
        }
        assert governance.contents([]) == {}
    with pytest.raises(ConflictError) as caught, database.write() as transaction:
        transaction.governance.insert_object(replace(stored[0], content=b"changed"))
    assert "release-policy acme/a-b version" in str(caught.value)


def _broker_key(purpose: str, version: int) -> StoredBrokerKey:
    return StoredBrokerKey(
        purpose=purpose,
        version=version,
        public=b"public",
        sealed=b"sealed %d" % version,
        created=NOW,
    )


def test_the_brokers_keys(database: SqlDatabase) -> None:
    log1, log2 = _broker_key("log", 1), _broker_key("log", 2)
    challenge = _broker_key("challenge", 1)
    with database.write() as transaction:
        for key in (log2, log1, challenge):
            transaction.broker_keys.insert(key)
        assert transaction.broker_keys.list() == [challenge, log1, log2]
        assert transaction.broker_keys.list("log") == [log1, log2]
        with pytest.raises(ConflictError), transaction.savepoint():
            transaction.broker_keys.insert(replace(log1, sealed=b"other"))
        rewrapped = replace(log1, sealed=b"under another key")
        transaction.broker_keys.replace(rewrapped)
        transaction.broker_keys.remove("challenge", 1)
        transaction.broker_keys.remove("challenge", 9)
        assert transaction.broker_keys.list() == [rewrapped, log2]
        with pytest.raises(ConflictError):
            transaction.broker_keys.replace(_broker_key("log", 3))


def test_the_instance_is_named_once(database: SqlDatabase) -> None:
    ours = Instance(
        instance="0123456789abcdef" * 2,
        origin="kbs.example/log",
        created=NOW,
        mode="undecided",
    )
    with database.write() as transaction:
        assert transaction.instance.read() is None
        with pytest.raises(ConflictError):
            transaction.instance.set_mode("production")
        transaction.instance.create(ours)
        transaction.instance.set_mode("production")
    with database.write() as transaction:
        assert transaction.instance.read() == replace(ours, mode="production")
        with pytest.raises(ConflictError), transaction.savepoint():
            transaction.instance.create(replace(ours, instance="ff" * 16))


@pytest.mark.parametrize(
    "time",
    [
        datetime.min.replace(tzinfo=UTC),
        datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
        datetime(1970, 1, 1, tzinfo=UTC),
        datetime.max.replace(tzinfo=UTC),
        datetime(2026, 11, 22, 10, 0, tzinfo=timezone(timedelta(hours=2))),
    ],
)
def test_every_time_comes_back_as_the_same_moment_in_utc(
    database: SqlDatabase, time: datetime
) -> None:
    with database.write() as transaction:
        transaction.spent.insert(replace(SPENT, expires=time))
        found = transaction.spent.find(SPENT.challenge)
    assert found is not None
    assert found.expires == time
    assert found.expires.tzinfo is UTC


def test_a_time_without_an_offset_is_not_stored(database: SqlDatabase) -> None:
    naive = NOW.replace(tzinfo=None)
    with database.write() as transaction, pytest.raises(MalformedError):
        transaction.tokens.use("jti", naive)


@pytest.mark.parametrize("microseconds", [2**62, -(2**62)])
def test_a_time_beyond_the_calendar_is_damage(
    database: SqlDatabase, microseconds: int
) -> None:
    with database.write() as transaction:
        transaction.spent.insert(SPENT)
    with database.engine.begin() as connection:
        connection.exec_driver_sql(
            f"UPDATE spent_challenges SET expires = {microseconds}"
        )
    with database.read() as transaction, pytest.raises(IntegrityError):
        transaction.spent.find(SPENT.challenge)
