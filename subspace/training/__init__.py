"""Tasks and runs that produce the adapters this package analyses."""
