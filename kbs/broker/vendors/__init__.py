"""Vendors' collateral: what can be asked for, where it lies, and whether it is true."""
