"""A stand-in for evidence, for development without any TEE."""
