"""Table 6 drawn: accuracy over rank.

`figure` draws; `curves` has the curves, levels and scales, `words` the title, legend and notes.
Start reading with `figure`.
"""
