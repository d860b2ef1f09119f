"""A Secret shows itself to nobody but the caller of `reveal`."""

from __future__ import annotations

import copy
import json
import logging
import pickle
from collections.abc import Callable

import pytest

from kbs.keys.secret import Secret

VALUE = b"correct horse battery staple"
SECRET = Secret(VALUE)


@pytest.mark.parametrize(
    "show",
    [
        repr,
        str,
        lambda s: f"{s}",
        lambda s: f"{s!r:>80}",
        lambda s: format(s, "x"),
        lambda s: "%s %r" % (s, s),  # noqa: UP031 - the old way must be safe too
        lambda s: repr([s]) + repr({"k": s}),
    ],
)
def test_no_way_of_writing_it_shows_the_bytes(show: Callable[[Secret], str]) -> None:
    shown = show(SECRET)
    assert "correct" not in shown
    assert VALUE.hex() not in shown
    assert "hidden" in shown


def test_a_log_line_shows_nothing(caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("t").warning("key %s %r", SECRET, SECRET)
    assert "correct" not in caplog.text
    assert "hidden" in caplog.text


@pytest.mark.parametrize(
    "take",
    [
        pickle.dumps,
        lambda s: pickle.dumps(s, protocol=0),
        copy.copy,
        copy.deepcopy,
        json.dumps,
        lambda s: s.__getstate__(),
        lambda s: s.__reduce__(),
        hash,
        bytes,
        list,
        vars,
    ],
)
def test_it_is_not_pickled_copied_hashed_or_iterated(
    take: Callable[[Secret], object],
) -> None:
    with pytest.raises(TypeError) as caught:
        take(SECRET)
    assert "correct" not in str(caught.value)


def test_equality_is_by_value_with_secrets_only() -> None:
    assert Secret(b"a") == Secret(b"a")
    assert Secret(b"a") != Secret(b"b")
    assert Secret(b"a") != b"a"


def test_reveal_and_size() -> None:
    assert SECRET.reveal() == VALUE
    assert SECRET.size == len(VALUE)


def test_it_is_made_of_bytes_only() -> None:
    with pytest.raises(TypeError):
        Secret("text")  # type: ignore[arg-type]
