"""phi(i, j) of Eq. 4: two adapters cell by cell, or many as a matrix.

`measure` compares two, `matrix` many; `agreement` counts shared directions, `cells` is phi itself.
Start reading with `measure`.
"""
