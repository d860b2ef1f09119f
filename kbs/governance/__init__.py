"""What changes who gets what: signed statements in a gapless chain."""
