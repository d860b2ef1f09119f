"""Which of Intel's documents the collateral table lacks for the policies in force."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from kbs.evidence.dcap.levels import QeIdentity, TcbInfo
from kbs.evidence.model import GivenCollateral

# What Intel calls the documents of each family; Azure's VMs on TDX bring a TD quote.
_TDX = ((TcbInfo, "TDX", "TCB info"), (QeIdentity, "TD_QE", "QE identity"))
_NEEDS = {
    "tdx": _TDX,
    "azure_tdx": _TDX,
    "sgx": ((TcbInfo, "SGX", "TCB info"), (QeIdentity, "QE", "QE identity")),
}


def lacking_documents(
    table: GivenCollateral, families: Collection[str], now: datetime
) -> tuple[str, ...]:
    """Name the documents of these families of which none stands now.

    Who signed one is for the verifier to say; and whether there is a TCB info for the
    platforms at hand is not known before one of them asks.
    """
    standing = {
        (type(document.content), document.content.id)
        for document in table.documents()
        if isinstance(document.content, (TcbInfo, QeIdentity))
        and document.begins <= now <= document.ends
    }
    return tuple(
        dict.fromkeys(
            f"{what} ({name})"
            for family in sorted(families)
            for kind, name, what in _NEEDS.get(family, ())
            if (kind, name) not in standing
        )
    )
