"""Claims that repeat fields of a report, named and cited as in its specification."""

from __future__ import annotations

from dataclasses import dataclass

from kbs.core.claims import ClaimSpec, ClaimType, Safety


@dataclass(frozen=True, slots=True)
class Fields:
    """The fields of one family; `body` is what the specification calls the report."""

    family: str
    body: str

    def version(self, known: str) -> ClaimSpec:
        """Describe the version in the header of a quote."""
        return ClaimSpec(
            name=f"{self.family}.version",
            type=ClaimType.INT,
            description=f"Version of the quote's layout: {known}",
            source="Quote header, version",
        )

    def octets(
        self,
        field: str,
        size: int,
        description: str,
        safety: Safety | None = None,
        *,
        boot: bool = False,
    ) -> ClaimSpec:
        """Describe a field of bytes; `boot` says what runs."""
        return ClaimSpec(
            name=f"{self.family}.{field}",
            type=ClaimType.BYTES,
            size=size,
            boot=boot,
            description=description,
            source=self._cited(field),
            safety=safety,
        )

    def number(
        self, field: str, description: str, safety: Safety | None = None
    ) -> ClaimSpec:
        """Describe a field that is a number."""
        return ClaimSpec(
            name=f"{self.family}.{field}",
            type=ClaimType.INT,
            description=description,
            source=self._cited(field),
            safety=safety,
        )

    def flag(
        self, name: str, description: str, source: str, safety: Safety | None = None
    ) -> ClaimSpec:
        """Describe what bits of a field say; `source` is where they are told."""
        return ClaimSpec(
            name=f"{self.family}.{name}",
            type=ClaimType.BOOL,
            description=description,
            source=source,
            safety=safety,
        )

    def _cited(self, field: str) -> str:
        return f"{self.body}, {field.upper().replace('_', '')}"
