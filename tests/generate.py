"""Writes the documents that follow from the code: `python -m tests.generate`.

`docs/claims.md` is the table of every claim that policies may use. `make vectors`
rebuilds it and fails when the tree had another one; `tests/unit/test_documents.py`
says the same without git.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from kbs.core.claims import ClaimSpec, ClaimType, Safety, Vocabulary
from kbs.evidence.registry import vocabulary
from kbs.policy.model import Operator
from kbs.policy.operands import _ALLOWED

DOCS = Path(__file__).resolve().parent.parent / "docs"

_TITLES: Mapping[str, str] = {
    "snp": "`snp`: AMD SEV-SNP reports",
    "tdx": "`tdx`: Intel TDX quotes",
    "sgx": "`sgx`: Intel SGX quotes",
    "vtpm": "`vtpm`: TPM 2.0 quotes",
    "cca": "`cca`: Arm CCA realms",
    "maa": "`maa`: tokens of Microsoft Azure Attestation",
    "ita": "`ita`: tokens of Intel Trust Authority",
    "nras": "`nras`: tokens of NVIDIA's Remote Attestation Service, one set a device",
    "gcs": "`gcs`: tokens of Google Cloud Attestation for Confidential Space",
    "ear": "`ear`: attestation results of any other verifier, one set a submodule",
    "nitro": "`nitro`: AWS Nitro enclaves",
    "nitrotpm": "`nitrotpm`: EC2 instances with a NitroTPM",
    "azure_snp": "`azure_snp`: confidential VMs of Azure on AMD SEV-SNP",
    "azure_tdx": "`azure_tdx`: confidential VMs of Azure on Intel TDX",
    "nvgpu": "`nvgpu`: NVIDIA GPUs",
    "nvswitch": "`nvswitch`: NVIDIA NVSwitches, in items of kind `nvgpu`",
    "sample": "`sample`: development mode only",
    "request": "`request`: the request itself",
}

_INTRODUCTION = """\
# Claims

Every name that a policy may use, and nothing else: an unknown name is an error when
the policy is registered. This page is generated from the code by
`python -m tests.generate`; do not edit it.

A claim exists only when its item verified as a whole (every check in
[evidence.md](evidence.md) passed or was skipped). A condition on a claim that does not
exist is unknown, and only true grants ([policies.md](policies.md)).

%s
**boot**: constrains what boots, as a rule with `measures` must. **register**:
`measures` may test it. **resets**: software in the guest can reset it, so a rule that
uses it needs `unsafe:`. *Safe value*: what `safe: true` fixes; a rule that fixes
neither this nor an acceptable value needs `unsafe: {claim: reason}`.
"""


_WRITTEN: Mapping[ClaimType, str] = {
    ClaimType.BYTES: "lower-case hex",
    ClaimType.BOOL: "`true`, `false`",
    ClaimType.INT: "an integer",
    ClaimType.U64: "16 lower-case hex digits, compared as an integer",
    ClaimType.TEXT: "a string; ordered only as dotted decimals",
    ClaimType.VERSION: "dotted decimals, compared number by number",
    ClaimType.TCB: "named components, each a number",
    ClaimType.TIME: "RFC 3339 in UTC",
    ClaimType.TEXTS: "a list of strings",
}


def claims_page(known: Vocabulary) -> str:
    """Return the text of `docs/claims.md`."""
    parts = [_INTRODUCTION % _types_table(known)]
    for family, specs in itertools.groupby(known, key=lambda spec: spec.family):
        parts.append(f"\n## {_TITLES.get(family, f'`{family}`')}\n\n")
        parts.append(
            "| claim | type | bytes | meaning | source | safe value |\n"
            "|---|---|---|---|---|---|\n"
        )
        for first, last in _ranges(specs):
            parts.append(_row(first, last))
    return "".join(parts)


def documents() -> dict[Path, str]:
    """Return every generated document with its text."""
    return {DOCS / "claims.md": claims_page(vocabulary())}


def _types_table(known: Vocabulary) -> str:
    used = {spec.type for spec in known}
    rows = ["| type | written as | operators |", "|---|---|---|"]
    for kind in ClaimType:
        if kind in used:
            names = ", ".join(f"`{op}`" for op in Operator if op in _ALLOWED[kind])
            rows.append(f"| {kind.value} | {_WRITTEN[kind]} | {names} |")
    return "\n".join(rows) + "\n"


def _ranges(specs: Iterator[ClaimSpec]) -> Iterator[tuple[ClaimSpec, ClaimSpec]]:
    """Join claims that differ by a number at their end only (PCRs of a bank)."""
    for _, group in itertools.groupby(specs, key=_shape):
        members = list(group)
        yield members[0], members[-1]


def _shape(spec: ClaimSpec) -> object:
    stem, _, number = spec.name.rpartition(".")
    if not number.isdecimal():
        return spec.name
    return stem, spec.type, spec.size, spec.boot, spec.register, spec.resettable


def _row(first: ClaimSpec, last: ClaimSpec) -> str:
    name, meaning = f"`{first.name}`", first.description
    if first is not last:
        name += f" … `{last.name.rpartition('.')[2]}`"
        meaning = re.sub(r"\b\d+\b", "n", meaning, count=1)
    cells = (
        name,
        first.type.value,
        "" if first.size is None else str(first.size),
        ". ".join([meaning, *_marks(first)]),
        first.source,
        _safe(first.safety),
    )
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def _marks(spec: ClaimSpec) -> list[str]:
    marks = []
    if spec.type is ClaimType.TCB:
        marks.append("Components: " + ", ".join(spec.components))
    if spec.boot:
        marks.append("**boot**")
    if spec.register is not None:
        how = "set to" if spec.register_style == "set" else "extended by"
        marks.append(f"**register** {how} {spec.register} digests")
    if spec.resettable:
        marks.append("**resets**")
    return marks


def _safe(safety: Safety | None) -> str:
    if safety is None:
        return ""
    text = " or ".join(f"`{_written(value)}`" for value in safety.default)
    if not text:
        names = " or ".join(f"`{name}`" for name in safety.alternatives)
        text = f"any value of this or {names}"
        if safety.floor:
            text += ", or `at_least` for this"
    if safety.acceptable:
        text += "; acceptable " + ", ".join(
            f"`{_written(value)}`" for value in safety.acceptable
        )
    if safety.beside is not None:
        text = f"beside `{safety.beside}`, {text}"
    return f"{text}: {safety.reason}"


def _written(value: bool | int | str) -> str:  # noqa: FBT001 - a claim's value
    return str(value).lower() if isinstance(value, bool) else str(value)


def main() -> None:
    """Write every generated document whose text changed."""
    for path, text in documents().items():
        if not path.exists() or path.read_text("utf-8") != text:
            path.write_text(text, "utf-8")
            print(f"wrote {path.relative_to(DOCS.parent)}")


if __name__ == "__main__":
    main()
