"""The status of one certificate, from revocation lists and OCSP answers together.

Four words that lead to different actions: *good*; *revoked*, which is never undone
(RFC 5280, section 5.3.1); *on hold*, which a newer answer may lift; *unknown*, where
the responder says that it does not know the certificate. Where nothing current says
anything, the status is *missing*.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from cryptography import x509
from cryptography.x509 import ocsp

from kbs.pki.cache import LinkCache
from kbs.pki.certificates import describe
from kbs.pki.crl import is_crl_of, is_current, newest_of
from kbs.pki.ocsp import answer_for


class CertificateState(StrEnum):
    """What is known of a certificate."""

    GOOD = "good"
    REVOKED = "revoked"
    HOLD = "hold"
    UNKNOWN = "unknown"
    MISSING = "missing"


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateStatus:
    """The status of one certificate at one time, and in words why."""

    certificate: x509.Certificate
    state: CertificateState
    detail: str


@dataclass(frozen=True, slots=True)
class _Word:
    """One source's word: `since` when it was said, `stands` whether it covers now."""

    state: CertificateState
    since: datetime
    stands: bool
    detail: str


def status_of(
    certificate: x509.Certificate,
    issuer: x509.Certificate,
    *,
    lists: Iterable[x509.CertificateRevocationList],
    answers: Iterable[ocsp.OCSPResponse],
    now: datetime,
    cache: LinkCache,
) -> CertificateStatus:
    """Weigh every word about a certificate that is to hand.

    A revocation counts however old it is. A hold counts, also when it has run out,
    until something newer that is current says good.
    """
    words = [
        word
        for word in (
            *_from_answers(certificate, issuer, answers, now, cache),
            _from_lists(certificate, issuer, lists, now, cache),
        )
        if word is not None
    ]
    found = _weigh(words)
    if found is None:
        name = f"{describe(certificate.subject)} (serial {certificate.serial_number:x})"
        stale = max((word.since for word in words), default=None)
        age = "" if stale is None else f"; the newest known is of {stale.isoformat()}"
        return CertificateStatus(
            certificate=certificate,
            state=CertificateState.MISSING,
            detail=f"no current status of {name} by {describe(issuer.subject)}{age}",
        )
    return CertificateStatus(
        certificate=certificate,
        state=found.state,
        detail=f"{describe(certificate.subject)}: {found.detail}",
    )


def _weigh(words: list[_Word]) -> _Word | None:
    by_state: dict[CertificateState, list[_Word]] = {}
    for word in words:
        by_state.setdefault(word.state, []).append(word)
    revoked = by_state.get(CertificateState.REVOKED)
    if revoked:
        return revoked[0]
    good = _newest(word for word in words if _clears(word))
    held = _newest(by_state.get(CertificateState.HOLD, ()))
    if held is not None and (good is None or good.since <= held.since):
        return held
    if good is not None:
        return good
    return _newest(w for w in by_state.get(CertificateState.UNKNOWN, ()) if w.stands)


def _clears(word: _Word) -> bool:
    return word.state is CertificateState.GOOD and word.stands


def _newest(words: Iterable[_Word]) -> _Word | None:
    return max(words, key=lambda word: word.since, default=None)


def _from_answers(
    certificate: x509.Certificate,
    issuer: x509.Certificate,
    answers: Iterable[ocsp.OCSPResponse],
    now: datetime,
    cache: LinkCache,
) -> Iterable[_Word]:
    for given in answers:
        answer = answer_for(certificate, issuer, given, now=now, cache=cache)
        if answer is None:
            continue
        if answer.status is ocsp.OCSPCertStatus.REVOKED:
            state = _state_of(answer.reason)
        elif answer.status is ocsp.OCSPCertStatus.GOOD:
            state = CertificateState.GOOD
        else:
            state = CertificateState.UNKNOWN
        yield _Word(
            state,
            answer.since,
            answer.is_current(now),
            _said(state, answer.reason, "OCSP", answer.since),
        )


def _from_lists(
    certificate: x509.Certificate,
    issuer: x509.Certificate,
    lists: Iterable[x509.CertificateRevocationList],
    now: datetime,
    cache: LinkCache,
) -> _Word | None:
    newest = newest_of(
        crl
        for crl in lists
        if crl.last_update_utc <= now and is_crl_of(crl, issuer, cache)
    )
    if newest is None:
        return None
    entry = newest.get_revoked_certificate_by_serial_number(certificate.serial_number)
    reason = None if entry is None else _reason_of(entry)
    state = CertificateState.GOOD if entry is None else _state_of(reason)
    since = newest.last_update_utc
    return _Word(
        state, since, is_current(newest, now), _said(state, reason, "the list", since)
    )


def _reason_of(entry: x509.RevokedCertificate) -> x509.ReasonFlags | None:
    try:
        return entry.extensions.get_extension_for_class(x509.CRLReason).value.reason
    except (x509.ExtensionNotFound, ValueError):
        # What cannot be read is no hold, so that it is a revocation for good.
        return None


def _state_of(reason: x509.ReasonFlags | None) -> CertificateState:
    if reason is x509.ReasonFlags.certificate_hold:
        return CertificateState.HOLD
    return CertificateState.REVOKED


def _said(
    state: CertificateState,
    reason: x509.ReasonFlags | None,
    source: str,
    since: datetime,
) -> str:
    words = {
        CertificateState.GOOD: "good",
        CertificateState.REVOKED: f"revoked ({_spelt(reason)})",
        CertificateState.HOLD: "on hold (certificateHold), until a newer answer",
        CertificateState.UNKNOWN: "not known to the responder",
    }
    return f"{words[state]}, by {source} of {since.isoformat()}"


def _spelt(reason: x509.ReasonFlags | None) -> str:
    return "no reason given" if reason is None else reason.value
