"""AMD SEV-SNP: the attestation report and the keys that sign it."""
