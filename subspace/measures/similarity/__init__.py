"""phi(i, j) of Eq. 4: two adapters cell by cell, or many as a matrix.

`measure` compares two, `matrix` many: `pairs` reduces each pair, `clustering` orders them.
Start reading with `measure`.
"""
