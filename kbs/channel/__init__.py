"""The key the evidence is bound to is the key we seal to."""
