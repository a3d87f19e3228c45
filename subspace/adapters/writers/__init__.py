"""Writers: one file a format, from updates to tensors, config and notes.

`content` is what they share. `subspace.files` puts what they lay out in its place.
Start reading with `peft`.
"""
