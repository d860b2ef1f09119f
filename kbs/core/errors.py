"""The exception tree.

::

    KbsError
    ├─ MalformedError         bytes or JSON lack the promised shape        400
    ├─ AuthenticationError    no, expired or replayed challenge or token   401
    ├─ ForbiddenError         known, but not allowed to do this            403
    ├─ VerificationError      the proof does not hold (carries checks)     403
    ├─ NotFoundError          no such thing                                404
    ├─ ConflictError          it changed, or exists already                409
    ├─ UnavailableError       could not check: try again later             503
    │   ├─ CollateralError    a certificate or revocation list is missing
    │   └─ IntegrityError     stored state does not match its proofs
    └─ ConfigurationError     raised at start, never while serving

A denial by policy is a value (`kbs.core.decision.Denied`), not an exception.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kbs.core.checks import Check


class KbsError(Exception):
    """Base of everything this package raises on purpose.

    The message reads *what: got …, expected …*; `hint` says what to do.
    `code` is a stable dotted name for programs, `what` a subject for people.
    """

    code = "error"

    def __init__(
        self,
        what: str,
        *,
        got: str | None = None,
        expected: str | None = None,
        hint: str | None = None,
        code: str | None = None,
    ) -> None:
        """Compose the message from its parts."""
        self.what = what
        self.got = got
        self.expected = expected
        self.hint = hint
        if code is not None:
            self.code = code
        super().__init__(self._compose())

    def _compose(self) -> str:
        details = []
        if self.got is not None:
            details.append(f"got {self.got}")
        if self.expected is not None:
            details.append(f"expected {self.expected}")
        message = self.what
        if details:
            message += ": " + ", ".join(details)
        if self.hint is not None:
            message += f" ({self.hint})"
        return message


class MalformedError(KbsError):
    """Bytes or JSON do not have the promised shape."""

    code = "malformed"


class AuthenticationError(KbsError):
    """The caller is not known: no, expired or replayed challenge or token."""

    code = "unauthenticated"


class ForbiddenError(KbsError):
    """The caller is known and may not do this."""

    code = "forbidden"


class VerificationError(KbsError):
    """At least one check of the evidence failed; carries every check made."""

    code = "evidence.refused"

    def __init__(
        self,
        what: str,
        *,
        checks: tuple[Check, ...] = (),
        got: str | None = None,
        expected: str | None = None,
        hint: str | None = None,
        code: str | None = None,
    ) -> None:
        """Keep the checks beside the message."""
        self.checks = checks
        super().__init__(what, got=got, expected=expected, hint=hint, code=code)


class NotFoundError(KbsError):
    """There is no such thing, or the caller may not know of it."""

    code = "not_found"


class ConflictError(KbsError):
    """It exists already, or changed since it was read."""

    code = "conflict"


class UnavailableError(KbsError):
    """It could not be checked or done now; trying again later may help."""

    code = "unavailable"


class CollateralError(UnavailableError):
    """A certificate or revocation list that is needed is missing or stale."""

    code = "collateral.missing"


class IntegrityError(UnavailableError):
    """Stored state does not match the proof kept of it; nothing is released."""

    code = "integrity"


class ConfigurationError(KbsError):
    """A setting or the environment does not allow a start."""

    code = "configuration"


def said_by(error: Exception) -> str:
    """Return what a library says of a stranger's text: short, on one line, in ASCII.

    It may quote that text, and errors go to logs and terminals.
    """
    return ascii(str(error))[1:-1][:80] or "another text"
