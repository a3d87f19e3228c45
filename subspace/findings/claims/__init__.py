"""What the paper says in section 7, beside one's own numbers, with a verdict by fixed rules.

`table6`, `figures` (3, 4 and 8) and `table7` have the rules; `check` holds them together.
Start reading with `check`.
"""
