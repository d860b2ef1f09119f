"""The use cases of the RCAR door: sessions, attestation, resources, uploads."""
