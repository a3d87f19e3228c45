"""What the map and the curve of Table 7 draw, read from their Axes: never from pixels."""

import math
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.colors import to_hex, to_rgb
from numpy.testing import assert_allclose, assert_array_equal

from subspace.errors import ArgumentError, UnknownModuleError
from subspace.plots.amplification_curve import curve, curve_figure
from subspace.plots.amplification_map import amplification_map, map_figure
from subspace.plots.parts.amplification_grid import written
from subspace.plots.parts.names import layer_words
from subspace.plots.parts.page import log_ticks
from subspace.results import Amplification
from tests.support.axes import (
    across,
    assert_apart,
    assert_legible,
    axes,
    enclosed,
    legend,
    marks,
    segments,
    title,
    words,
)
from tests.support.results import BERT, HOSTILE, LONG, row, table7, undefined
from tests.support.samples import ROOT

LLAMA = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"]
LLAMA += ["mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]
UNET = [f"down.{n}.attentions.{k}.blocks.0.attn1.to_q" for n in range(2) for k in range(9)]
EMPTY = Amplification(adapter="a", base="b", scaled=True, seed=0, rows=())


def llama(layers=32, kinds=7):
    """Quotients from 1/16 to 16; those from 0.84 to 1.25 lie within chance."""
    names = [f"model.layers.{n}.{kind}" for n in range(layers) for kind in LLAMA[:kinds]]
    sizes = np.random.default_rng(0).permutation(np.geomspace(1 / 16, 16, len(names)))
    return table7(*(row(m, factor=20 / q) for m, q in zip(names, sizes, strict=True)))


def bart():
    return [
        *(f"model.encoder.layers.{n}.{w}_proj" for n in range(3) for w in "qkv"),
        *(f"model.decoder.layers.{n}.{w}_proj" for n in range(2) for w in "qv"),
        "lm_head",
    ]


def drawn(ax):
    return ax.images[0].get_array().filled(np.nan)


def maps(figure):
    return figure.axes[:-1]


def bar(figure):
    return figure.axes[-1]


def down(ax):
    return [t.get_text() for t in ax.get_yticklabels()]


# The map


def test_cells_hold_the_quotient_at_their_layer_and_kind():
    result = table7(*(row(m, factor=20 / (n + 1)) for n, m in enumerate(BERT)))
    ax = amplification_map(result, ax=axes(), cell=(0.5, 0.3))
    assert_allclose(drawn(ax), np.arange(1.0, 13).reshape(6, 2).T)  # six layers fit rightwards
    assert across(ax) == ["0", "1", "2", "3", "4", "5"]
    assert down(ax) == ["query", "value"]
    assert ax.get_xlabel() == "layer"
    assert [t.get_text() for t in ax.texts[:3]] == ["1.00", "3.00", "5.00"]
    assert [t.get_position() for t in ax.texts[:3]] == [(1, 1), (2, 1), (3, 1)]
    assert ax.get_xlim() == (0.5, 6.5)
    assert ax.get_ylim() == (2.5, 0.5)


def test_many_layers_run_downwards():
    (ax,) = maps(map_figure(llama()))
    assert_array_equal(drawn(ax).shape, (32, 7))
    assert_allclose(drawn(ax)[3, 2], llama()[3 * 7 + 2].null_ratio)
    assert down(ax) == [str(n) for n in range(32)]
    assert across(ax) == [kind.rsplit(".", 1)[-1] for kind in LLAMA]
    assert ax.get_ylabel() == "layer"
    assert len(ax.texts) == 224


@pytest.mark.parametrize(
    ("factors", "most"), [((20, 10), 2), ((20, 5), 4), ((100, 10), 5), ((1e5, 1), 32)]
)
def test_colours_are_centred_on_chance(factors, most):
    ax = amplification_map(
        table7(*(row(m, factor=f) for m, f in zip(BERT, factors, strict=False))), ax=axes()
    )
    image = ax.images[0]
    assert_allclose(image.get_clim(), (1 / most, most))
    assert_allclose(image.norm([1 / most, 1, math.sqrt(most), most]), [0, 0.5, 0.75, 1])
    blue, red = to_rgb(image.to_rgba(1 / most)), to_rgb(image.to_rgba(most))
    assert blue[2] > blue[0]
    assert red[0] > red[2]


def test_the_factor_has_a_log_scale_of_its_own():
    result = table7(*(row(m, factor=f) for m, f in zip(BERT, (2, 20, 200), strict=False)))
    figure = map_figure(result, value="factor")
    (ax,) = maps(figure)
    assert ax.images[0].get_clim() == (2, 200)
    assert_allclose(ax.images[0].norm(20), 0.5)
    assert [t.get_text() for t in ax.texts] == ["2.00", "200", "20.0"]
    assert title(figure).startswith("amplification factor |ΔW| / |Uᵀ W V|; rank 4\nr8 on minilm")
    assert across(bar(figure)) == ["2", "5", "10", "20", "50", "100", "200"]
    assert bar(figure).get_title(loc="left") == "amplifies less"


def test_findings_are_outlined_and_bold_and_no_others():
    factors = [10, 20, 17, 30, 40, 22, 20, 10, 5, 5, 20, 19]
    result = table7(*(row(m, factor=f) for m, f in zip(BERT, factors, strict=True)))
    figure = map_figure(result)
    (ax,) = maps(figure)
    expected = np.array([not 16 <= f <= 24 for f in factors]).reshape(6, 2).T
    assert_array_equal(enclosed(segments(ax), (2, 6)), expected)
    bold = [t.get_fontweight() == "bold" for t in ax.texts]
    assert_array_equal(np.reshape(bold, (2, 6)), expected)
    assert legend(figure) == [
        "outlined, bold: outside the central 95 % of chance, each cell by itself, uncorrected"
    ]


def test_no_finding_no_outline_and_no_word_of_it():
    figure = map_figure(table7(*(row(m, factor=20) for m in BERT)))
    assert not marks(maps(figure)[0], "_outline")
    assert not legend(figure)


def test_undefined_is_striped_and_a_module_that_is_not_there_blank():
    result = table7(*(row(m) for m in BERT[:2]), undefined(BERT[2]), row(BERT[5], factor=20.0))
    figure = map_figure(result)
    (ax,) = maps(figure)
    assert_allclose(drawn(ax), [[2, np.nan, np.nan], [2, np.nan, 1]])
    (stripes,) = marks(ax, "_undefined")
    (path,) = stripes.get_paths()
    assert_array_equal(path.vertices.min(0), [1.5, 0.5])  # layer 1, query
    assert_array_equal(path.vertices.max(0), [2.5, 1.5])
    assert len(ax.texts) == 3
    assert legend(figure)[-1] == "undefined: ΔW or W is zero"


@pytest.mark.parametrize("factor", [0.0, math.inf, math.nan])
@pytest.mark.parametrize("value", ["null_ratio", "factor"])
def test_what_has_no_place_on_a_log_scale_is_undefined(factor, value):
    result = table7(row(BERT[0], factor=1.0), replace(row(BERT[1]), factor=factor))
    ax = amplification_map(result, ax=axes(), value=value)
    assert np.isnan(drawn(ax)[1, 0])
    assert marks(ax, "_undefined")
    assert enclosed(segments(ax), (2, 1)).tolist() == [[True], [False]]


def test_all_undefined_still_draws():
    figure = map_figure(table7(*(undefined(m) for m in BERT)))
    assert np.isnan(drawn(maps(figure)[0])).all()
    assert_legible(figure)


def test_fields_that_were_not_computed_do_not_matter():
    result = table7(*(replace(row(m), w_in_w=math.nan) for m in BERT))
    assert_allclose(drawn(maps(map_figure(result))[0]), 2)


@pytest.mark.parametrize(
    ("ranks", "said"),
    [
        ([(4,), (4,)], "random one; rank 4\n"),
        ([(1, 2, 4), (1, 4)], "rank 4, each module's largest\n"),
        ([(4,), (8,)], "ranks 4 to 8\n"),
        ([(4,), (1, 8)], "ranks 4 to 8, each module's largest\n"),
    ],
)
def test_the_largest_rank_is_drawn_and_said(ranks, said):
    rows = [row(m, k, factor=80 / k) for m, ks in zip(BERT, ranks, strict=False) for k in ks]
    figure = map_figure(table7(*rows))
    assert_allclose(drawn(maps(figure)[0]).ravel(), [max(ks) / 4 for ks in ranks])
    assert said in title(figure)


@pytest.mark.parametrize("width", [3.3, 7.0])
def test_the_bar_says_what_its_ends_mean(width):
    figure = map_figure(llama(), width=width)
    assert bar(figure).get_title(loc="left") == "meets less of W than chance"
    assert bar(figure).get_title(loc="right") == "more"
    labels = dict(zip(bar(figure).get_xticks(), across(bar(figure)), strict=True))
    assert labels[1] == "1 = chance"
    assert labels[0.25] == "1/4"
    assert (2 in labels) == (width > 5)  # every second power where there is no room


def test_numbers_are_readable_on_their_colour():
    """WCAG 2 asks for a contrast of 4.5."""
    (ax,) = maps(map_figure(llama()))

    def light(colour):
        c = np.array(to_rgb(colour))
        linear = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
        return linear @ [0.2126, 0.7152, 0.0722]

    for text in ax.texts:
        x, y = text.get_position()
        pair = sorted(
            (light(text.get_color()), light(ax.images[0].to_rgba(drawn(ax)[y - 1, x - 1])))
        )
        assert (pair[1] + 0.05) / (pair[0] + 0.05) >= 4.5
    assert {text.get_color() for text in ax.texts} == {"black", "white"}


def test_a_cell_without_room_has_no_number():
    result = table7(*(row(m, factor=17) for m in BERT))
    shown = [
        [t.get_text() for t in amplification_map(result, ax=axes(), cell=cell).texts[:1]]
        for cell in ((0.5, 0.3), (0.2, 0.3), (0.1, 0.3), (0.5, 0.1))
    ]
    assert shown == [["1.18"], ["1.2"], [], []]


def test_numbers_round_to_what_is_written():
    assert [written(x) for x in (0.01, 0.994, 0.999, 99.96, 9999.4, 9999.6)] == [
        "0.01", "0.99", "1.00", "100", "9999", "1e4",
    ]  # fmt: skip
    assert [written(x, 2) for x in (0.31, 1.27, 12.7, 0.099)] == ["0.3", "1.3", "13", "1e-1"]


def test_a_page_of_layers_goes_on_at_the_right():
    figure = map_figure(llama(126))
    first, second = maps(figure)
    assert_array_equal(np.vstack([drawn(first), drawn(second)]).shape, (126, 7))
    assert_allclose(drawn(second)[0, 0], llama(126)[63 * 7].null_ratio)
    assert down(second)[0] == "63"
    assert first.get_ylim() == second.get_ylim()
    assert first.images[0].get_clim() == second.images[0].get_clim()
    assert figure.get_figheight() < 10


def test_where_there_is_no_room_for_a_block_labels_are_thinned():
    (ax,) = maps(map_figure(llama(126), width=3.3))
    assert down(ax)[:3] == ["0", "2", "4"]
    assert ax.get_yticks()[:3].tolist() == [1, 3, 5]
    assert not ax.texts


def test_encoder_and_decoder_are_told_apart():
    (ax,) = maps(map_figure(table7(*(row(m) for m in bart()))))
    assert across(ax) == ["encoder 0", "encoder 1", "encoder 2", "decoder 0", "decoder 1", ""]
    assert down(ax) == ["q_proj", "k_proj", "v_proj", "lm_head"]
    assert np.isnan(drawn(ax)).sum() == 4 * 6 - 14


def test_prefixes_that_first_words_do_not_tell_apart_are_written_out():
    rows = [("a.x.h", 0), ("a.y.h", 0), ("b.h", 0)]
    assert list(layer_words(rows).values()) == ["a.x.h 0", "a.y.h 0", "b.h 0"]
    assert list(layer_words([("", 0), ("a", 1)]).values()) == ["layer 0", "a 1"]


def test_modules_without_a_layer_run_downwards():
    names = [f"block_{n}" for n in range(12)]
    (ax,) = maps(map_figure(table7(*(row(m) for m in names))))
    assert down(ax) == names
    assert across(ax) == [""]
    assert not ax.get_xlabel()


@pytest.mark.parametrize("width", [3.0, 7.0])
@pytest.mark.parametrize(
    "names",
    [BERT[:1], BERT, bart(), HOSTILE, [f"block_{n}" for n in range(12)],
     UNET, [f"h.{n}.{LONG.replace('.', '')}" for n in range(20)]],
)  # fmt: skip
def test_maps_are_legible(width, names):
    rows = [row(m, factor=10 + n) for n, m in enumerate(names)]
    figure = map_figure(table7(*rows, adapter=LONG), width=width)
    assert_apart(figure)


@pytest.mark.parametrize(
    ("layers", "width", "value"),
    [
        (1, 7.0, "null_ratio"),
        (12, 3.3, "factor"),
        (12, 12.0, "null_ratio"),
        (32, 3.3, "null_ratio"),
        (32, 7.0, "factor"),
        pytest.param(126, 3.3, "factor", marks=pytest.mark.slow),
        pytest.param(126, 7.0, "null_ratio", marks=pytest.mark.slow),
    ],
)
def test_maps_of_large_models_are_legible(layers, width, value):
    figure = map_figure(llama(layers), width=width, value=value)
    assert_apart(figure)


# The curve


def ranks(module=BERT[4], most=8, *, factor=lambda k: 30 / k, chance=lambda k: 40 / k):
    return [row(module, k, factor=factor(k), chance=chance(k)) for k in range(1, most + 1)]


def band(ax):
    """(k, low, high) of the grey band's corners."""
    (path,) = ax.collections[0].get_paths()
    return {
        x: tuple(sorted({y for a, y in path.vertices.tolist() if a == x}))
        for x in sorted(set(path.vertices[:, 0]))
    }


def test_the_curve_is_the_factor_beside_its_chance():
    rows = ranks(most=3)
    ax = curve(rows[::-1], ax=axes())
    chance, factor, outside, inside = ax.lines
    assert_array_equal(factor.get_xydata(), [[1, 30], [2, 15], [3, 10]])
    assert_array_equal(chance.get_xydata(), [[1, 40], [2, 20], [3, 40 / 3]])
    assert band(ax) == {r.rank: (r.null_low, r.null_high) for r in rows}
    assert len(outside.get_xdata()) == 3
    assert len(inside.get_xdata()) == 0
    assert ax.get_yscale() == "log"
    assert chance.get_linestyle() == "--"


def test_markers_are_filled_outside_the_band_and_hollow_inside():
    factors = {1: 100, 2: 20, 3: 16, 4: 15.9}
    ax = curve(ranks(most=4, factor=factors.get, chance=lambda _: 20), ax=axes())
    *_, outside, inside = ax.lines
    assert outside.get_xdata().tolist() == [1, 4]
    assert inside.get_xdata().tolist() == [2, 3]
    assert to_hex(outside.get_markerfacecolor()) == "#0072b2"
    assert to_hex(inside.get_markerfacecolor()) == "#ffffff"
    assert outside.get_linestyle() == inside.get_linestyle() == "None"


def test_the_quotient_has_chance_at_one():
    ax = curve(ranks(most=3), ax=axes(), value="null_ratio")
    chance, null_ratio, *_ = ax.lines
    assert chance.get_ydata().tolist() == [1, 1, 1]
    assert_allclose(null_ratio.get_ydata(), 4 / 3)
    assert_allclose(list(band(ax).values()), [(1 / 1.2, 1 / 0.8)] * 3)
    assert ax.get_ylabel() == "null ratio (log scale)"


@pytest.mark.parametrize(
    ("some", "scale", "at"),
    [
        (range(1, 9), "linear", [1, 2, 3, 4, 5, 6, 7, 8]),
        ((4, 8, 12), "linear", [4, 8, 12]),
        ((1, 2, 4, 8, 16, 32, 64), "log", [1, 2, 4, 8, 16, 32, 64]),
        (range(1, 65), "log", [1, 2, 4, 8, 16, 32, 64]),
        (range(1, 257), "log", [1, 4, 16, 64, 256]),
        (range(32, 65), "linear", [32, 40, 48, 56, 64]),
    ],
)
def test_k_is_on_a_scale_that_suits_its_range(some, scale, at):
    ax = curve([row(rank=k, directions=()) for k in some], ax=axes())
    assert ax.get_xscale() == scale
    assert ax.get_xticks().tolist() == at
    assert across(ax) == [str(k) for k in at]
    low, high = ax.get_xlim()
    assert low < min(some) < max(some) < high


@pytest.mark.parametrize(
    ("factors", "levels"),
    [
        ((10, 2000), ["10", "100", "1000"]),
        ((15, 40), ["20", "50"]),
        ((3, 3.1), ["2", "3", "4"]),
    ],
)
def test_the_factors_scale_has_plain_numbers(factors, levels):
    rows = [row(rank=k, factor=f, chance=f) for k, f in enumerate(factors, 1)]
    ax = curve(rows, ax=axes())
    assert set(levels) <= set(down(ax))
    low, high = ax.get_ylim()
    assert all(low <= level <= high for level in ax.get_yticks())
    assert low < min(r.null_low for r in rows)
    assert high > max(r.null_high for r in rows)
    assert not any(t.get_text() for t in ax.get_yticklabels(minor=True))


@pytest.mark.parametrize("low", [1e-9, 0.7, 1.0, 5.5, 9.99, 1e7])
@pytest.mark.parametrize("span", [1.57, 3.0, 20.0, 1e6])
def test_a_log_scale_never_lacks_ticks(low, span):
    found = log_ticks(low, low * span)
    assert 2 <= len(found) <= 12
    assert all(low <= tick <= low * span for tick in found)
    assert found == sorted(set(found))


def test_undefined_ranks_are_left_out_and_said():
    rows = ranks(most=4)
    rows[2] = replace(undefined(BERT[4], 3), note="W is exactly zero: nothing to amplify")
    figure = curve_figure(table7(*rows))
    (ax,) = figure.axes
    assert ax.lines[1].get_xdata().tolist() == [1, 2, 4]
    assert sorted(band(ax)) == [1, 2, 4]
    note = figure.legends[0].get_title().get_text()
    assert "layer 2 query: no factor at k = 3, left out" in note
    assert "layer 2 query: W is exactly zero: nothing to amplify" in note
    assert ax.get_xticks().tolist() == [1, 2, 3, 4]


def test_an_untrained_module_says_why_beside_one_that_is_not():
    result = table7(*ranks(BERT[4]), undefined(BERT[5], 1))
    figure = curve_figure(result)
    assert not figure.axes[1].lines
    assert "untrained: B is zero" in words(figure)
    assert len(figure.axes[0].lines) == 4


def test_a_wholly_untrained_adapter_is_not_asked_for_ranks():
    figure = curve_figure(table7(*(undefined(m, 1) for m in BERT)))
    assert words(figure).count("untrained: B is zero") == 2


def test_a_note_is_written_once_a_module():
    rows = [replace(r, note="numerical rank 8 of 16") for r in ranks()]
    note = curve_figure(table7(*rows)).legends[0].get_title().get_text()
    assert note.count("numerical rank 8 of 16") == 1


def test_a_module_of_one_rank_beside_others_is_a_point_on_a_short_band():
    result = table7(*ranks(BERT[4]), row(BERT[5], 1, factor=30, chance=20))
    ax = curve_figure(result).axes[1]
    assert ax.lines[1].get_xydata().tolist() == [[1, 30]]
    assert sorted(band(ax)) == [0.8, 1.2]


def test_panels_are_the_middle_layers_query_and_value_on_one_scale():
    result = table7(
        *(r for n, m in enumerate(BERT) for r in ranks(m, factor=lambda k, n=n: 9.0**n / k))
    )
    figure = curve_figure(result)
    one, other = figure.axes
    assert [one.get_title(), other.get_title()] == ["layer 2 query", "layer 2 value"]
    assert one.get_ylim() == other.get_ylim()
    assert one.get_xlim() == other.get_xlim()
    assert one.get_ylabel() == "factor (log scale)"
    assert other.get_ylabel() == ""
    assert one.get_ylim()[1] > 9**5  # of the value: holds both
    assert legend(figure) == [
        "update, outside the band",
        "update, inside it",
        "random update",
        "central 95 % of random updates",
    ]
    assert "Below the band the update meets more of W" in figure.legends[0].get_title().get_text()
    (alone,) = curve_figure(result, modules=BERT[7]).axes
    assert alone.get_title() == "layer 3 value"


@pytest.mark.parametrize(
    ("count", "width", "value"),
    [
        (1, 12.0, "factor"),
        (2, 3.0, "factor"),
        (2, 3.3, "null_ratio"),
        (2, 7.0, "null_ratio"),
        (5, 3.3, "factor"),
        (12, 7.0, "null_ratio"),
        pytest.param(12, 3.0, "factor", marks=pytest.mark.slow),
    ],
)
def test_curves_are_legible(count, width, value):
    rows = [r for m in BERT for r in ranks(m, 64, factor=lambda k: 3000 / k**1.5)]
    figure = curve_figure(
        table7(*rows, adapter=LONG), modules=BERT[:count], width=width, value=value
    )
    assert_apart(figure)


@pytest.mark.parametrize("width", [3.3, 7.0])
def test_curves_are_legible_with_hostile_names_and_notes(width):
    rows = [replace(r, note=f"{LONG} {m} " * 3) for m in HOSTILE for r in ranks(m, 3)]
    figure = curve_figure(
        table7(*rows, undefined("$y", 1)), modules=[*HOSTILE[:4], "$y"], width=width
    )
    assert_apart(figure)


# Both


@pytest.mark.parametrize(
    ("error", "match", "call"),
    [
        (UnknownModuleError, "has no row", lambda _: map_figure(EMPTY)),
        (UnknownModuleError, "has no row", lambda _: curve_figure(EMPTY)),
        (ArgumentError, "3 to 40 inches", lambda t: map_figure(t, width=2.0)),
        (ArgumentError, "3 to 40 inches", lambda t: curve_figure(t, width=math.nan)),
        (ArgumentError, "'null_ratio' or 'factor'", lambda t: map_figure(t, value="phi")),
        (ArgumentError, "'null_ratio' or 'factor'", lambda t: curve_figure(t, value="phi")),
        (ArgumentError, "'null_ratio' or 'factor'", lambda t: curve(t[:1], ax=axes(), value="phi")),
        (ArgumentError, "modules= of subspace.amplification",
         lambda _: map_figure(table7(*(row(f"layers.{n}.q") for n in range(1001))))),
        (ArgumentError, r"ask for them with --ranks 1,2,4,8 \(ranks=", curve_figure),
        (UnknownModuleError, "no module 'nope'",
         lambda _: curve_figure(table7(*ranks()), modules="nope")),
        (ArgumentError, "1 to 12 modules, got 13; subspace.plots.amplification_map",
         lambda _: curve_figure(table7(*ranks()), modules=[BERT[4]] * 13)),
        (ArgumentError, "of one module, got 12", lambda t: curve(t, ax=axes())),
        (ArgumentError, "of one module, got 0", lambda _: curve([], ax=axes())),
    ],
)  # fmt: skip
def test_what_is_refused(error, match, call):
    with pytest.raises(error, match=match):
        call(table7())


def test_axes_level_functions_return_the_axes_they_were_given():
    one, other = axes(), axes()
    assert amplification_map(table7(), ax=one) is one
    assert curve(ranks(), ax=other) is other
    untrained = axes()
    assert curve([undefined()], ax=untrained) is untrained


def test_figures_of_table_7_use_no_pyplot():
    code = (
        "import sys, subspace.plots.amplification_map, subspace.plots.amplification_curve;"
        "print([m for m in ('matplotlib.pyplot', 'seaborn', 'pandas', 'torch')"
        " if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.stdout.strip() == "[]"
