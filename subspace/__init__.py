"""Measure what trained LoRA adapters learned (Hu et al. 2021, arXiv:2106.09685, section 7).

>>> import subspace
>>> callable(subspace.load)
True

Names are imported on first use, so that ``import subspace`` alone stays light. They stand once, in
``__init__.pyi`` beside this file, where type checkers read them too.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
