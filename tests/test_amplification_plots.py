"""What the figures of Table 7 draw, read from their Axes: never from pixels."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from subspace.errors import ArgumentError, UnknownModuleError
from subspace.plots.gains import effect, gains, gains_figure
from subspace.results import Amplification, DirectionGain
from tests.support.axes import assert_legible, axes, words
from tests.support.results import BERT, LONG, direction, row, table7, undefined


def widths(ax):
    return [[bar.get_width() for bar in bars] for bars in ax.containers]


# Per direction


def test_bars_are_the_directions_numbers():
    directions = (direction(19.0, 1.0), direction(5.0, -2.0), direction(1.0, -2.0))
    ax = gains(row(directions=directions), ax=axes())
    assert widths(ax) == [[1.0, 2.0, 2.0], [19.0, 5.0, 1.0], [20.0, 3.0, 1.0]]
    assert [t.get_text() for t in ax.texts] == ["amplified 20×", "reversed, 1.5×", "damped to 0.5×"]
    assert [t.get_position()[1] for t in ax.texts] == [1, 2, 3]
    assert ax.get_ylim()[0] > ax.get_ylim()[1]  # direction 1 on top
    for k in range(3):  # each direction's three bars lie around its own k
        centres = [bars[k].get_y() + bars[k].get_height() / 2 for bars in ax.containers]
        assert_allclose(np.mean(centres), k + 1)
        assert max(abs(c - k - 1) for c in centres) < 0.5


def test_the_line_stands_at_what_a_random_direction_has():
    ax = gains(row(), ax=axes())
    (line,) = ax.lines
    assert list(line.get_xdata()) == [0.1, 0.1]


@pytest.mark.parametrize(("w", "scale"), [(1.0, "linear"), (0.01, "log")])
def test_the_scale_is_logarithmic_where_a_bar_would_vanish(w, scale):
    ax = gains(replace(row(directions=(direction(2.0, w),)), null_w=1.0), ax=axes())
    assert ax.get_xscale() == scale
    assert ("log" in ax.get_xlabel()) == (scale == "log")
    low, high = ax.get_xlim()
    assert low < w < 2.0 + w < high
    said = [float(t.get_text()) for t in ax.get_xticklabels()]
    assert said == ax.get_xticks().tolist()  # plain numbers, no powers of ten
    assert len(said) >= 3


def test_ticks_of_a_scale_over_many_decades_stay_apart():
    directions = (direction(2.0, 1e-12), direction(1e-3, 1e3))
    figure = gains_figure(table7(row(directions=directions)), width=3.4)
    assert_legible(figure)
    boxes = [t.get_window_extent() for t in figure.axes[0].get_xticklabels()]
    assert len(boxes) >= 3
    assert all(a.x1 < b.x0 for a, b in pairwise(boxes))


def test_an_undefined_direction_says_so_and_has_no_bar_that_is_unknown():
    unsure = (
        DirectionGain(sigma=3.0, w=None, ratio=None, gain=None),
        DirectionGain(sigma=3.0, w=1e-9, ratio=None, gain=None),
    )
    ax = gains(row(directions=unsure), ax=axes())
    assert_array_equal(widths(ax), [[np.nan, 1e-9], [3.0, 3.0], [np.nan, 3.0 + 1e-9]])
    assert [t.get_text() for t in ax.texts] == ["undefined", "undefined"]


def test_large_gains_stay_short():
    gain = [DirectionGain(sigma=1.0, w=1.0, ratio=1.0, gain=g) for g in (1234.5, -2e7, 1.0)]
    assert [effect(g) for g in gain] == ["amplified 1,234×", "reversed, 2.0e+07×", "amplified 1×"]


def test_an_untrained_module_says_why():
    figure = gains_figure(table7(undefined()))
    assert not figure.axes[0].containers
    assert "untrained: B is zero" in words(figure)


def test_the_default_is_the_middle_layers_query_at_its_largest_rank():
    result = table7(*(row(m, k) for m in BERT for k in (1, 4, 2)))
    figure = gains_figure(result)
    assert len(figure.axes[0].containers[0]) == 4
    assert figure.get_suptitle().replace("\xa0", " ").startswith("layer 2 query, rank 4\nr8 on")
    assert len(gains_figure(result, most=3).axes[0].containers[0]) == 3
    assert "3 of 4 directions" in gains_figure(result, most=3).get_suptitle()
    assert "layer 5 value" in gains_figure(result, module=BERT[-1]).get_suptitle()


@pytest.mark.parametrize(("scaled", "said"), [(True, "with its"), (False, "without its")])
def test_the_title_says_whether_the_scale_is_in(scaled, said):
    assert f"ΔW {said} scale α/r" in gains_figure(table7(scaled=scaled)).get_suptitle()


def test_a_note_is_written():
    figure = gains_figure(table7(row(note="rank 3 of 4")))
    assert figure.legends[0].get_title().get_text().splitlines()[-1] == "rank 3 of 4"


def explained(*directions):
    """The legend's entries and its note, in one line."""
    legend = gains_figure(table7(row(directions=directions))).legends[0]
    entries = [text.get_text() for text in legend.get_texts()]
    return entries, " ".join(legend.get_title().get_text().split())


