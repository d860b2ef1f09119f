"""Reading what a caller sent: the body within its caps, and what is asked."""

from __future__ import annotations

from collections.abc import Set

from flask import current_app, request
from werkzeug.exceptions import RequestEntityTooLarge, UnsupportedMediaType

from kbs.api.limits import MAX_BODY_BYTES
from kbs.broker.pace import Pace
from kbs.broker.service import Broker
from kbs.core.encode import parse_json_object, require_members
from kbs.core.errors import MalformedError

MAX_EMPTY_BYTES = 1024
"""Room for a body that says nothing."""


def broker() -> Broker:
    """Return the broker that this application was composed with."""
    found = current_app.extensions["kbs"]
    if not isinstance(found, Broker):
        raise TypeError("this application was composed without a broker")
    return found


def strangers() -> Pace:
    """Return how often strangers may cause a line of the broker's own log."""
    found = current_app.extensions["kbs.strangers"]
    if not isinstance(found, Pace):
        raise TypeError("this application was composed without a pace for strangers")
    return found


def body_bytes() -> bytes:
    """Return the body of a JSON request.

    Raises:
        UnsupportedMediaType: another content type.
        RequestEntityTooLarge: more than any endpoint takes.
    """
    if request.mimetype != "application/json":
        raise UnsupportedMediaType
    return any_body_bytes()


def any_body_bytes() -> bytes:
    """Return the body of a request, whatever it says that it is.

    Raises:
        RequestEntityTooLarge: more than any endpoint takes.
    """
    data = request.get_data(cache=True)
    # Without a length the stream is cut at the cap, silently.
    if len(data) >= MAX_BODY_BYTES and request.content_length is None:
        raise RequestEntityTooLarge
    return data


def body_object() -> dict[str, object]:
    """Return the body as one JSON object.

    Raises:
        MalformedError: it is not.
    """
    return parse_json_object(body_bytes(), "request body", limit=MAX_BODY_BYTES)


def no_members(what: str) -> None:
    """Return if the body says nothing: `{}`, or no bytes at all.

    Raises:
        MalformedError: it says something.
    """
    body = parse_json_object(body_bytes() or b"{}", what, limit=MAX_EMPTY_BYTES)
    require_members(body, what, required=set())


def argument(name: str) -> str | None:
    """Return a query argument that was given at most once.

    Raises:
        MalformedError: it was given twice.
    """
    values = request.args.getlist(name)
    if len(values) > 1:
        raise MalformedError(f"query argument {name}", got="it twice", expected="once")
    return values[0] if values else None


def known_arguments(names: Set[str]) -> None:
    """Return if the query has no other arguments.

    Raises:
        MalformedError: it has.
    """
    unknown = sorted(set(request.args) - names)
    if unknown:
        raise MalformedError(
            "query",
            got="unknown argument " + ", ".join(f"{one[:40]!a}" for one in unknown[:5]),
            expected="only " + ", ".join(sorted(names)) if names else "no arguments",
        )


def integer_argument(name: str, default: int, *, most: int) -> int:
    """Return a query argument as an integer from 0 to `most`.

    Raises:
        MalformedError: it is none.
    """
    text = argument(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(most))):
        raise MalformedError(
            f"query argument {name}", got=repr(text)[:40], expected=f"0 to {most}"
        )
    return min(int(text), most)
