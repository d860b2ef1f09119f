"""A TPM 2.0 through tpm2-pytss: a few commands, bytes in and bytes out.

TPM 2.0 Library, Part 3. The library is imported when a TPM is opened, so that guests
without one need not install it. A TPM keeps three transient objects only: every key
that is loaded here is flushed on the way out.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from kbs.core.errors import ConfigurationError, UnavailableError
from kbs.evidence.vtpm.abi import PcrSelection
from kbs.evidence.vtpm.algorithms import DIGEST_SIZES, Algorithm
from kbs.evidence.vtpm.public import TpmPublic, serialize_public

DEFAULT_TCTI = "device:/dev/tpmrm0"
"""The kernel's resource manager, which lets several programs share the TPM."""

# Part 3, section 22.4: TPM2_PCR_Read returns as many digests as fit, eight here.
_PCRS_PER_READ = 8
# Part 2, section 6.13: TPM_PT_NV_BUFFER_MAX is at least this on every TPM we met.
_NV_CHUNK = 512
# EK certificates and chains have some kilobytes; an index cannot be larger.
_NV_LIMIT = 16 * 1024
_HANDLES_PER_READ = 64


@dataclass(frozen=True, slots=True)
class LoadedKey:
    """A key in the TPM: the library's handle, and its TPM2B_PUBLIC."""

    handle: int
    public: bytes


@dataclass(frozen=True, slots=True)
class Quote:
    """TPMS_ATTEST and TPMT_SIGNATURE of one TPM2_Quote."""

    message: bytes
    signature: bytes


class Tpm:
    """An open connection; `open_tpm` makes it and closes it."""

    def __init__(self, context: Any, library: ModuleType) -> None:
        """Use an ESAPI context and the module that it came from."""
        self._context = context
        self._library = library

    @contextmanager
    def primary(self, template: TpmPublic) -> Iterator[LoadedKey]:
        """Make a primary key of the endorsement hierarchy; flush it afterwards.

        Raises:
            UnavailableError: the TPM refuses.
        """
        lib = self._library
        with self._command("CreatePrimary"):
            public, _ = lib.TPM2B_PUBLIC.unmarshal(serialize_public(template))
            handle, made, *_ = self._context.create_primary(
                None, public, lib.ESYS_TR.ENDORSEMENT
            )
        try:
            yield LoadedKey(handle, made.marshal())
        finally:
            with self._command("FlushContext"):
                self._context.flush_context(handle)

    def persist(self, key: LoadedKey, handle: int) -> None:
        """Keep a loaded key at a persistent handle, over reboots.

        Raises:
            UnavailableError: the handle is taken or out of range.
        """
        with self._command("EvictControl"):
            kept = self._context.evict_control(
                self._library.ESYS_TR.OWNER, key.handle, handle
            )
            self._context.tr_close(kept)

    @contextmanager
    def persistent(self, handle: int) -> Iterator[LoadedKey]:
        """Use the key at a persistent handle.

        Raises:
            UnavailableError: the TPM refuses.
        """
        with self._command("ReadPublic"):
            loaded = self._context.tr_from_tpmpublic(handle)
            public, *_ = self._context.read_public(loaded)
        try:
            yield LoadedKey(loaded, public.marshal())
        finally:
            self._context.tr_close(loaded)

    def has_handle(self, handle: int) -> bool:
        """Whether a persistent object or NV index exists; asks, so nothing fails.

        Raises:
            UnavailableError: the TPM refuses.
        """
        with self._command("GetCapability"):
            _, data = self._context.get_capability(
                self._library.TPM2_CAP.HANDLES, handle, _HANDLES_PER_READ
            )
            return handle in [int(found) for found in data.data.handles]

    def nv_read(self, index: int) -> bytes | None:
        """Return what an NV index holds; None when there is no such index.

        Raises:
            UnavailableError: the TPM refuses, or the index is oversized.
        """
        if not self.has_handle(index):
            return None
        with self._command(f"NV_Read {index:#010x}"):
            handle = self._context.tr_from_tpmpublic(index)
            try:
                public, _ = self._context.nv_read_public(handle)
                size = min(int(public.nvPublic.dataSize), _NV_LIMIT)
                return b"".join(
                    bytes(
                        self._context.nv_read(
                            handle, min(_NV_CHUNK, size - start), start
                        )
                    )
                    for start in range(0, size, _NV_CHUNK)
                )
            finally:
                self._context.tr_close(handle)

    def quote(
        self, key: LoadedKey, extra_data: bytes, selections: Sequence[PcrSelection]
    ) -> Quote:
        """Sign the selected PCRs and `extra_data` with a restricted key.

        Raises:
            UnavailableError: the TPM refuses.
        """
        with self._command("Quote"):
            message, signature = self._context.quote(
                key.handle, self._selection(selections), extra_data
            )
            return Quote(bytes(message), signature.marshal())

    def read_pcrs(
        self, selections: Sequence[PcrSelection]
    ) -> dict[tuple[Algorithm, int], bytes]:
        """Return the value of each selected PCR, read eight at a time.

        Raises:
            UnavailableError: the TPM refuses.
            ConfigurationError: it has no such bank.
        """
        values: dict[tuple[Algorithm, int], bytes] = {}
        for part in _in_parts(selections):
            with self._command("PCR_Read"):
                _, _, digests = self._context.pcr_read(self._selection([part]))
                found = [bytes(value) for value in digests]
            if len(found) != len(part.pcrs):
                # Trying again allocates nothing.
                raise ConfigurationError(
                    f"TPM PCR bank {part.bank.name.lower()}",
                    got=f"{len(found)} values",
                    expected=f"PCRs {', '.join(map(str, part.pcrs))}",
                    hint="quote a bank that the TPM has allocated",
                )
            values.update(
                ((part.bank, pcr), value)
                for pcr, value in zip(part.pcrs, found, strict=True)
            )
        return values

    def banks(self) -> tuple[Algorithm, ...]:
        """Return the hash of every PCR bank that is allocated.

        Raises:
            UnavailableError: the TPM refuses.
        """
        with self._command("GetCapability"):
            _, data = self._context.get_capability(self._library.TPM2_CAP.PCRS, 0, 16)
            return tuple(
                Algorithm(int(bank.hash))
                for bank in data.data.assignedPCR
                if int(bank.hash) in DIGEST_SIZES and any(bytes(bank.pcrSelect))
            )

    def extend(self, pcr: int, digests: Mapping[Algorithm, bytes]) -> None:
        """Extend one PCR, in each bank by its own digest.

        Raises:
            UnavailableError: the TPM refuses.
        """
        lib = self._library
        values = [
            lib.TPMT_HA(
                hashAlg=int(bank),
                digest=lib.TPMU_HA(**{bank.name.lower(): value}),
            )
            for bank, value in digests.items()
        ]
        with self._command("PCR_Extend"):
            self._context.pcr_extend(lib.ESYS_TR(pcr), lib.TPML_DIGEST_VALUES(values))

    def activate_credential(
        self, ak: LoadedKey, ek: LoadedKey, blob: bytes, secret: bytes
    ) -> bytes:
        """Recover what was encrypted to this EK for this AK.

        `blob` is a TPM2B_ID_OBJECT, `secret` a TPM2B_ENCRYPTED_SECRET.

        Raises:
            UnavailableError: the TPM refuses: it was made for another AK or EK.
        """
        lib = self._library
        with self._command("ActivateCredential"), self._ek_session() as session:
            id_object, _ = lib.TPM2B_ID_OBJECT.unmarshal(blob)
            encrypted, _ = lib.TPM2B_ENCRYPTED_SECRET.unmarshal(secret)
            return bytes(
                self._context.activate_credential(
                    ak.handle,
                    ek.handle,
                    id_object,
                    encrypted,
                    session1=lib.ESYS_TR.PASSWORD,
                    session2=session,
                )
            )

    @contextmanager
    def _ek_session(self) -> Iterator[int]:
        # The EK's PolicyA: its use is authorised by the endorsement hierarchy.
        lib = self._library
        session = self._context.start_auth_session(
            tpm_key=lib.ESYS_TR.NONE,
            bind=lib.ESYS_TR.NONE,
            session_type=lib.TPM2_SE.POLICY,
            symmetric=None,
            auth_hash=lib.TPM2_ALG.SHA256,
        )
        try:
            self._context.policy_secret(lib.ESYS_TR.ENDORSEMENT, session, expiration=0)
            yield session
        finally:
            self._context.flush_context(session)

    def _selection(self, selections: Sequence[PcrSelection]) -> Any:
        text = "+".join(
            f"{selection.bank.name.lower()}:{','.join(map(str, selection.pcrs))}"
            for selection in selections
        )
        return self._library.TPML_PCR_SELECTION.parse(text)

    @contextmanager
    def _command(self, name: str) -> Iterator[None]:
        try:
            yield
        except self._library.TSS2_Exception as exc:
            raise UnavailableError(f"TPM2_{name}", got=str(exc)[:200]) from exc


