"""Arm CCA: realm and platform tokens."""
