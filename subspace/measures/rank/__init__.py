"""How many directions are real: the replicable rank, beside ranks of the spectrum.

`measure` is the entry; `spectral` has the ranks of one spectrum.
Start reading with `measure`.
"""
