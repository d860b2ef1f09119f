"""What runs inside the TEE: attesters, fetching, unsealing."""
