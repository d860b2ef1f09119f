"""Tokens of Intel Trust Authority (ITA), versions 1 and 2.

Version 1 writes what it found of one TEE at the top, version 2 in an object of its own
(`tdx`, `sgx`, …); the claims here are the same. Bound by the runtime data that the
guest hands in: the 64 characters of base64url(P), which the service hashes into
REPORTDATA and repeats, in base64, as `attester_held_data`. Tokens of Azure's TDs are
read and verified, and never bound: the paravisor stands between guest and report.
"""

from __future__ import annotations

from collections.abc import Mapping

from kbs.core.claims import ClaimType, ClaimValue
from kbs.core.encode import parse_b64
from kbs.core.errors import MalformedError
from kbs.evidence.token.fields import Table, object_at, read_fields, text_at
from kbs.evidence.token.service import Service, Token, is_nonce, nonce_bytes
from kbs.evidence.token.tee import (
    open_claims,
    open_specs,
    sgx_rows,
    tcb_status,
    tdx_rows,
)
from kbs.pki.issuers import Profile

_TEES = ("tdx", "sgx", "sevsnp")
_BOUND = frozenset({"TDX", "SGX"})
_HELD = "attester_held_data"
_RUNTIME = "attester_runtime_data"
_MAX_HELD = 16 * 1024

_TABLE = Table("ita", "token of Intel Trust Authority")
_ROW = _TABLE.row

FIELDS = (
    _ROW("iss", ClaimType.TEXT, "the service"),
    _ROW("ver", ClaimType.TEXT, "version of the token's schema"),
    _ROW("eat_profile", ClaimType.TEXT, "EAT profile"),
    _ROW("attester_type", ClaimType.TEXT, "what was attested"),
    _ROW("attester_tcb_date", ClaimType.TEXT, "date of the TCB level"),
    _ROW("attester_advisory_ids", ClaimType.TEXTS, "advisories that apply"),
    _ROW("dbgstat", ClaimType.TEXT, "debug state (EAT)"),
    *tdx_rows(_TABLE),
    tcb_status(_TABLE),
    *sgx_rows(
        _TABLE,
        enclave="sgx_mrenclave",
        signer="sgx_mrsigner",
        product="sgx_isvprodid",
        version="sgx_isvsvn",
    ),
    _ROW("sgx_report_data", ClaimType.BYTES, "REPORTDATA of the enclave", size=64),
    _ROW("sgx_is_debuggable", ClaimType.BOOL, "whether the enclave can be debugged"),
)
_POLICIES = _TABLE.spec(
    "policy_ids_matched",
    ClaimType.TEXTS,
    "ids of the service's policies that matched, in the token's order",
)


def _devices(token: Token) -> tuple[dict[str, ClaimValue], ...]:
    body = _body(token)
    values = {**read_fields(FIELDS, body), **open_claims("ita", body)}
    policies = body.get("policy_ids_matched")
    if isinstance(policies, list):
        ids = [text_at(one, "id") for one in policies if isinstance(one, dict)]
        values[_POLICIES.name] = tuple(one for one in ids if one is not None)
    return (values,)


def _body(token: Token) -> Mapping[str, object]:
    found = [name for name in _TEES if object_at(token.claims, name)]
    if len(found) != 1:
        # None: version 1. Several CPUs in one token are nothing that we can tell apart.
        return token.claims
    inner = object_at(token.claims, found[0])
    return {"attester_type": found[0].upper(), **inner, **token.claims}


def _held(token: Token) -> str:
    """Return the text that the guest handed in, or nothing."""
    held = text_at(_body(token), _HELD)
    try:
        data = parse_b64(held, _HELD, limit=_MAX_HELD)
        return data.decode("ascii")
    except (MalformedError, UnicodeDecodeError):
        return ""


def _bound(token: Token) -> bytes:
    return nonce_bytes(_held(token))


def _is_bound(token: Token, binding: bytes) -> bool:
    body = _body(token)
    # The service attests to TPMs without a TEE as well. A TD of Azure always has
    # runtime data of its paravisor, which is what is measured; what the guest hands in
    # stands in an NV index that any software of any customer's guest can write.
    kind = text_at(body, "attester_type") or ""
    by_paravisor = body.get(_RUNTIME) is not None
    return kind in _BOUND and not by_paravisor and is_nonce(_held(token), binding)


SERVICE = Service(
    profile=Profile.ITA,
    fields=FIELDS,
    derived=(*open_specs(_TABLE), _POLICIES),
    devices=_devices,
    bound=_bound,
    is_bound=_is_bound,
)
