"""Intel's Provisioning Certification Service, or a PCCS: TCB infos, identities, lists.

Intel SGX and TDX PCS, API version 4. A document or list comes with the chain of its
signer in a header of the answer (percent-encoded PEM). A PCCS has the same paths, and
the root's list besides, in hex.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from urllib.parse import unquote_to_bytes

from cryptography import x509

from kbs.broker.vendors.source import VENDOR_URLS, Service, Source
from kbs.broker.vendors.visit import Route, Visit
from kbs.core.encode import parse_hex
from kbs.core.errors import MalformedError
from kbs.core.fetch import Answer
from kbs.evidence.dcap.documents import MAX_DOCUMENT_BYTES, parse_document
from kbs.evidence.dcap.levels import QeIdentity, Signed, TcbInfo
from kbs.evidence.dcap.vouching import Signers, Vouched, find_signers, vouched
from kbs.evidence.model import VendorDocument
from kbs.pki.certificates import (
    MAX_CRL_BYTES,
    der,
    describe,
    load_certificates,
    load_crls,
    spki_sha256,
)
from kbs.pki.chain import Chain, out_of_date
from kbs.pki.roots import Purpose, pinned_roots

_TCB_PATH = re.compile(
    r"/(?P<tee>sgx|tdx)/certification/v4/tcb\?fmspc=(?P<fmspc>[0-9a-fA-F]{12})"
)
_QE_PATH = re.compile(r"/(?P<tee>sgx|tdx)/certification/v4/qe/identity")
_PCK_CRL_PATH = re.compile(
    r"/sgx/certification/v4/pckcrl\?ca=(?P<ca>processor|platform)&encoding=der"
)
_ROOT_CRL_PATH = re.compile(r"/IntelSGXRootCA\.der")
_PCCS_ROOT_CRL = Source(Service.PCS, "/sgx/certification/v4/rootcacrl")

_TCB_CHAINS = ("tcb-info-issuer-chain", "sgx-tcb-info-issuer-chain")
_QE_CHAINS = ("sgx-enclave-identity-issuer-chain",)
_CRL_CHAINS = ("sgx-pck-crl-issuer-chain",)
_QE_IDS = {"sgx": "QE", "tdx": "TD_QE"}
_CA_NAMES = {
    "processor": "Intel SGX PCK Processor CA",
    "platform": "Intel SGX PCK Platform CA",
}
_ROOT_NAME = "Intel SGX Root CA"
_MAX_CHAIN = 4
_HEX = re.compile(rb"[0-9a-fA-F]+")

ROOT_CRL = Source(Service.INTEL, "/IntelSGXRootCA.der")


def tcb_source(tee: str, fmspc: str) -> Source:
    """Return where the TCB info of a kind of platform lies."""
    return Source(Service.PCS, f"/{tee}/certification/v4/tcb?fmspc={fmspc.lower()}")


def qe_source(tee: str) -> Source:
    """Return where the identity of the quoting enclave lies."""
    return Source(Service.PCS, f"/{tee}/certification/v4/qe/identity")


def crl_source(ca: str) -> Source:
    """Return where the list of an issuer of PCK certificates lies."""
    return Source(Service.PCS, f"/sgx/certification/v4/pckcrl?ca={ca}&encoding=der")


def everything() -> tuple[Source, ...]:
    """Return what every site with Intel's platforms needs, whatever their kind."""
    return (*(qe_source(tee) for tee in _QE_IDS), *map(crl_source, _CA_NAMES), ROOT_CRL)


def source_of_document(document: VendorDocument) -> Source | None:
    """Return where Intel publishes a document."""
    content = document.content
    if isinstance(content, TcbInfo):
        return tcb_source(content.id.lower(), content.fmspc.hex())
    tees = {one: tee for tee, one in _QE_IDS.items()}
    return qe_source(tees[content.id]) if isinstance(content, QeIdentity) else None


def source_of_list(crl: x509.CertificateRevocationList) -> Source | None:
    """Return where Intel publishes a revocation list; None if it is not Intel's."""
    issuer = describe(crl.issuer)
    if issuer == _ROOT_NAME:
        return ROOT_CRL
    return next(
        (crl_source(ca) for ca, name in _CA_NAMES.items() if name == issuer), None
    )


def _fetch_tcb(visit: Visit, match: re.Match[str]) -> tuple[bytes, ...]:
    answer = visit.ask(visit.source, limit=MAX_DOCUMENT_BYTES)
    tee, fmspc = match["tee"].upper(), match["fmspc"].lower()
    return _proven_document(
        visit,
        answer,
        _TCB_CHAINS,
        lambda one: (
            isinstance(one, TcbInfo) and (one.id, one.fmspc.hex()) == (tee, fmspc)
        ),
        f"the TCB info of {tee} and FMSPC {fmspc}",
    )


def _fetch_qe(visit: Visit, match: re.Match[str]) -> tuple[bytes, ...]:
    answer = visit.ask(visit.source, limit=MAX_DOCUMENT_BYTES)
    wanted = _QE_IDS[match["tee"]]
    return _proven_document(
        visit,
        answer,
        _QE_CHAINS,
        lambda one: isinstance(one, QeIdentity) and one.id == wanted,
        f"the identity of {wanted}",
    )


