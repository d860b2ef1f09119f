"""AWS Nitro: attestation documents of enclaves and of NitroTPMs."""
