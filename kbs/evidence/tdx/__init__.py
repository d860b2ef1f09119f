"""Intel TDX: quotes of trust domains."""
