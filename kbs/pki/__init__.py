"""X.509 chains, revocation lists and pinned roots."""
