"""Protocol messages, strict in, canonical out."""
