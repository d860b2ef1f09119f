"""Intel's documents for people: every field, nothing proven."""

from __future__ import annotations

from kbs.core.clock import format_time
from kbs.evidence.dcap.levels import (
    Level,
    Module,
    PlatformLevel,
    QeIdentity,
    SvnLevel,
    TcbInfo,
)
from kbs.evidence.model import VendorDocument


def inspect_document(document: VendorDocument) -> dict[str, object]:
    """Return the fields of a document, by the names that Intel gives them."""
    shown: dict[str, object] = {
        "kind": document.kind,
        "subject": document.subject,
        "issue_date": format_time(document.begins),
        "next_update": format_time(document.ends),
    }
    content = document.content
    if isinstance(content, TcbInfo):
        shown |= {
            "id": content.id,
            "tcb_evaluation_data_number": content.evaluation_number,
            "fmspc": content.fmspc.hex(),
            "pce_id": content.pce_id.hex(),
            "tdx_modules": {
                name: _module(module) for name, module in content.modules.items()
            },
            "tcb_levels": [_platform_level(level) for level in content.levels],
        }
    if isinstance(content, QeIdentity):
        shown |= {
            "id": content.id,
            "tcb_evaluation_data_number": content.evaluation_number,
            "mr_signer": content.mr_signer.hex(),
            "isv_prod_id": content.isv_prod_id,
            "misc_select": content.misc_select.hex(),
            "misc_select_mask": content.misc_select_mask.hex(),
            "attributes": content.attributes.hex(),
            "attributes_mask": content.attributes_mask.hex(),
            "tcb_levels": [_svn_level(level) for level in content.levels],
        }
    return shown


def _module(module: Module) -> dict[str, object]:
    return {
        "mr_signer": module.mr_signer.hex(),
        "attributes": module.attributes.hex(),
        "attributes_mask": module.attributes_mask.hex(),
        "tcb_levels": [_svn_level(level) for level in module.levels],
    }


def _svn_level(level: SvnLevel) -> dict[str, object]:
    return {"isv_svn": level.isv_svn, **_level(level)}


def _platform_level(level: PlatformLevel) -> dict[str, object]:
    svns = {"sgx": _dotted(level.sgx), "tdx": _dotted(level.tdx)}
    return {
        **{f"{name}_component_svns": text for name, text in svns.items() if text},
        "pce_svn": level.pce_svn,
        **_level(level),
    }


def _level(level: Level) -> dict[str, object]:
    return {
        "tcb_status": level.status.value,
        "tcb_date": format_time(level.date),
        "advisory_ids": list(level.advisories),
    }


def _dotted(svns: tuple[int, ...]) -> str:
    return ".".join(str(svn) for svn in svns)
