from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from kbs.audit.checkpoint import Checkpoint, NoteSignature, sign_checkpoint
from kbs.audit.entry import Leaf, parse_leaf, salted_digest
from kbs.audit.events import LogState, RollbackAccepted
from kbs.audit.export import (
    MAX_LINE,
    parse_entry_line,
    read_lines,
    readable_by,
    write_export,
)
from kbs.audit.kinds import Mode
from kbs.audit.log import LogEntry, LogHead
from kbs.audit.logkey import LogKey
from kbs.audit.merkle import Frontier
from kbs.audit.proof import leaf_hash
from kbs.audit.report import CHECKS, MAX_PROBLEMS, ExportError, ExportReport, Problem
from kbs.audit.verification import verify_export
from kbs.core.checks import Status, Verdict, verdict
from kbs.core.encode import b64, canonical_json
from kbs.core.errors import IntegrityError, MalformedError
from tests.unit.audit.samples import (
    ORIGIN,
    BuiltLog,
    Governance,
    denied_key,
    init,
    key_decision,
    release,
    signer,
    small_log,
)

ALL = readable_by(None)


def export(built: BuiltLog, may_read: Callable[[LogEntry], bool] = ALL) -> list[bytes]:
    with built.log.transaction() as transaction:
        return list(
            write_export(
                transaction, checkpoint=built.note, keys=built.keys, may_read=may_read
            )
        )


def refused(lines: Iterable[bytes], **options: Any) -> ExportReport:
    with pytest.raises(ExportError) as caught:
        verify_export(lines, **options)
    report = caught.value.report
    assert caught.value.checks == report.checks()
    assert not report.holds
    return report


def first(lines: Iterable[bytes], **options: Any) -> tuple[str, int | None, int | None]:
    """Check, line and entry of the first problem."""
    problem = refused(lines, **options).problems[0]
    return problem.check, problem.line, problem.index


@pytest.fixture(scope="module")
def built() -> BuiltLog:
    return small_log()


@pytest.fixture(scope="module")
def good(built: BuiltLog) -> list[bytes]:
    return export(built)


def changed(line: bytes, change: Callable[[dict[str, Any]], object]) -> bytes:
    members = json.loads(line)
    change(members)
    return canonical_json(members) + b"\n"


def test_the_lines_are_checkpoint_keys_and_entries(
    built: BuiltLog, good: list[bytes]
) -> None:
    assert json.loads(good[0]) == {"checkpoint": built.note.decode()}
    assert json.loads(good[1]) == {"keys": [built.keys[0].vkey]}
    for index, line in enumerate(good[2:]):
        members = json.loads(line)
        entry = built.log.state.entries[index]
        assert members["index"] == index
        assert members["leaf"] == entry.leaf.decode()
        assert members["body"] == json.loads(entry.body)
        assert members["hash"] == leaf_hash(entry.leaf).hex()
        assert canonical_json(members) + b"\n" == line


def test_a_good_export_verifies_with_and_without_a_pinned_key(
    built: BuiltLog, good: list[bytes]
) -> None:
    report = verify_export(good, keys=built.keys)
    assert report.pinned
    assert (report.entries, report.bodies, report.withheld) == (6, 6, 0)
    assert report.kinds["statement"] == 2
    assert [check.id for check in report.checks() if check.status != "pass"] == [
        "audit.previous"
    ]
    assert verdict(report.checks()) is Verdict.VERIFIED
    document = report.to_json()
    assert document["consistent"] is True
    assert document["first_time"] == "2026-11-22T08:00:00Z"
    assert document["latest_time"] == "2026-11-22T08:00:05Z"
    assert not verify_export(iter(good), origin=ORIGIN).pinned


def test_every_changed_byte_is_found_and_its_line_is_named() -> None:
    """What `kbs audit verify` promises: found, and where."""
    built = BuiltLog()
    built.append(init(), release(denied_key(), mode=Mode.CHECK))
    good = export(built)
    data = b"".join(good)
    starts = [0]
    for line in good:
        starts.append(starts[-1] + len(line))
    for place in range(len(data)):
        bad = bytearray(data)
        bad[place] ^= 1 + place % 127
        problem = refused(read_lines(io.BytesIO(bytes(bad)))).problems[0]
        number = max(n for n, start in enumerate(starts) if start <= place) + 1
        assert problem.line == number, (place, problem)
        assert problem.index == (number - 3 if number > 2 else None)


def test_every_changed_byte_is_found_where_bodies_are_withheld(
    built: BuiltLog,
) -> None:
    lines = export(built, readable_by(("beta",)))
    line = lines[4]
    assert json.loads(line)["body"] is None
    for place in range(len(line)):
        bad = bytearray(line)
        bad[place] ^= 1 + place % 127
        cut = read_lines(io.BytesIO(b"".join([*lines[:4], bytes(bad), *lines[5:]])))
        problem = refused(cut, keys=built.keys).problems[0]
        assert (problem.line, problem.index) == (5, 2), place


