"""Intel SGX: quotes of enclaves."""
