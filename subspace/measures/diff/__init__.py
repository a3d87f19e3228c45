"""Two full checkpoints: what changed, and the nearest low-rank update.

`measure` is the entry; `weights` matches two checkpoints, `adapted` an adapter and its base,
`stored_pair` compares two weights, `rounding` bounds what storing them lost, `kept` says how many
directions are kept.
Start reading with `measure`.
"""
