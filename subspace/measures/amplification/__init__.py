"""Table 7: how much of W lies in the directions of an update.

`measure` is the entry; `table7` makes the rows, `pretrained_values` has those of W, cached.
Start reading with `measure`.
"""
