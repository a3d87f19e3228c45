"""Where phi's colours end: at 1, or at less where all is faint, and the words that say so."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.image import AxesImage
    from numpy.typing import NDArray

_FAINT = 0.5  # of phi: where no cell has more, 0 to 1 would leave half of the colours unused
_ROUND = (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10)  # of a decade: where a scale of colours may end


def colour_end(images: Sequence[AxesImage]) -> float:
    """Return where the scale of phi ends: 1, or a round number above where all are faint."""
    return round_end(max(map(largest, images), default=0.0))


def round_end(most: float) -> float:
    """Return 1, or where the largest phi is faint a round number that is not below it.

    >>> [round_end(x) for x in (0.11, 0.26, 0.51)]
    [0.15, 0.3, 1.0]
    """
    if not 0 < most <= _FAINT:
        return 1.0
    decade = math.floor(math.log10(most))
    ends = (float(f"{end}e{decade}") for end in _ROUND)
    return next(end for end in ends if end >= most)


def largest(image: AxesImage) -> float:
    """Return the largest size that is drawn, 0 where nothing is."""
    values: NDArray[np.float64] = np.ma.filled(
        np.ma.asarray(image.get_array(), dtype=float), np.nan
    )
    return float(np.nanmax(np.abs(values), initial=0.0))


def end_words(end: float, *, above_chance: bool) -> str:
    """Say that the colours end before 1.

    >>> end_words(0.15, above_chance=False), end_words(0.3, above_chance=True)
    ('The colours end at 0.15, not at 1.', 'The colours end at −0.3 and 0.3, not at −1 and 1.')
    """
    if above_chance:
        return f"The colours end at −{end:g} and {end:g}, not at −1 and 1."
    return f"The colours end at {end:g}, not at 1."
