"""What figures share.

`page` is what every figure has: letters, widths, a legend below, ticks. `phi_panels` sets several
heatmaps, `module_grid` places one number per module, `names` writes untrusted names.
Start reading with `page`.
"""