@contextmanager
def open_tpm(tcti: str) -> Iterator[Tpm]:
    """Open the TPM behind a TCTI, for example `swtpm:host=127.0.0.1,port=2321`.

    Raises:
        UnavailableError: the library is not installed or the TPM does not answer.
    """
    library = _import_library()
    try:
        context = library.ESAPI(tcti)
    except (library.TSS2_Exception, RuntimeError) as exc:
        raise UnavailableError(
            f"TPM at {tcti[:120]}",
            got=str(exc)[:200],
            expected="a TPM 2.0 that answers",
            hint="name it by --tcti, like device:/dev/tpmrm0",
        ) from exc
    try:
        yield Tpm(context, library)
    finally:
        context.close()


def _import_library() -> ModuleType:
    # libtss2 writes what we report as errors to stderr as well, once more.
    os.environ.setdefault("TSS2_LOG", "all+none")
    try:
        import tpm2_pytss  # noqa: PLC0415 - heavy, and only guests with a TPM have it
    except ImportError as exc:
        raise UnavailableError(
            "TPM library",
            got=str(exc)[:200],
            expected="tpm2-pytss",
            hint="install kbs[guest] and libtss2",
            code="tpm.library",
        ) from exc
    library: ModuleType = tpm2_pytss
    return library


def _in_parts(selections: Sequence[PcrSelection]) -> Iterator[PcrSelection]:
    for selection in selections:
        for start in range(0, len(selection.pcrs), _PCRS_PER_READ):
            pcrs = selection.pcrs[start : start + _PCRS_PER_READ]
            yield PcrSelection(selection.bank, pcrs)
