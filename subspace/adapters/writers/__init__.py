"""Writers: one file a format, from updates to tensors, config and notes.

`content` is what they share, `atomic` puts a file or folder in place whole or not at all.
Start reading with `peft`.
"""
