"""A sweep of runs: its grid, its file, its runs and Table 6.

`run` trains every cell once; `grid` says which cells; `summary` makes Table 6.
Start reading with `run`.
"""
