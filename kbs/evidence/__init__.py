"""Evidence families: parse, verify, claims; strangers to each other."""
