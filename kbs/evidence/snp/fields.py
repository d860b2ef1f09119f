"""An ATTESTATION_REPORT that came as JSON fields, put together again.

Confidential Containers guests send the report as the `sev` crate's serde form writes
it (crate 6.3.1 and 7): numbers as numbers, byte strings as arrays of numbers. The
signature covers the bytes, so they are rebuilt by the layout of AMD 56860, table 23;
what the form cannot carry (reserved bytes) is zero, as in every report read here.
"""

from __future__ import annotations

from collections.abc import Mapping

from kbs.core.encode import require_integer, require_list, require_object
from kbs.core.errors import MalformedError
from kbs.evidence.snp.abi import REPORT_BYTES

_U8 = 0xFF
_U32 = 0xFFFFFFFF
_CPUID = ("cpuid_fam_id", "cpuid_mod_id", "cpuid_step")
_COORDINATE_FIELD_BYTES = 72
_VERSION_2 = 2


def report_of_fields(value: object) -> bytes:
    """Return the 1184 bytes of a report.

    Raises:
        MalformedError: a field is missing, of another type or out of its range.
    """
    fields = _Fields(require_object(value, "attestation_report"))
    version = fields.number("version", _U32)
    body = b"".join(
        (
            version.to_bytes(4, "little"),
            fields.little("guest_svn", 4),
            fields.little("policy", 8),
            fields.octets("family_id", 16),
            fields.octets("image_id", 16),
            fields.little("vmpl", 4),
            fields.little("sig_algo", 4),
            fields.tcb("current_tcb"),
            fields.little("plat_info", 8),
            fields.little("key_info", 4),
            bytes(4),
            fields.octets("report_data", 64),
            fields.octets("measurement", 48),
            fields.octets("host_data", 32),
            fields.octets("id_key_digest", 48),
            fields.octets("author_key_digest", 48),
            fields.octets("report_id", 32),
            fields.octets("report_id_ma", 32),
            fields.tcb("reported_tcb"),
            fields.cpuid(version),
            fields.octets("chip_id", 64),
            fields.tcb("committed_tcb"),
            fields.version("current"),
            fields.version("committed"),
            fields.tcb("launch_tcb"),
            fields.optional_little("launch_mit_vector", 8),
            fields.optional_little("current_mit_vector", 8),
            bytes(152),
        )
    )
    signature = fields.within("signature")
    body += signature.octets("r", _COORDINATE_FIELD_BYTES)
    body += signature.octets("s", _COORDINATE_FIELD_BYTES)
    return body + bytes(REPORT_BYTES - len(body))


class _Fields:
    """Reads members by their type, and says which one is wrong."""

    def __init__(self, members: Mapping[str, object], prefix: str = "") -> None:
        self._members = members
        self._prefix = prefix

    def within(self, name: str) -> _Fields:
        what = self._what(name)
        return _Fields(require_object(self._value(name), what), f"{name}.")

    def number(self, name: str, most: int) -> int:
        value = self._members.get(name)
        if type(value) is int and 0 <= value <= most:
            return value
        return require_integer(self._value(name), self._what(name), least=0, most=most)

    def little(self, name: str, size: int) -> bytes:
        return self.number(name, 2 ** (8 * size) - 1).to_bytes(size, "little")

    def optional_little(self, name: str, size: int) -> bytes:
        return bytes(size) if self._is_absent(name) else self.little(name, size)

    def octets(self, name: str, size: int) -> bytes:
        return octets_of(self._value(name), self._what(name), size=size)

    def tcb(self, name: str) -> bytes:
        # AMD 56860 rev. 1.58, tables 3 and 4: only Turin has an FMC, and then it is
        # the lowest byte.
        tcb = self.within(name)
        parts = [
            tcb.number(part, _U8) for part in ("bootloader", "tee", "snp", "microcode")
        ]
        bootloader, tee, snp, microcode = parts
        if tcb._is_absent("fmc"):  # noqa: SLF001 - the same class
            return bytes((bootloader, tee, 0, 0, 0, 0, snp, microcode))
        fmc = tcb.number("fmc", _U8)
        return bytes((fmc, bootloader, tee, snp, 0, 0, 0, microcode))

    def cpuid(self, version: int) -> bytes:
        if version <= _VERSION_2 or all(self._is_absent(name) for name in _CPUID):
            return bytes(24)
        return bytes(self.number(name, _U8) for name in _CPUID) + bytes(21)

    def version(self, name: str) -> bytes:
        parts = self.within(name)
        numbers = [parts.number(part, _U8) for part in ("build", "minor", "major")]
        return bytes((*numbers, 0))

    def _is_absent(self, name: str) -> bool:
        return self._members.get(name) is None

    def _value(self, name: str) -> object:
        if name not in self._members:
            raise MalformedError(self._what(name), got="none", expected="the field")
        return self._members[name]

    def _what(self, name: str) -> str:
        return f"attestation_report {self._prefix}{name}"


def octets_of(
    value: object, what: str, *, size: int | None = None, most: int = 0
) -> bytes:
    """Return bytes that came as an array of numbers: `size` of them, or up to `most`.

    Raises:
        MalformedError: another length, or an element that is no byte.
    """
    elements = require_list(value, what, limit=most if size is None else size)
    if size is not None and len(elements) != size:
        raise MalformedError(
            what, got=f"{len(elements)} bytes", expected=f"{size} bytes"
        )
    # A chain of certificates is thousands of elements: no line of Python for each.
    try:
        if set(map(type, elements)) <= {int}:
            return bytes(elements)  # type: ignore[arg-type]  # integers alone are left
    except ValueError:
        pass
    raise MalformedError(what, got="an element that is no byte", expected="0 to 255")
