"""The drawn matrix, read from its Axes: cells, marks, the tree, and letters that do not meet."""

import itertools
import math

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from numpy.testing import assert_allclose

from subspace.errors import ArgumentError
from subspace.measures.similarity.clustering import order_by_linkage
from subspace.plots.matrix import matrix_figure, matrix_map
from subspace.plots.parts.cells import UNDEFINED
from subspace.plots.parts.tree import tree
from subspace.results import PairSimilarity, SimilarityMatrix
from tests.support.axes import assert_apart, assert_legible


def made(n, *, by="phi", undefined=(), names=None, beyond=2, largest=1.0, scale=1.0):
    """Adapters on a line: the farther apart, the less alike; far ones are within chance."""
    names = tuple(names or (f"run{k}" for k in range(n)))
    places = np.random.default_rng(n).permutation(n)
    pairs, apart = [], np.zeros((n, n))
    for a, b in itertools.combinations(range(n), 2):
        far = abs(places[a] - places[b]) / n
        value = scale * (far if by == "distance" else 1 - far)
        if {a, b} & set(undefined):
            value = math.nan
        pairs.append(
            PairSimilarity(
                adapters=(names[a], names[b]),
                value=value,
                null_mean=0.02,
                largest=largest,
                modules=4,
                undefined=0,
                significant=beyond * (far < 0.3 and not math.isnan(value)),
                same_initial=None,
            )
        )
        apart[a, b] = apart[b, a] = value if by == "distance" else 1 - value / largest
    order, linkage = order_by_linkage(apart, names)
    return SimilarityMatrix(
        adapters=names,
        by=by,
        side="A",
        k=4,
        level=0.01,
        pairs=tuple(pairs),
        order=order,
        linkage=linkage,
    )


def shown(ax):
    return np.ma.filled(ax.images[0].get_array(), np.nan)


def words(ax):
    return [label.get_text() for label in ax.get_yticklabels()]


@pytest.mark.parametrize("by", ["phi", "distance"])
def test_cells_are_the_matrix_in_its_order_with_a_blank_diagonal(by):
    result = made(6, by=by)
    figure = matrix_figure(result)
    ax = figure.axes[0]
    assert_allclose(shown(ax), result.square(clustered=True))
    assert np.isnan(np.diag(shown(ax))).all()
    assert words(ax) == [result.adapters[n] for n in result.order]
    assert [label.get_text() for label in ax.get_xticklabels()] == words(ax)
    assert ax.get_ylim() == (6.5, 0.5)
    assert ax.get_xlabel() == ax.get_ylabel() == ""
    image = ax.images[0]
    assert image.get_clim() == (0, 1)
    assert image.get_cmap().name == {"phi": "viridis", "distance": "viridis_r"}[by]
    assert len(ax.texts) == 30
    for text in ax.texts:
        x, y = (int(v) - 1 for v in text.get_position())
        pair = result.pair(result.order[y], result.order[x])
        word = f"{pair.value:.2f}"
        assert text.get_text() == (word if pair.significant else f"({word})")


def test_the_order_given_has_no_tree():
    result = made(5)
    figure = matrix_figure(result, clustered=False)
    assert_allclose(shown(figure.axes[0]), result.square())
    assert words(figure.axes[0]) == list(result.adapters)
    assert len(figure.axes) == 2


def test_the_tree_joins_at_the_distances_and_no_branches_cross():
    result = made(9)
    ax = tree(result, ax=Figure().add_subplot())
    lines = [path.vertices for path in ax.collections[0].get_paths()]
    assert [line[1][0] for line in lines] == [row[2] for row in result.linkage]
    leaves = sorted(line[end][1] for line in lines for end in (0, 3) if line[end][0] == 0)
    assert leaves == list(range(1, 10))
    for line in lines:  # an arm is no longer than the merger it belongs to
        assert line[0][0] <= line[1][0]
        assert line[3][0] <= line[2][0]
    low, high = ax.get_xlim()
    assert low == 0
    assert high > max(row[2] for row in result.linkage)
    assert ax.get_xlabel() == "1 − φ"


def test_a_tree_of_far_ones_says_where_its_scale_starts():
    ax = tree(made(6, scale=0.1), ax=Figure().add_subplot())
    low, high = ax.get_xlim()
    assert 0.9 < low < 0.9166 < 0.95 < high < 1  # merged at 0.9167 to 0.95
    assert len(ax.get_xticks()) >= 2
    alike = tree(made(2), ax=Figure().add_subplot())
    assert alike.get_xlim()[0] == 0


def test_undefined_pairs_are_striped_and_explained():
    result = made(5, undefined=(2,))
    figure = matrix_figure(result)
    stripes = figure.axes[0].collections[0]
    assert to_hex(stripes.get_facecolor()[0]) == UNDEFINED
    assert stripes.get_hatch()
    assert len(figure.axes[0].texts) == 12
    labels = [t.get_text() for t in figure.legends[0].get_texts()]
    assert labels[1] == "undefined: no shared module, or no such directions"
    whole = [t.get_text() for t in matrix_figure(made(5)).legends[0].get_texts()]
    assert whole == ["in brackets: no module significant (level 0.01, Benjamini-Hochberg)"]
    every = matrix_figure(made(2)).legends[0].get_texts()[0].get_text()
    assert every.startswith(("in brackets", "every pair is significant"))
    none = matrix_figure(made(3, undefined=(0, 1, 2)))
    assert not none.axes[0].texts