def test_an_auditor_of_a_tenant_gets_its_bodies_and_those_of_the_instance(
    built: BuiltLog,
) -> None:
    lines = export(built, readable_by(("beta",)))
    withheld = [json.loads(line)["body"] is None for line in lines[2:]]
    assert withheld == [False, True, True, False, True, False]
    report = verify_export(lines, keys=built.keys)
    assert (report.bodies, report.withheld) == (3, 3)
    checks = {check.id: check for check in report.checks()}
    assert checks["audit.history"].status == "skipped"
    assert checks["audit.history"].detail == checks["audit.body"].detail
    assert checks["audit.body"].detail.startswith("3 of 6 bodies are not in the export")


def _stripped(line: bytes) -> bytes:
    return canonical_json({**json.loads(line), "body": None, "salt": None}) + b"\n"


def test_a_grant_whose_body_was_taken_out_is_not_judged_and_that_shows(
    good: list[bytes], built: BuiltLog
) -> None:
    """Whoever hides what a grant says leaves every hash as it was."""
    (place,) = [
        place for place, line in enumerate(good) if b'"kind":"release.granted"' in line
    ]
    lines = [*good[:place], _stripped(good[place]), *good[place + 1 :]]
    report = verify_export(lines, keys=built.keys)
    assert report.withheld_words
    assert {check.id: check.status for check in report.checks()}[
        "audit.history"
    ] == "skipped"


def test_what_concerns_the_whole_instance_is_withheld_from_nobody() -> None:
    """Else an export could hide that a rollback was accepted, and why."""
    built = BuiltLog()
    state = LogState(seq=0, size=1, root="00" * 32)
    built.append(init(), RollbackAccepted(reason="r", mark=state, found=state))
    lines = export(built)
    for place in (2, 3):
        bad = [*lines[:place], _stripped(lines[place]), *lines[place + 1 :]]
        assert first(bad, keys=built.keys) == ("audit.body", place + 1, place - 2)


def test_a_body_is_for_who_may_read_all_its_tenants() -> None:
    entry = small_log().log.state.entries[-1]
    both = replace(entry, tenants=("acme", "beta"))
    for tenants, reads in (
        (("acme",), False),
        (("beta",), False),
        (("acme", "beta"), True),
        (("acme", "beta", "other"), True),
        ((), False),
        (None, True),
    ):
        assert readable_by(tenants)(both) is reads, tenants
    # What names no tenant is nobody's in particular.
    assert not readable_by(("acme",))(replace(entry, tenants=()))


def test_an_empty_file_and_a_file_of_something_else_are_refused() -> None:
    assert first([]) == ("audit.checkpoint", 1, None)
    assert first([b"{}\n", b"{}\n"]) == ("audit.checkpoint", 1, None)
    assert first([b"\x7fELF"]) == ("audit.checkpoint", 1, None)


def test_an_export_without_keys_proves_nothing(
    built: BuiltLog, good: list[bytes]
) -> None:
    lines = [good[0], b'{"keys":[]}\n', *good[2:]]
    report = refused(lines)
    assert report.problems[0].check == "audit.keys"
    assert report.unchecked == {"audit.checkpoint", "audit.keys", "audit.root"}
    assert verdict(report.checks()) is Verdict.REFUSED
    assert first(lines, keys=built.keys) == ("audit.keys", 2, None)


def test_missing_surplus_and_swapped_entries_are_named(good: list[bytes]) -> None:
    assert first(good[:-1]) == ("audit.entries", 8, 5)
    assert first(good[:2]) == ("audit.entries", 3, 0)
    assert first([*good, good[-1]]) == ("audit.entries", 9, 6)
    surplus = [*good, changed(good[-1], lambda m: m.update(index=6))]
    assert first(surplus) == ("audit.entries", 9, 6)
    swapped = [*good[:4], good[5], good[4], *good[6:]]
    assert first(swapped) == ("audit.entries", 5, 2)


def test_one_missing_line_is_one_problem_and_the_size_still_adds_up(
    good: list[bytes],
) -> None:
    report = refused([*good[:4], *good[5:]])
    assert [str(problem) for problem in report.problems] == [
        "line 5, entry 2: index: got 3, expected 2"
    ]
    assert report.entries == 6
    assert "audit.root" in report.unchecked


def test_one_wrong_number_is_one_problem(good: list[bytes]) -> None:
    bad = changed(good[4], lambda m: m.update(index=7))
    report = refused([*good[:4], bad, *good[5:]])
    assert [problem.index for problem in report.problems] == [2]


