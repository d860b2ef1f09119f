"""The single checks of a quote; `verify` says what they are and runs them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from kbs.core.reader import Reader
from kbs.evidence.dcap.case import SERVICE, Case
from kbs.evidence.dcap.levels import QeIdentity, TcbInfo
from kbs.evidence.dcap.tcb import TcbFinding, evaluate, masked
from kbs.evidence.dcap.vouching import Missing, Vouched, Wrong, vouched
from kbs.pki.certificates import describe
from kbs.pki.chain import Chain, ChainBroken, IssuerMissing, out_of_date
from kbs.pki.crl import standing
from kbs.pki.p256 import is_p256_signature, p256_key

_ROOT_CRL = "https://certificates.trustedservices.intel.com/IntelSGXRootCA.der"
# SGX PCK Certificate and CRL Profile, section 1.3.2: who issues PCK certificates, and
# what the service calls it.
_PCK_ISSUERS = {
    "Intel SGX PCK Platform CA": "platform",
    "Intel SGX PCK Processor CA": "processor",
}
_PCK_DEPTH = 3
_NO_PCK = "no PCK certificate came with the quote, nor is one to hand"
# Certification data of type 3: PPID under RSA-3072, CPUSVN, PCESVN and PCEID, in the
# byte order in which the service wants them.
_ENCRYPTED_PPID = 3
_ENCRYPTED_PPID_BYTES, _CPU_SVN_BYTES, _PCE_SVN_BYTES, _PCE_ID_BYTES = 384, 16, 2, 2


def check_signature(case: Case) -> None:
    """Check 1: header and body are signed by the attestation key in the quote."""
    quote, check = case.item.quote, case.profile.check("quote.signature")
    key = p256_key(quote.attestation_key)
    if key is None:
        case.log.failed(check, "the attestation key is no point of P-256")
    elif is_p256_signature(key, quote.signature, quote.signed):
        case.log.passed(check, "signed by the attestation key")
    else:
        case.log.failed(check, "the quote does not verify under its attestation key")


def check_qe_report(case: Case) -> None:
    """Checks 2 and 3: the PCK signed the QE's report, which names the key."""
    quote, pck, log = case.item.quote, case.pck, case.log
    check = case.profile.check("qe_report.signature")
    if pck is None:
        log.unchecked(check, _no_pck(case))
    elif is_p256_signature(
        pck.public_key, quote.qe_report_signature, quote.qe_report_raw
    ):
        log.passed(check, "signed by the PCK of the platform")
    else:
        log.failed(
            check,
            f"the QE report does not verify under the PCK {pck.spki_sha256[:16]}",
        )
    named = hashlib.sha256(quote.attestation_key + quote.qe_auth_data).digest()
    log.compared(
        case.profile.check("qe_report.data"),
        "REPORTDATA of the QE against SHA-256 of attestation key and auth data",
        quote.qe_report.report_data.hex(),
        named.ljust(64, b"\0").hex(),
    )


def check_chain(case: Case) -> Chain | None:
    """Check 4: the PCK leads to the pinned root through a PCK CA of Intel's."""
    log, check = case.log, case.profile.check("chain")
    outcome = case.pck_chain
    if outcome is None:
        log.unchecked(check, _NO_PCK)
        return None
    if isinstance(outcome, IssuerMissing):
        log.unchecked(check, outcome.detail)
        return None
    if isinstance(outcome, ChainBroken):
        log.failed(check, outcome.detail)
        return None
    issuer = describe(outcome.certificates[1].subject)
    if len(outcome.certificates) != _PCK_DEPTH or issuer not in _PCK_ISSUERS:
        log.failed(
            check,
            "issuer of the PCK",
            got=f"{issuer}, {len(outcome.certificates)} certificates",
            expected=" or ".join(_PCK_ISSUERS) + " below the root",
        )
        return None
    log.passed(check, f"the PCK leads to {outcome.root_name} through {issuer}")
    return outcome


def check_qe_identity(case: Case) -> Vouched[QeIdentity] | None:
    """Check 7: the quoting enclave is Intel's, by a current identity."""
    profile = case.profile
    found = vouched(
        case.documents,
        QeIdentity,
        lambda one: one.id == profile.qe_identity_id,
        signers=case.signers,
        now=case.trust.now,
        cache=case.cache,
    )
    if not isinstance(found, Vouched):
        what = f"QE identity ({profile.qe_identity_id})"
        _not_vouched(case, "qe_identity", what, profile.url("qe/identity"), found)
        return None
    identity, report = found.content, case.item.quote.qe_report
    case.log.compared(
        profile.check("qe_identity"),
        "MRSIGNER, ISVPRODID, MISCSELECT and ATTRIBUTES of the quoting enclave",
        (
            f"{report.mr_signer.hex()}, {report.isv_prod_id}, "
            f"{masked(report.misc_select, identity.misc_select_mask).hex()}, "
            f"{masked(report.attributes, identity.attributes_mask).hex()}"
        ),
        (
            f"{identity.mr_signer.hex()}, {identity.isv_prod_id}, "
            f"{identity.misc_select.hex()}, {identity.attributes.hex()}"
        ),
    )
    return found


