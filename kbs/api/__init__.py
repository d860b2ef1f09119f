"""Front doors over HTTP; the only part that knows Flask."""
