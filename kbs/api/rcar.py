"""The RCAR door, `/kbs/v0`: what guests of Confidential Containers speak.

Wire-compatible with Trustee 0.21 (protocol 0.4.0): its paths, its errors, 401 for all
that it answers with 401; it looks at no content type. Errors say which check failed,
and an absent resource that is granted is 404, which its guests take as final.
"""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus

from flask import Blueprint, Response, current_app, request
from werkzeug.exceptions import MethodNotAllowed
from werkzeug.http import http_date
from werkzeug.sansio.http import parse_cookie

from kbs.api.problems import answer
from kbs.api.requests import any_body_bytes, broker
from kbs.broker.rcar.fetch import Fetched
from kbs.channel.session import Session
from kbs.core.errors import (
    AuthenticationError,
    ConflictError,
    ForbiddenError,
    KbsError,
    MalformedError,
    NotFoundError,
    UnavailableError,
)
from kbs.core.ids import KeyId, parse_key_id
from kbs.wire.problem import problem_of
from kbs.wire.rcar import ErrorName, error_document

blueprint = Blueprint("rcar", __name__, url_prefix="/kbs/v0")

COOKIE = "kbs-session-id"

_AUTH = "Attestation error: RCAR handshake Auth failed: "
_ATTEST = "Attestation error: RCAR handshake Attest failed: "
_NO_TOKEN = "Attestation Token not found"  # noqa: S105 - the words of the protocol
_METHODS = ("GET", "POST", "PUT", "DELETE")
_GOVERNED = (
    "is not changed here: what is in force is signed; register a policy with "
    "`kbs policy register`, reference values with `kbs ref add values`"
)


@blueprint.before_request
def refuse_head() -> None:
    """Refuse HEAD, which the protocol does not have: nothing is released unseen.

    Raises:
        MethodNotAllowed: it is one; the answer names what there is at this path.
    """
    if request.method == "HEAD":
        adapter = current_app.create_url_adapter(request)
        allowed = set() if adapter is None else set(adapter.allowed_methods())
        raise MethodNotAllowed(valid_methods=sorted(allowed - {"HEAD"}))


@blueprint.post("/auth")
def auth() -> Response:
    """Begin a session."""
    try:
        begun = broker().rcar.attestation.begin(any_body_bytes())
    except KbsError as exc:
        return _refuse(exc, ErrorName.ATTESTATION, _AUTH)
    return _with_cookie(answer(begun.challenge), begun.session)


@blueprint.post("/attest")
def attest() -> Response:
    """Verify evidence; answer the token of what it proves."""
    try:
        session, proven = broker().rcar.attestation.attest(_cookie(), any_body_bytes())
    except KbsError as exc:
        return _refuse(exc, ErrorName.ATTESTATION, _ATTEST)
    return _with_cookie(answer({"token": proven.token}), session)


@blueprint.get("/resource/<repository>/<sort>/<tag>")
def resource(repository: str, sort: str, tag: str) -> Response:
    """Give a resource to whom it is granted, sealed to the key that was attested."""
    fetch = _credential()
    if fetch is None:
        return _error(HTTPStatus.UNAUTHORIZED, ErrorName.NO_TOKEN, _NO_TOKEN)
    try:
        key_id = _key_id(repository, sort, tag)
        found = fetch(key_id)
    except NotFoundError as exc:
        return _error(HTTPStatus.NOT_FOUND, ErrorName.PATH, str(exc))
    except AuthenticationError as exc:
        name = ErrorName.TOKEN if exc.code.startswith("ear.") else ErrorName.NO_TOKEN
        return _refuse(exc, name, f"{_NO_TOKEN}: ")
    except KbsError as exc:
        return _refuse(exc, ErrorName.PLUGIN, "Plugin internal error: ")
    return _fetched(found, key_id)


@blueprint.post("/resource/<repository>/<sort>/<tag>")
def store(repository: str, sort: str, tag: str) -> Response:
    """Store a resource for an administrator."""
    body = any_body_bytes()
    return _upload(
        lambda key_id: broker().rcar.upload.store(_authorization(), key_id, body),
        (repository, sort, tag),
    )


@blueprint.delete("/resource/<repository>/<sort>/<tag>")
def delete(repository: str, sort: str, tag: str) -> Response:
    """Retire a resource for an administrator."""
    return _upload(
        lambda key_id: broker().rcar.upload.delete(_authorization(), key_id),
        (repository, sort, tag),
    )


@blueprint.route("/attestation-policy", methods=_METHODS)
@blueprint.route("/resource-policy", methods=_METHODS)
@blueprint.route("/reference-value", methods=_METHODS)
@blueprint.route("/reference-value/<path:name>", methods=_METHODS)
def governed(name: str = "") -> Response:
    """Refuse: no door goes round the signed statements."""
    del name
    what = request.path.split("/")[3]
    return _error(HTTPStatus.UNAUTHORIZED, ErrorName.ADMIN, f"{what} {_GOVERNED}")