def check_tcb_info(case: Case) -> Vouched[TcbInfo] | None:
    """Check 8: there is a current TCB info for this kind of platform."""
    pck, profile = case.pck, case.profile
    if pck is None:
        case.log.unchecked(profile.check("tcb_info"), _NO_PCK)
        return None
    found = vouched(
        case.documents,
        TcbInfo,
        lambda one: one.id == profile.tcb_info_id and one.fmspc == pck.fmspc,
        signers=case.signers,
        now=case.trust.now,
        cache=case.cache,
    )
    if not isinstance(found, Vouched):
        fmspc = pck.fmspc.hex()
        what = f"TCB info ({profile.tcb_info_id}) of FMSPC {fmspc}"
        url = profile.url(f"tcb?fmspc={fmspc}")
        _not_vouched(case, "tcb_info", what, url, found)
        return None
    info = found.content
    case.log.compared(
        profile.check("tcb_info"),
        f"PCE id, TCB info {info.evaluation_number} of FMSPC {info.fmspc.hex()}",
        pck.pce_id.hex(),
        info.pce_id.hex(),
    )
    return found


def check_tcb(
    case: Case, info: Vouched[TcbInfo] | None, qe: Vouched[QeIdentity] | None
) -> TcbFinding | None:
    """Check 9: the TCB is known; how good it is, a policy judges."""
    check = case.profile.check("tcb")
    ready = case.has_passed("chain", "tcb_info", "qe_identity")
    if not ready or info is None or qe is None or case.pck is None:
        case.log.unchecked(check, "chain, TCB info and QE identity have to hold first")
        return None
    quote = case.item.quote
    found = evaluate(quote.report, quote.qe_report, case.pck, info.content, qe.content)
    parts = f"platform {found.platform}, quoting enclave {found.enclave}"
    if found.module is not None:
        parts += f", TDX module {found.module}"
    case.log.passed(check, f"{found.status}: {parts}; {_advised(found)}")
    return found


def check_validity(case: Case, chains: Iterable[Chain | None]) -> None:
    """Check 5: every certificate that was relied on is valid at the given time."""
    check, at = case.profile.check("validity"), case.trust.now.isoformat()
    if case.pck is None:
        case.log.unchecked(check, _NO_PCK)
        return
    known = [chain.certificates for chain in chains if chain is not None]
    certificates = dict.fromkeys(
        [case.pck.certificate, *(one for chain in known for one in chain)]
    )
    complaints = out_of_date(certificates, case.trust.now)
    if complaints:
        case.log.failed(check, "; ".join(complaints), got=at)
    elif not case.has_passed("chain"):
        case.log.unchecked(check, f"the PCK is valid at {at}; no chain")
    else:
        case.log.passed(check, f"all certificates are valid at {at}")


def check_revocation(
    case: Case, chain: Chain | None, signers: Iterable[Chain | None]
) -> None:
    """Check 6: no certificate that was relied on is on its issuer's newest list."""
    log, check = case.log, case.profile.check("revocation")
    if chain is None:
        log.unchecked(check, "there is no chain to look up")
        return
    leaf, issuer, root = chain.certificates
    lists = (
        *case.item.collateral.revocation_lists(),
        *case.trust.collateral.revocation_lists(),
    )
    others = [one.certificates[0] for one in signers if one is not None]
    now, cache = case.trust.now, case.cache
    below = standing([leaf], issuer, lists, now=now, cache=cache)
    above = standing([issuer, *others], root, lists, now=now, cache=cache)
    revoked = (*below.revoked, *above.revoked)
    ca = _PCK_ISSUERS[describe(issuer.subject)]
    pck_crl = f"{SERVICE}/sgx/certification/v4/pckcrl?ca={ca}&encoding=der"
    lacking = [
        url
        for url, found in ((pck_crl, below), (_ROOT_CRL, above))
        if found.current is None
    ]
    if revoked:
        log.failed(check, f"revoked: {', '.join(revoked)}")
    elif not lacking:
        log.passed(check, "on no current list of the PCK CA and the root")
    elif case.trust.require_revocation:
        log.unchecked(check, f"no current list: fetch {' and '.join(lacking)}")
    else:
        log.skipped(check, f"no list is current at that time: {' and '.join(lacking)}")


def _no_pck(case: Case) -> str:
    """Say which PCK certificate is lacking, as far as the quote names it."""
    given = case.item.quote.certification
    reader = Reader(given.data, "certification data")
    sizes = (_ENCRYPTED_PPID_BYTES, _CPU_SVN_BYTES, _PCE_SVN_BYTES, _PCE_ID_BYTES)
    if given.type != _ENCRYPTED_PPID or len(given.data) != sum(sizes):
        return f"{_NO_PCK}: certification data of type {given.type}"
    _, cpu_svn, pce_svn, pce_id = (reader.take(size, "value").hex() for size in sizes)
    return (
        f"{_NO_PCK}; fetch {SERVICE}/sgx/certification/v4/pckcert?"
        f"cpusvn={cpu_svn}&pcesvn={pce_svn}&pceid={pce_id} with the encrypted PPID "
        "that the quote has"
    )


def _not_vouched(
    case: Case, name: str, what: str, url: str, found: Missing | Wrong
) -> None:
    check = case.profile.check(name)
    if isinstance(found, Wrong):
        case.log.failed(check, f"{what}: {found.detail}")
    else:
        case.log.unchecked(check, f"{what}: {found.detail}; fetch {url}")


def _advised(found: TcbFinding) -> str:
    return ", ".join(found.advisories) or "no advisories"
