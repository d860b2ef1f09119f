"""Secrets at rest: one class, envelope encryption, versions and states."""
