"""Comparisons made of real bases for the figures, and what is read from the Axes."""

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg

from subspace.results import ModuleSimilarity, Similarity

BERT = [f"encoder.layer.{k}.attention.self.{w}" for k in range(6) for w in ("query", "value")]
LONG = "experiments/2024-05-17/llama-2-7b-chat-qlora-r8-alpha-16-$x$"


def module(name="layer.0.query", r_a=8, r_b=64, *, d=384, seed=0, real=None, masked=()):
    """phi of two real bases that share a direction; `real`: the numerical ranks."""
    rng = np.random.default_rng(seed)
    common = rng.standard_normal(d)
    bases = []
    for r in (r_a, r_b):
        F = 0.3 * rng.standard_normal((d, r))
        F[:, 0] += common
        bases.append(np.linalg.svd(F, full_matrices=False)[0])
    squares = np.square(bases[0].T @ bases[1])
    i, j = np.ogrid[1 : r_a + 1, 1 : r_b + 1]
    phi = squares.cumsum(0).cumsum(1) / np.minimum(i, j)
    real = (r_a, r_b) if real is None else real
    off = np.zeros(phi.shape, dtype=bool)
    for cell in masked:
        off[cell] = True
    none = (i > real[0]) | (j > real[1])
    mean = np.maximum(i, j) / d + 0 * phi
    return ModuleSimilarity(
        name,
        "A",
        d,
        r_a,
        r_b,
        *real,
        np.where(none | off, np.nan, phi),
        np.where(none, np.nan, 1e-12),
        off,
        mean,
        np.sqrt(mean / d),
        np.where(none | off, np.nan, rng.uniform(0, 0.03, phi.shape)),
        1,
        squares.sum(1),
        squares.sum(0),
        1,
        1,
    )


def compared(modules=BERT, names=("r8", "r64"), **options):
    made = {m: module(m, seed=k, **options) for k, m in enumerate(modules)}
    return Similarity(names, "A", made, 0.01)


def laid_out(figure):
    """Run the layout as writing a file would; a Figure's own canvas draws nothing."""
    FigureCanvasAgg(figure).draw()


def drawn(ax):
    return ax.images[0].get_array()


def panels(figure):
    return [ax for ax in figure.axes if ax.images]


def assert_legible(figure):
    """Every text lies within the page and has 6 pt or more."""
    laid_out(figure)
    page = figure.bbox
    beyond = {  # a log axis keeps ticks outside its limits, and does not draw them
        label
        for ax in figure.axes
        for label in ax.get_xticklabels(which="both")
        if not ax.get_xlim()[0] <= label.get_position()[0] <= ax.get_xlim()[1]
    }
    for text in figure.findobj(mpl.text.Text):
        if not text.get_text() or not text.get_visible() or text in beyond:
            continue
        assert text.get_fontsize() >= 6
        box = text.get_window_extent()
        assert box.x0 >= page.x0 - 1, text.get_text()
        assert box.x1 <= page.x1 + 1, text.get_text()
        assert box.y0 >= page.y0 - 1, text.get_text()
        assert box.y1 <= page.y1 + 1, text.get_text()
