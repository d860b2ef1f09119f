"""Words that every other part shares; imports nothing of ours."""
