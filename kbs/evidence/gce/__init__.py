"""Google Compute Engine: attestations as go-tpm-tools writes them."""
