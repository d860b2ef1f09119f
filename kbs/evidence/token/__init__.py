"""Tokens of attestation services as evidence."""
