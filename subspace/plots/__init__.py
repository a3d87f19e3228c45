"""Figures: axes-level functions take and return an Axes, figure-level ones return a Figure.

>>> import subspace
>>> callable(subspace.plots.figure3)
True

Names are imported on first use: matplotlib comes with the first figure, not before. They stand
once, in ``__init__.pyi`` beside this file. A name stays the function, though the import of a file
of the same name sets it too. Start reading with `figure3`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
