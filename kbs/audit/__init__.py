"""One RFC 6962 Merkle tree of every decision, its checkpoints and proofs."""