def test_opposite_signs_are_striped_and_the_words_explained():
    """W's component w_k has the other sign than the update's sigma_k, which is positive."""
    same, reversed_, damped = direction(19.0, 1.0), direction(5.0, -2.0), direction(1.0, -2.0)
    ax = gains(row(directions=(same, reversed_, damped)), ax=axes())
    w, delta, total = ax.containers
    assert [bool(bar.get_hatch()) for bar in w] == [False, True, True]
    assert not any(bar.get_hatch() for bar in (*delta, *total))
    entries, note = explained(same, reversed_, damped)
    assert entries[:2] == ["W: |w_k|", "the same, w_k < 0: against ΔW"]
    assert note == (
        "Beside the bars: |w_k + σ_k| / |w_k|. "
        "Reversed: w_k and σ_k have opposite signs and σ_k is the larger; W + ΔW has ΔW's sign. "
        "Damped: opposite signs, and w_k is the larger."
    )


def test_only_words_that_occur_are_explained():
    entries, note = explained(direction(19.0, 1.0))
    assert not any("against" in entry for entry in entries)
    assert note == "Beside the bars: |w_k + σ_k| / |w_k|."
    assert "Damped" not in explained(direction(5.0, -2.0))[1]
    assert "Reversed" not in explained(direction(1.0, -2.0))[1]
    unsure = DirectionGain(sigma=3.0, w=None, ratio=None, gain=None)
    assert explained(unsure)[1] == ""


@pytest.mark.parametrize("w", [-1.02, -0.98])
def test_a_gain_near_zero_is_said_to_cancel(w):
    """From both sides: W's component may be a little larger than the update's, or smaller."""
    assert explained(direction(1.0, w))[1].endswith("Near 0×: W and ΔW cancel.")
    assert "cancel" not in explained(direction(1.0, -1.5))[1]


@pytest.mark.parametrize("width", [3.4, 7.0])
@pytest.mark.parametrize("rank", [1, 8])
def test_gains_are_legible_with_long_names(width, rank):
    module = f"encoder.layer.0.{LONG.replace('.', '')}"
    assert_legible(gains_figure(table7(row(module, rank), adapter=LONG), width=width))


@pytest.mark.parametrize(
    ("error", "match", "options"),
    [
        (UnknownModuleError, "no module 'nope'", {"module": "nope"}),
        (ArgumentError, "1 to 32 directions", {"most": 0}),
        (ArgumentError, "1 to 32 directions", {"most": 33}),
        (ArgumentError, "3 to 40 inches", {"width": 1.0}),
    ],
)
def test_what_gains_refuse(error, match, options):
    with pytest.raises(error, match=match):
        gains_figure(table7(), **options)


@pytest.mark.parametrize("draw", [gains_figure])
def test_an_amplification_without_rows_is_refused(draw):
    with pytest.raises(UnknownModuleError, match="has no row"):
        draw(Amplification(adapter="a", base="b", scaled=True, seed=0, rows=()))