def _proven_document(
    visit: Visit,
    answer: Answer,
    headers: tuple[str, ...],
    fits: Callable[[object], bool],
    wanted: str,
) -> tuple[bytes, ...]:
    try:
        document = parse_document(answer.body)
    except MalformedError as exc:
        raise visit.wrong(str(exc), "a document of Intel's") from exc
    content = document.content
    if not isinstance(content, Signed) or not fits(content):
        raise visit.wrong(document.subject, wanted)
    chain = _header_chain(visit, answer, headers)
    pool = (*chain, *visit.known.certificates())
    roots = pinned_roots(Purpose.DCAP, visit.pins)
    signers = find_signers(pool, roots, visit.cache)
    kept = [
        one
        for one in visit.known.documents()
        if one.kind == document.kind and fits(one.content)
    ]
    # Alone it has to hold; beside what is kept it has to be the newest.
    chains = [
        _voucher(visit, document, documents, signers, fits)
        for documents in ([document], [document, *kept])
    ]
    return (*(der(one) for one in chains[0].certificates), document.data)


def _voucher(
    visit: Visit,
    wanted: VendorDocument,
    documents: list[VendorDocument],
    signers: Signers,
    fits: Callable[[object], bool],
) -> Chain:
    found = vouched(
        documents,
        Signed,
        fits,
        signers=signers,
        now=visit.now,
        cache=visit.cache,
    )
    if not isinstance(found, Vouched):
        raise visit.wrong(found.detail, "a document signed by Intel and current")
    if found.content != wanted.content:
        raise visit.wrong(wanted.subject, "one as new as the one to hand")
    complaints = out_of_date(found.chain.certificates, visit.now)
    if complaints:
        raise visit.wrong("; ".join(complaints), "a signer that is valid now")
    return found.chain


def _fetch_pck_list(visit: Visit, match: re.Match[str]) -> tuple[bytes, ...]:
    answer = visit.ask(visit.source, limit=2 * MAX_CRL_BYTES)
    crl = _list_in(visit, answer)
    chain = _header_chain(visit, answer, _CRL_CHAINS)
    pool = (*chain, *visit.known.certificates())
    named = _CA_NAMES[match["ca"]]
    for certificate in pool:
        if describe(certificate.subject) == named:
            proven = visit.proven_chain(certificate, pool, Purpose.DCAP)
            visit.proven_list(crl, certificate)
            return (*(der(one) for one in proven.certificates), der(crl))
    raise visit.wrong("no such certificate in the answer's header", f"one of {named}")


def _fetch_root_list(visit: Visit, _: re.Match[str]) -> tuple[bytes, ...]:
    answer = visit.ask(_root_list_at(visit), limit=2 * MAX_CRL_BYTES)
    crl = _list_in(visit, answer)
    root = _root_in(visit, visit.known.certificates())
    if root is None:
        # The list comes alone; its signer comes with every other answer.
        other = visit.ask(qe_source("sgx"), limit=MAX_DOCUMENT_BYTES)
        root = _root_in(visit, _header_chain(visit, other, _QE_CHAINS))
    if root is None:
        raise visit.wrong("no certificate of a pinned root", f"{_ROOT_NAME}'s")
    visit.proven_list(crl, root)
    return (der(root), der(crl))


def _root_list_at(visit: Visit) -> Source:
    urls = visit.services.urls
    mirrored = urls[Service.PCS] != VENDOR_URLS[Service.PCS]
    if mirrored and urls[Service.INTEL] == VENDOR_URLS[Service.INTEL]:
        # A site with a PCCS has it there, and may reach nobody else.
        return _PCCS_ROOT_CRL
    return ROOT_CRL


def _root_in(
    visit: Visit, pool: tuple[x509.Certificate, ...]
) -> x509.Certificate | None:
    roots = pinned_roots(Purpose.DCAP, visit.pins)
    return next((one for one in pool if spki_sha256(one) in roots), None)


def _list_in(visit: Visit, answer: Answer) -> x509.CertificateRevocationList:
    body = answer.body.strip() if answer.body[:1] != b"\x30" else answer.body
    try:
        if _HEX.fullmatch(body):
            body = parse_hex(body.decode("ascii").lower(), "revocation list")
        found = load_crls(body, "revocation list")
    except MalformedError as exc:
        raise visit.wrong(str(exc), "a revocation list in DER, PEM or hex") from exc
    if len(found) != 1:
        raise visit.wrong(f"{len(found)} lists", "one")
    return found[0]


def _header_chain(
    visit: Visit, answer: Answer, headers: tuple[str, ...]
) -> tuple[x509.Certificate, ...]:
    text = next((answer.headers[one] for one in headers if one in answer.headers), None)
    if text is None:
        # A caching service may leave it out; what is kept may do as well.
        return ()
    try:
        data = unquote_to_bytes(text)
        return load_certificates(data, "issuer chain", most=_MAX_CHAIN)
    except MalformedError as exc:
        raise visit.wrong(str(exc), f"a chain in PEM in {headers[0]}") from exc


ROUTES = (
    Route(Service.PCS, _TCB_PATH, _fetch_tcb),
    Route(Service.PCS, _QE_PATH, _fetch_qe),
    Route(Service.PCS, _PCK_CRL_PATH, _fetch_pck_list),
    Route(Service.INTEL, _ROOT_CRL_PATH, _fetch_root_list),
)
