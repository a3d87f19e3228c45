"""PEFT's VeRA: shared random projections, scaled per layer.

`read` is the format; `draw` makes projections that the file leaves out; `widths` finds each d_in.
Start reading with `read`.
"""