@blueprint.route("/", defaults={"rest": ""}, methods=_METHODS, strict_slashes=False)
@blueprint.route("/<path:rest>", methods=_METHODS)
def unknown(rest: str) -> Response:
    """Refuse what is neither built in nor a plugin that there is here."""
    plugin = rest.partition("/")[0][:64]
    if plugin == "resource":
        detail = "resource path: expected REPOSITORY/TYPE/TAG"
        if request.method == "PUT":
            detail = "resource: got PUT, expected GET, POST or DELETE"
        return _error(HTTPStatus.NOT_FOUND, ErrorName.PATH, detail)
    detail = f"Plugin {plugin} not found"
    return _error(HTTPStatus.NOT_FOUND, ErrorName.NO_PLUGIN, detail)


def _upload(run: Callable[[KeyId], None], names: tuple[str, str, str]) -> Response:
    try:
        run(_key_id(*names))
    except (AuthenticationError, ForbiddenError) as exc:
        return _refuse(exc, ErrorName.ADMIN, "Admin auth error: ")
    except NotFoundError as exc:
        return _error(HTTPStatus.NOT_FOUND, ErrorName.PATH, str(exc))
    except KbsError as exc:
        return _refuse(exc, ErrorName.PLUGIN, "Plugin internal error: ")
    return Response(status=HTTPStatus.OK, content_type="text/xml")


def _fetched(found: Fetched, key_id: KeyId) -> Response:
    if found.jwe is not None:
        response = answer(found.jwe)
    elif found.absent:
        detail = f"Plugin internal error: resource {key_id} does not exist"
        response = _error(HTTPStatus.NOT_FOUND, ErrorName.PLUGIN, detail)
    else:
        reasons = ", ".join(found.reasons)
        detail = f"Access denied by policy: {reasons} (decision {found.decision})"
        response = _error(HTTPStatus.UNAUTHORIZED, ErrorName.DENIED, detail)
    response.headers.add("KBS-Decision", found.decision)
    return response


def _credential() -> Callable[[KeyId], Fetched] | None:
    """Return how to fetch with what came; a session that has attested wins."""
    cookie, bearer = _cookie_fetch(), _bearer_fetch()
    if cookie is None or bearer is None:
        return cookie or bearer

    def either(key_id: KeyId) -> Fetched:
        try:
            return cookie(key_id)
        except AuthenticationError:
            return bearer(key_id)

    return either


def _cookie_fetch() -> Callable[[KeyId], Fetched] | None:
    cookie = _cookie()
    if cookie is None:
        return None
    rcar = broker().rcar
    try:
        session = rcar.attestation.session(cookie)
    except AuthenticationError:
        return None
    return lambda key_id: rcar.fetch.by_session(session, key_id)


def _bearer_fetch() -> Callable[[KeyId], Fetched] | None:
    scheme, _, token = (_authorization() or "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        return None
    rcar = broker().rcar
    return lambda key_id: rcar.fetch.by_token(token, key_id)


def _key_id(*names: str) -> KeyId:
    try:
        return parse_key_id("/".join(names))
    except MalformedError as exc:
        raise NotFoundError(
            "resource path",
            got="/".join(names)[:120],
            expected="three parts of a-z 0-9 . _ - that start and end alphanumeric",
            code="rcar.path",
        ) from exc


def _cookie() -> str | None:
    # Not `request.cookies`, which looks for theirs through all of the headers.
    return parse_cookie(request.environ.get("HTTP_COOKIE")).get(COOKIE)


def _authorization() -> str | None:
    return request.headers.get("Authorization")


def _with_cookie(response: Response, session: Session) -> Response:
    # The protocol's own attributes: guests send it to every path below /kbs/v0. Of
    # base64url nothing is quoted in a cookie.
    text = f"{COOKIE}={session.cookie}; Expires={http_date(session.expires)}"
    response.headers.add("Set-Cookie", text)
    return response


def _refuse(error: KbsError, name: ErrorName, prefix: str) -> Response:
    status = HTTPStatus.UNAUTHORIZED
    # A conflict that is left over is the store's.
    if isinstance(error, (UnavailableError, ConflictError)):
        status = HTTPStatus.SERVICE_UNAVAILABLE
    # What names rows and digests is for administrators and the log.
    return _error(status, name, f"{prefix}{problem_of(error)['detail']}")


def _error(status: HTTPStatus, name: ErrorName, detail: str) -> Response:
    return answer(error_document(name, detail), int(status))
