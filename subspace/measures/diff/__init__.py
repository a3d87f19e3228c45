"""Two full checkpoints: what changed, and the nearest low-rank update.

`measure` is the entry; `stored_pair` reads two weights, `rounding` bounds what storage lost.
Start reading with `measure`.
"""
