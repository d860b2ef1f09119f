"""What Intel's documents say: TCB levels of platforms, enclaves and TDX modules.

Intel SGX and TDX Provisioning Certification Service, API version 4: TCB info version 3
(and 2), QE identity version 2. `documents` reads them, `tcb` evaluates them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from kbs.evidence.dcap.status import TcbStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """What every document has: when it was issued, its signed bytes, its signature."""

    id: str
    issue_date: datetime
    next_update: datetime
    evaluation_number: int
    body: bytes = field(repr=False)
    signature: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """What Intel says of one TCB and everything above it, up to the next level."""

    status: TcbStatus
    date: datetime
    advisories: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SvnLevel(Level):
    """A level of an enclave or a TDX module, known by its SVN."""

    isv_svn: int

    @property
    def rank(self) -> tuple[int, ...]:
        """Sorts levels; the better one is greater."""
        return (self.isv_svn,)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlatformLevel(Level):
    """A level of a platform; `tdx` is empty in a TCB info of SGX."""

    sgx: tuple[int, ...]
    tdx: tuple[int, ...]
    pce_svn: int

    @property
    def rank(self) -> tuple[int, ...]:
        """Sorts levels; the better one is greater."""
        return (*self.sgx, self.pce_svn, *self.tdx)


@dataclass(frozen=True, slots=True, kw_only=True)
class Module:
    """What a TDX module of Intel's is known by."""

    mr_signer: bytes
    attributes: bytes
    attributes_mask: bytes
    levels: tuple[SvnLevel, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TcbInfo(Signed):
    """The TCB levels of one kind of platform (FMSPC), best first."""

    fmspc: bytes
    pce_id: bytes
    levels: tuple[PlatformLevel, ...]
    module: Module | None
    modules: Mapping[str, Module]


@dataclass(frozen=True, slots=True, kw_only=True)
class QeIdentity(Signed):
    """What a quoting enclave of Intel's is known by, and its levels, best first."""

    misc_select: bytes
    misc_select_mask: bytes
    attributes: bytes
    attributes_mask: bytes
    mr_signer: bytes
    isv_prod_id: int
    levels: tuple[SvnLevel, ...]
