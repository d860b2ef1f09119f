"""One file a revision; one that was released never changes."""
