"""TPM 2.0 quotes: parse, verify, claims, event logs and credential activation."""
