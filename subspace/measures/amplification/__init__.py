"""Table 7: how much of W lies along the directions of an update.

`measure` is the entry; `table7` makes the rows, `pretrained_values` keeps W's singular values.
Start reading with `measure`.
"""
