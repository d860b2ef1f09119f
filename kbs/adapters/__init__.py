"""Implementations of what the domains ask for: SQL, files, TPM."""
