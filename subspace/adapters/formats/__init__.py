"""Formats other than PEFT's: one file a format, a pure grammar from names to updates.

Each has `matches` and `read`; `custom` reads a pattern of the user's own.
Start reading with `kohya`.
"""
