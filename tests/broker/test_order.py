"""The order of a release: what is true at each step, and what a fault there leaves."""

from __future__ import annotations

import pytest
from sqlalchemy import select, text, update

from kbs.adapters.sql import schema
from kbs.audit import merkle
from kbs.audit.proof import leaf_hash
from kbs.core.errors import UnavailableError
from tests.fakes.answers import Seen, releases
from tests.fakes.steps import DURABLE, STEPS, Bench
from tests.fakes.world import writer

CHAT = "acme/model/chat"


def test_every_step_is_reached_in_order(bench: Bench) -> None:
    request = bench.request()
    bench.probe.reached.clear()
    assert bench.send(request).status == 200
    assert tuple(bench.probe.reached) == STEPS
    # A retry goes no further than to the stored answer.
    bench.probe.reached.clear()
    assert bench.send(request).status == 200
    assert bench.probe.reached == ["parsed"]


@pytest.mark.parametrize("step", STEPS)
def test_a_fault_at_a_step(bench: Bench, step: str) -> None:
    """No answer without its entry; the same request is answered afterwards."""

    def fail() -> None:
        raise UnavailableError("step", got="a fault on command")

    request = bench.request()
    bench.probe.at(step, fail)
    failed = bench.send(request)
    assert failed.status == 503
    assert "answer" not in failed.document
    written = [entry["kind"] for entry in releases(bench.other)]
    assert written == (["release.granted"] if step in DURABLE else [])
    assert bench.world.released(request) == {f"{CHAT}@1": b"the model key"}
    assert len(releases(bench.other)) == 1


@pytest.mark.parametrize("step", STEPS)
def test_a_bug_at_a_step_says_nothing_of_itself(sqlite_bench: Bench, step: str) -> None:
    bench = sqlite_bench

    def fail() -> None:
        raise RuntimeError("planted detail")

    request = bench.request()
    bench.probe.at(step, fail)
    response = bench.world.send(request)
    seen = Seen.of(bench.world, response)
    assert seen.status == 503
    assert "answer" not in seen.document
    assert "planted" not in response.get_data(as_text=True)
    assert bench.world.released(request) == {f"{CHAT}@1": b"the model key"}
    assert len(releases(bench.other)) == 1


def test_nothing_is_shown_before_it_is_durable(bench: Bench) -> None:
    sizes: list[int] = []

    def look() -> None:
        # Another process sees neither the entry nor its checkpoint before the commit.
        with bench.other.parts.database.read() as tx:
            checkpoint = tx.log.latest_checkpoint()
            assert checkpoint is not None
            assert checkpoint.size == tx.log.head().size
            sizes.append(checkpoint.size)

    for step in ("before-commit", "after-commit"):
        request = bench.request()
        bench.probe.at(step, look)
        assert bench.send(request).status == 200
    assert sizes[1] == sizes[0] + 2


# -- the database fails ----------------------------------------------------------------


def test_a_commit_that_fails_leaves_nothing(bench: Bench) -> None:
    request = bench.request()
    bench.database.fail_before = 1
    assert bench.send(request).status == 503
    assert releases(bench.other) == []
    assert bench.world.released(request) == {f"{CHAT}@1": b"the model key"}


def test_a_commit_that_stands_though_it_was_said_to_fail(bench: Bench) -> None:
    request = bench.request()
    bench.database.fail_after = 1
    failed = bench.send(request)
    assert failed.status == 503
    assert "answer" not in failed.document
    # The entry says "may have left"; the retry gets it and counts once.
    assert len(releases(bench.other)) == 1
    first, second = bench.world.send(request), bench.world.send(request)
    assert first.status_code == 200
    assert first.get_data() == second.get_data()
    assert len(releases(bench.other)) == 1


def test_a_database_that_is_away_for_reading(bench: Bench) -> None:
    request = bench.request()
    for away in (1, 2):
        bench.database.fail_reads = away
        assert bench.send(request).status == 503
    bench.database.fail_reads = 0
    assert bench.send(request).status == 200
    assert len(releases(bench.other)) == 1


@pytest.mark.parametrize("stored", [b"{}", b"", b'{"answer": {}}', b"\xff"])
def test_a_stored_answer_that_was_changed_is_not_sent(
    bench: Bench, stored: bytes
) -> None:
    request = bench.request()
    assert bench.send(request).status == 200
    with writer(bench.other) as connection:
        connection.execute(update(schema.spent_challenges).values(answer=stored))
    seen = bench.send(request)
    assert (seen.status, seen.code) == (503, "challenge.answer")


def test_no_second_tree_is_signed_over_a_log_that_was_rewritten(bench: Bench) -> None:
    """An entry is exchanged, and every node of the tree above it."""
    world = bench.world
    assert bench.send(bench.request()).status == 200
    entries, nodes = schema.log_entries, schema.log_nodes
    with writer(bench.other) as connection:
        rows = connection.execute(select(entries).order_by(entries.c.leaf_index)).all()
        *_, donor, victim = rows
        connection.execute(
            update(entries)
            .where(entries.c.leaf_index == victim.leaf_index)
            .values(leaf=donor.leaf, body=donor.body, salt=donor.salt)
        )
        leaves = [row.leaf for row in rows[:-1]] + [donor.leaf]
        frontier = merkle.Frontier()
        for leaf in leaves:
            for node, value in frontier.add(leaf_hash(leaf)):
                connection.execute(
                    update(nodes)
                    .where(nodes.c.level == node.level)
                    .where(nodes.c.position == node.position)
                    .values(hash=value)
                )
    for each in (world, world.restarted()):
        seen = Seen.of(each, each.send(each.request(bench.tpm)))
        assert (seen.status, seen.code) == (503, "audit.log")
    with world.parts.database.read() as tx:
        assert tx.log.head().size == len(rows)


def test_no_second_tree_is_signed_over_a_log_that_was_taken_back(bench: Bench) -> None:
    """The tables of the log as they were, with the checkpoint that was signed then."""
    tables = ("log_head", "log_entries", "log_subjects", "log_nodes", "log_checkpoints")
    with writer(bench.other) as connection:
        saved = {
            name: [
                dict(row)
                for row in connection.execute(text(f"SELECT * FROM {name}")).mappings()
            ]
            for name in tables
        }
    assert bench.send(bench.request()).status == 200
    with writer(bench.other) as connection:
        for name in ("log_subjects", *tables):
            connection.execute(text(f"DELETE FROM {name}"))
        for name, rows in saved.items():
            for row in rows:
                columns = ", ".join(row)
                values = ", ".join(f":{column}" for column in row)
                insert = text(f"INSERT INTO {name} ({columns}) VALUES ({values})")
                connection.execute(insert, row)
    seen = bench.send(bench.request())
    assert (seen.status, seen.code) == (503, "audit.log")
