"""What figures share: panels, grids, names, marks along cells.

`panels` sets several heatmaps; `names` writes untrusted names; `module_grid` places modules.
Start reading with `panels`.
"""