def test_a_line_without_end_or_beyond_the_limit_is_refused(good: list[bytes]) -> None:
    assert first([*good[:-1], good[-1][:-1]]) == ("audit.entries", 8, 5)
    endless = io.BytesIO(b"".join(good[:3]) + b"x" * (MAX_LINE + 10))
    assert first(read_lines(endless)) == ("audit.entries", 4, 1)


def rewrite(built: BuiltLog, line: bytes, **members: object) -> bytes:
    """Change a body and everything in its line that depends on it."""
    entry = parse_entry_line(line)
    assert entry.body is not None
    assert entry.salt is not None
    body = canonical_json({**json.loads(entry.body), **members})
    leaf = parse_leaf(entry.leaf)
    forged = Leaf(
        id=leaf.id,
        time=leaf.time,
        kind=leaf.kind,
        body_sha256=salted_digest(body, entry.salt),
    ).serialize()
    document = {
        "body": json.loads(body),
        "hash": leaf_hash(forged).hex(),
        "index": entry.index,
        "leaf": forged.decode(),
        "salt": b64(entry.salt),
    }
    return canonical_json(document) + b"\n"


def test_an_entry_rewritten_with_all_its_hashes_fails_the_root(
    built: BuiltLog, good: list[bytes]
) -> None:
    lines = [*good[:4], rewrite(built, good[4], door="rcar"), *good[5:]]
    assert first(lines) == ("audit.root", None, None)
    with pytest.raises(ExportError, match="export: root: got"):
        verify_export(lines)


def test_an_entry_rewritten_in_the_database_is_named(built: BuiltLog) -> None:
    """The tree's own hash goes into the export, not one made from the row."""
    tampered = small_log()
    entry = tampered.log.state.entries[2]
    leaf = entry.leaf.replace(b"granted", b"denied_")
    tampered.log.state.entries[2] = LogEntry(
        index=2, id=entry.id, time=entry.time, kind=entry.kind, leaf=leaf,
        body=entry.body, salt=entry.salt,
    )  # fmt: skip
    assert first(export(tampered)) == ("audit.entries", 5, 2)


def test_rows_missing_in_the_database_stop_the_export() -> None:
    tampered = small_log()
    del tampered.log.state.entries[4]
    with pytest.raises(IntegrityError, match="got 5 entries, expected 6"):
        export(tampered)


def test_a_damaged_body_or_leaf_in_the_database_is_exported_and_found() -> None:
    for change in ({"body": b'{"v":1'}, {"leaf": b"\xff"}, {"salt": b""}):
        tampered = small_log()
        entry = tampered.log.state.entries[3]
        members: dict[str, Any] = {
            "index": 3,
            "id": entry.id,
            "time": entry.time,
            "kind": entry.kind,
            "leaf": entry.leaf,
            "body": entry.body,
            "salt": entry.salt,
        }
        tampered.log.state.entries[3] = LogEntry(**{**members, **change})
        assert first(export(tampered))[1:] == (6, 3)


def test_a_leaf_that_is_no_entry_is_named_though_the_tree_holds_it(
    good: list[bytes],
) -> None:
    leaf = b'{"v":2}'
    line = {"hash": leaf_hash(leaf).hex(), "index": 0, "leaf": leaf.decode()}
    members = {"body": None, "salt": None, **line}
    note = sign_checkpoint(Checkpoint(ORIGIN, 1, leaf_hash(leaf)), signer())
    head = canonical_json({"checkpoint": note.decode()}) + b"\n"
    lines = [head, good[1], canonical_json(members) + b"\n"]
    report = refused(lines)
    (problem,) = report.problems
    assert (problem.check, problem.line, problem.index) == ("audit.entries", 3, 0)
    assert problem.message.startswith("leaf: got no body_sha256")
    assert report.unchecked == {"audit.history", "audit.keys"}


def test_the_checkpoint_must_be_of_the_pinned_log_and_key(
    built: BuiltLog, good: list[bytes]
) -> None:
    assert first(good, origin="other.example") == ("audit.checkpoint", 1, None)
    other = [LogKey("other.example", built.keys[0].public)]
    assert first(good, keys=other) == ("audit.checkpoint", 1, None)
    assert first(good, keys=[signer(7).key]) == ("audit.keys", 1, None)


def test_a_signature_that_nobody_can_check_has_no_place_in_an_export(
    built: BuiltLog, good: list[bytes]
) -> None:
    note = built.note + NoteSignature("witness.example", b"abcd", bytes(64)).line()
    line = canonical_json({"checkpoint": note.decode()}) + b"\n"
    assert first([line, *good[1:]]) == ("audit.checkpoint", 1, None)


