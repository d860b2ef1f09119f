"""What is remembered is bounded, and never made twice while it is."""

from __future__ import annotations

from kbs.pki.memo import Memo


def test_a_result_is_made_once_for_equal_keys() -> None:
    memo: Memo[int] = Memo()
    made: list[tuple[int, ...]] = []

    def recall(key: tuple[int, ...]) -> int:
        def make() -> int:
            made.append(key)
            return sum(key)

        return memo.recall(key, make)

    assert [recall((1, 2)), recall((1, 2)), recall((2, 2))] == [3, 3, 4]
    assert made == [(1, 2), (2, 2)]


def test_the_least_recently_used_goes_first() -> None:
    memo: Memo[str] = Memo(limit=2)
    for key in ("a", "b", "a", "c"):
        memo.recall(key, lambda: "first")
    kept = {key: memo.recall(key, lambda: "again") for key in ("a", "c", "b")}
    assert kept == {"a": "first", "c": "first", "b": "again"}
