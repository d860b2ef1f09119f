"""Sealing and opening model files outside the broker."""
