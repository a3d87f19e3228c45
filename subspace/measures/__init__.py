"""One measure per folder: a function in `measure.py` takes adapters and returns a frozen result.

What several measures share stands beside the folders: `bases` (the pretrained weights), `shared`
(modules in common), `labels`, `initial` (initial A), `phi` (cells of Eq. 4), `agreement`.
Start reading with `similarity/measure.py`.
"""
