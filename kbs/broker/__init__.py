"""The use cases: challenge, release, enrol, administer."""
