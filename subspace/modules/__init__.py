"""What a model's modules are called: one table of words, and the rules that compare names.

`words` is the table; `wrappers`, `underscored`, `fused` match names; `order` sorts them.
Start reading with `words`.
"""
