"""The nearest update of a lower rank.

`measure` is the entry; `budgets` decides how many singular values to keep.
Start reading with `measure`.
"""