def test_where_no_numbers_fit_dots_mark_what_is_within_chance():
    result = made(30)
    ax = matrix_map(result, ax=Figure().add_subplot(), cell=0.1)
    assert not ax.texts
    x, y = ax.lines[0].get_data()
    within = np.isfinite(result.square(clustered=True)) & (
        result.square("significant", clustered=True) == 0
    )
    assert {(int(a), int(b)) for a, b in zip(x, y, strict=True)} == {
        (b + 1, a + 1) for a, b in np.argwhere(within)
    }
    legend = matrix_figure(result, width=7).legends[0]
    assert legend.get_texts()[0].get_text() == (
        "no module significant (level 0.01, Benjamini-Hochberg)"
    )
    assert legend.get_lines()[0].get_marker() == ax.lines[0].get_marker()


def test_thirty_adapters_get_room_for_their_numbers_without_the_nought():
    figure = matrix_figure(made(30))
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert len(texts) == 870
    assert {"(.50)", ".97"} <= set(texts)
    assert 9 < figure.get_figwidth() < 12


def test_counts_are_whole_and_their_colours_end_at_the_largest():
    result = made(4, by="agreeing", scale=8, largest=8.0)
    figure = matrix_figure(result)
    assert figure.axes[0].images[0].get_clim() == (0, max(p.value for p in result.pairs))
    assert {text.get_text().strip("()") for text in figure.axes[0].texts} == {"2", "4", "6"}
    assert "agreeing directions of 4 adapters" in figure.get_suptitle()


def test_the_title_says_what_chance_gives():
    assert matrix_figure(made(3)).get_suptitle() == (
        "φ(4, 4) of 3 adapters, side A, median over 4 modules; chance gives 0.02"
    )


LONG = tuple(f"experiments/2024-05-17/llama-2-7b-chat-$r_{n}$-\u202eseed" for n in range(30))


@pytest.mark.parametrize("clustered", [True, False])
@pytest.mark.parametrize(
    ("n", "width"),
    [(2, 3.5), (3, None), (3, 3.5), (8, None), (8, 3.5), (8, 5), (30, 7)],
)
def test_every_letter_is_legible_and_none_overlap(n, width, clustered):
    assert_apart(matrix_figure(made(n, undefined=(1,)), width=width, clustered=clustered))
    assert_apart(matrix_figure(made(n, names=LONG[:n]), width=width, clustered=clustered))


@pytest.mark.parametrize("width", [3.5, 7.0])
def test_names_that_are_shortened_stay_apart(width):
    """Their middle was left out, and it is the middle in which seeds differ."""
    names = ("r8", *(f"r64-seed{n}-trained-on-shuffled-labels" for n in range(3)))
    shown_names = words(matrix_figure(made(4, names=names), width=width).axes[0])
    assert len(set(shown_names)) == 4
    assert {n for n in range(3) if any(f"seed{n}" in word for word in shown_names)} == {0, 1, 2}


def test_faint_matrices_use_all_the_colours_and_say_so():
    figure = matrix_figure(made(6, scale=0.2))
    assert figure.axes[0].images[0].get_clim() == (0, 0.2)
    assert figure.axes[-1].get_xlabel() == "φ(4, 4), up to 0.2"
    assert figure.legends[0].get_title().get_text() == "The colours end at 0.2, not at 1."
    assert_allclose(figure.axes[-1].get_xticks(), [0, 0.05, 0.1, 0.15, 0.2])
    whole = matrix_figure(made(6))
    assert whole.axes[-1].get_xlabel() == "φ(4, 4)"
    assert whole.legends[0].get_title().get_text() == ""
    far = matrix_figure(made(6, by="distance", scale=0.2))
    assert far.axes[0].images[0].get_clim() == (0, 1)


def test_thirty_are_as_legible_each_number_within_its_square_cell():
    figure = matrix_figure(made(30, names=LONG, undefined=(1,)))
    assert_legible(figure)  # draws it
    ax = figure.axes[0]
    wide, high = (side / 30 for side in (ax.bbox.width, ax.bbox.height))
    assert wide == pytest.approx(high, rel=0.1)
    for text in ax.texts:
        box = text.get_window_extent()
        assert box.width < wide
        assert box.height < high


def test_two_hundred_adapters_all_have_their_names():
    figure = matrix_figure(made(200))
    assert len(words(figure.axes[0])) == 200
    assert figure.get_figwidth() < 40


def test_cells_are_square():
    for n in (3, 12):
        figure = matrix_figure(made(n))
        figure.draw_without_rendering()
        box = figure.axes[0].bbox
        assert box.width == pytest.approx(box.height, rel=0.1)


@pytest.mark.parametrize("width", [2, 41, math.nan])
def test_a_width_that_no_page_has_is_refused(width):
    with pytest.raises(ArgumentError, match="3 to 40 inches"):
        matrix_figure(made(3), width=width)
