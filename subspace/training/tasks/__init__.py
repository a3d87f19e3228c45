"""Tasks: texts in three splits, bundled, from files, or from the hub.

`load` finds a task by name; `dataset` is what a task is.
Start reading with `load`.
"""
