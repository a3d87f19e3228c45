"""What figures draw, read from their Axes: never from pixels."""

import itertools

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


def across(ax):
    return [t.get_text() for t in ax.get_xticklabels()]


def title(figure):
    return figure.get_suptitle().replace("\N{NO-BREAK SPACE}", " ")


def legend(figure):
    return [t.get_text() for t in figure.legends[0].get_texts()]


def assert_apart(figure):
    """Every text is legible, and no two overlap."""
    assert_legible(figure)  # draws it
    texts = [t for t in figure.findobj(mpl.text.Text) if t.get_text() and t.get_visible()]
    boxes = [(t.get_text(), t.get_window_extent().padded(-1)) for t in texts]
    for (one, a), (other, b) in itertools.combinations(boxes, 2):
        assert not a.overlaps(b), (one, other)


def axes():
    return Figure().add_subplot()


def words(figure):
    return [t.get_text() for t in figure.findobj(mpl.text.Text) if t.get_text()]


def marks(ax, label):
    return [c for c in ax.collections if c.get_label() == label]


def enclosed(edges, shape):
    """Which cells lie inside the lines: an odd number of upright ones at their left."""
    inside = np.zeros(shape, dtype=bool)
    for y, x in np.ndindex(shape):
        crossed = sum(
            x1 == x2 and x1 < x + 1 and min(y1, y2) < y + 1 < max(y1, y2)
            for (x1, y1), (x2, y2) in edges
        )
        inside[y, x] = crossed % 2
    return inside


def segments(ax):
    return [np.asarray(s).tolist() for c in marks(ax, "_outline") for s in c.get_segments()]


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