def test_a_rotated_key_is_trusted_through_its_announcement() -> None:
    built = small_log()
    old = built.keys[0]
    built.rotate(2)
    built.rotate(3)
    built.append(release(denied_key(), mode=Mode.CHECK, governance=2))
    lines = export(built)
    assert verify_export(lines, keys=[old]).key == built.keys[2]
    assert verify_export(lines, keys=[built.keys[1]]).key == built.keys[2]
    assert verify_export(lines, keys=[built.keys[2]]).key == built.keys[2]
    assert verify_export(lines).key == built.keys[2]
    tenant = export(built, readable_by(("beta",)))
    assert verify_export(tenant, keys=[old]).key == built.keys[2]


def test_an_old_key_no_longer_signs_for_who_pinned_the_new_one() -> None:
    built = small_log()
    old = built.signer
    built.rotate(2)
    size, root = built.log.state.head.size, Frontier()
    for entry in built.log.state.entries:
        root.add(leaf_hash(entry.leaf))
    built.note = sign_checkpoint(Checkpoint(ORIGIN, size, root.root()), old)
    assert first(export(built), keys=[built.keys[1]]) == ("audit.keys", 1, None)


def test_the_list_of_keys_must_be_what_the_entries_announce(
    built: BuiltLog, good: list[bytes]
) -> None:
    for keys in ([built.keys[0], signer(2).key], [signer(2).key, built.keys[0]]):
        line = canonical_json({"keys": [key.vkey for key in keys]}) + b"\n"
        assert first([good[0], line, *good[2:]]) == ("audit.keys", 2, None)


def test_an_earlier_checkpoint_must_be_extended(built: BuiltLog) -> None:
    log = small_log()
    earlier = log.note
    log.append(release(denied_key(), mode=Mode.CHECK, governance=2))
    report = verify_export(export(log), previous=earlier, keys=log.keys)
    assert not report.unchecked | report.skipped
    assert {check.status for check in report.checks()} == {Status.PASS}
    assert {check.id for check in report.checks()} == set(CHECKS)
    start = sign_checkpoint(Checkpoint(ORIGIN, 0, Frontier().root()), signer())
    verify_export(export(log), previous=start)


def test_a_log_that_does_not_extend_the_earlier_checkpoint_is_refused(
    good: list[bytes],
) -> None:
    other = sign_checkpoint(Checkpoint(ORIGIN, 4, bytes(32)), signer())
    assert first(good, previous=other) == ("audit.previous", None, None)
    later = sign_checkpoint(Checkpoint(ORIGIN, 7, bytes(32)), signer())
    assert first(good, previous=later) == ("audit.previous", None, None)
    foreign = sign_checkpoint(Checkpoint(ORIGIN, 4, bytes(32)), signer(5))
    assert first(good, previous=foreign) == ("audit.previous", None, None)
    report = refused([*good[:3], *good[4:]], previous=other)
    assert "audit.previous" in report.unchecked


def test_time_may_step_back_a_minute_and_no_more() -> None:
    built, governance = BuiltLog(), Governance()
    built.append(init())
    built.append(governance.state())
    built.time -= timedelta(seconds=61)
    built.append(release())
    verify_export(export(built))
    # The log itself refuses more, so the entry is put there behind its back.
    built.log.state.head = LogHead(3, None)
    built.time -= timedelta(seconds=61)
    built.append(release())
    report = refused(export(built))
    assert [(p.check, p.line, p.index) for p in report.problems] == [
        ("audit.time", 6, 3)
    ]


def test_problems_are_counted_beyond_those_that_are_kept() -> None:
    built = BuiltLog()
    built.append(init(), *(release(key_decision()) for _ in range(MAX_PROBLEMS)))
    report = refused(export(built))
    assert len(report.problems) == MAX_PROBLEMS
    assert report.problem_count == 2 * MAX_PROBLEMS
    document = report.to_json()
    assert document["problem_count"] == 2 * MAX_PROBLEMS
    with pytest.raises(ExportError, match=r"and 199 more"):
        verify_export(export(built))


def test_progress_is_told_while_it_goes() -> None:
    built = BuiltLog()
    probe = release(denied_key(), mode=Mode.CHECK)
    built.append(init(), *([probe] * 1500))
    told: list[tuple[int, int]] = []
    verify_export(export(built), progress=lambda *done: told.append(done))
    assert told == [(1024, 1501), (1501, 1501)]


@pytest.mark.parametrize("name", ["body", "salt"])
def test_an_entry_line_has_both_body_and_salt_or_neither(
    good: list[bytes], name: str
) -> None:
    with pytest.raises(MalformedError):
        parse_entry_line(changed(good[4], lambda m: m.update({name: None})))


def test_a_problem_says_where_it_is() -> None:
    assert str(Problem(check="c", line=None, index=None, message="m")) == "export: m"
    assert str(Problem(check="c", line=3, index=None, message="m")) == "line 3: m"


def test_an_unread_report_has_no_times_and_no_key() -> None:
    document = ExportReport().to_json()
    assert (document["key"], document["root"], document["first_time"]) == (None,) * 3
