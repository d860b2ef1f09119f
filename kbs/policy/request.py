"""What a policy is told of a request that nobody makes: of a case, or to be explained.

`{"keys": […], "door", "freshness", "time", "token_age"}` (contract, section 5); door v1
and freshness challenge where it says nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from kbs.core.claims import ClaimValue
from kbs.core.clock import format_time, parse_time
from kbs.core.encode import MAX_INTEGER, require_integer, require_text

REQUEST_MEMBERS = frozenset({"keys", "door", "freshness", "time", "token_age"})


def request_claims(
    members: Mapping[str, object], what: str, *, at: datetime | None = None
) -> dict[str, ClaimValue]:
    """Return the request's claims; without a `time` it is `at`, or unknown.

    Raises:
        MalformedError: a member lacks its shape.
    """
    claims: dict[str, ClaimValue] = {
        "request.door": require_text(members.get("door", "v1"), f"{what} door"),
        "request.freshness": require_text(
            members.get("freshness", "challenge"), f"{what} freshness"
        ),
    }
    time = at
    if "time" in members:
        time = parse_time(members["time"], f"{what} time")
    if time is not None:
        claims["request.time"] = format_time(time)
    if "token_age" in members:
        claims["request.token_age"] = require_integer(
            members["token_age"], f"{what} token_age", least=0, most=MAX_INTEGER
        )
    return claims
