"""Figures 6 and 7, read from their Axes: square panels, a row a layer, a column a kind."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from subspace.errors import ArgumentError, UnknownModuleError
from subspace.plots.layers import layers_figure
from subspace.results import Similarity
from tests.support.axes import assert_legible, drawn, laid_out, panels
from tests.support.results import BERT, compared, module


def test_layers_are_rows_and_kinds_are_columns():
    similarity = compared()
    figure = layers_figure(similarity)
    found = panels(figure)
    assert len(found) == 12
    for ax, name in zip(found, BERT, strict=True):
        assert_array_equal(drawn(ax), similarity[name].phi)
    assert [ax.get_title() for ax in found[:3]] == ["query", "value", ""]
    assert [ax.get_ylabel().split("\n")[0] for ax in found[::2]] == [f"layer {k}" for k in range(6)]


def test_sixty_four_modules_go_on_in_further_blocks():
    names = [f"model.layers.{k}.self_attn.{w}_proj" for k in range(32) for w in "qv"]
    figure = layers_figure(compared(names, r_b=8))
    assert len(panels(figure)) == 64
    assert figure.get_figheight() <= 11
    assert sum(ax.get_title() == "q_proj" for ax in panels(figure)) == 3
    labels = {ax.get_ylabel().split("\n")[0] for ax in panels(figure)} - {""}
    assert labels == {f"layer {k}" for k in range(32)}


def boxes(figure):
    laid_out(figure)
    return [ax.get_window_extent() for ax in panels(figure)]


def blocks_of(layers, kinds="qv"):
    return [f"model.layers.{k}.self_attn.{w}_proj" for k in range(layers) for w in kinds]


@pytest.mark.parametrize(
    ("names", "shape", "width", "least"),
    [
        (BERT, (8, 64), 7.0, 1.2),
        (BERT, (64, 64), 3.5, 1.0),
        (blocks_of(30), (8, 64), 7.0, 0.65),
        (blocks_of(31), (16, 16), 3.5, 0.3),
    ],
)
def test_every_panel_is_a_square_of_one_size(names, shape, width, least):
    """6 layers or 30, ranks that differ or not; 31 leave a gap in the last block."""
    modules = dict.fromkeys(names, module("q", *shape))
    figure = layers_figure(
        Similarity(adapters=("a", "b"), side="A", modules=modules, level=0.01), width=width
    )
    found = boxes(figure)
    assert len(found) == len(names)
    side = found[0].width
    for box in found:
        assert box.width == pytest.approx(side)
        assert box.height == pytest.approx(side)
    assert side / figure.dpi >= least
    assert all(not a.overlaps(b) for a, b in combinations(found, 2))
    assert {round(box.y0) for box in found[::2]} == {round(box.y0) for box in found[1::2]}


def test_six_layers_of_two_kinds_fill_the_page_in_two_blocks():
    figure = layers_figure(compared())
    assert [ax.get_title() for ax in panels(figure)].count("query") == 2
    assert figure.get_figheight() < 6
    slide = layers_figure(compared(), width=5.0)
    assert slide.get_figheight() < 5
    assert min(box.width for box in boxes(slide)) / slide.dpi > 0.6


@pytest.mark.parametrize(
    ("names", "width"),
    [(BERT, 3.5), (BERT, 7.0), (blocks_of(31), 7.0), (blocks_of(6, "qkvoabc"), 3.5)],
)
def test_words_and_ticks_of_layers_are_legible(names, width):
    """Nothing is cut, and no word lies on another or on a panel."""
    figure = layers_figure(compared(names, real=(5, 5)), width=width)
    assert_legible(figure)
    found = panels(figure)
    spaces = [ax.get_window_extent() for ax in found]
    words = [ax.yaxis.label for ax in found] + [ax.xaxis.label for ax in found]
    words += [ax.title for ax in found] + list(figure.texts)
    words += [t for ax in found for t in (*ax.get_xticklabels(), *ax.get_yticklabels())]
    said = [t.get_window_extent() for t in words if t.get_text() and t.get_visible()]
    said += [legend.get_window_extent() for legend in figure.legends]
    for word, text in zip(said, (t.get_text() for t in words if t.get_text()), strict=False):
        assert not any(word.overlaps(space.padded(-1)) for space in spaces), text
    assert not [pair for pair in combinations(said, 2) if pair[0].padded(-1).overlaps(pair[1])]


def flat(name, level, r=16):
    """A module in which every phi is below `level`, as chance gives it."""
    m = module(name, r, r)
    i, j = np.ogrid[1 : r + 1, 1 : r + 1]
    phi = level * np.maximum(i, j) / r
    return replace(m, phi=phi, pvalue=np.full(phi.shape, 0.5))


@pytest.mark.parametrize("width", [3.5, 7.0])
def test_flat_panels_use_all_the_colours_or_say_their_largest(width):
    """Alone the colours end above them; beside a loud panel, which sets the scale, a word does."""
    names = blocks_of(30)
    modules = {name: flat(name, 0.0038) for name in names}
    quiet = layers_figure(
        Similarity(adapters=("a", "b"), side="A", modules=modules, level=0.01), width=width
    )
    for ax in panels(quiet):
        low, high = ax.images[0].get_clim()
        assert (low, high) == (0, 0.004)
        assert drawn(ax).max() > 0.9 * high
        assert not ax.texts
    modules[names[7]] = flat(names[7], 0.9)
    modules[names[8]] = flat(names[8], 0.3)
    loud = layers_figure(
        Similarity(adapters=("a", "b"), side="A", modules=modules, level=0.01), width=width
    )
    for ax in panels(loud):
        said = [text.get_text() for text in ax.texts]
        assert said == ([] if ax.get_label() in names[7:9] else ["≤.004"])
    assert "In a dark panel: its largest φ." in loud.legends[0].get_title().get_text()
    assert "dark" not in quiet.legends[0].get_title().get_text()
    assert_legible(loud)
    ax = panels(loud)[0]
    frame, word = ax.get_window_extent(), ax.texts[0].get_window_extent()
    assert frame.x0 <= word.x0
    assert word.x1 <= frame.x1 + 1
    pale = layers_figure(
        Similarity(adapters=("a", "b"), side="A", modules=modules, level=0.01),
        layers=[3],
        above_chance=True,
    )
    assert not [text for ax in panels(pale) for text in ax.texts]


def test_heads_that_are_too_long_stand():
    wide, narrow = (layers_figure(compared(), width=w, layers=[0]) for w in (7.0, 3.5))
    assert {ax.title.get_rotation() for ax in panels(wide) + panels(narrow)} == {0}
    many = compared(blocks_of(2, "qkvoabc"), r_b=8)
    assert {ax.title.get_rotation() for ax in panels(layers_figure(many, width=3.5))[:7]} == {90}


def test_modules_without_layers_are_rows():
    names = [f"proj_{k}" for k in range(12)]
    figure = layers_figure(compared(names, r_b=8))
    assert [ax.get_ylabel().split("\n")[0] for ax in panels(figure)] == names
    assert min(box.width for box in boxes(figure)) / figure.dpi > 0.8


def test_kinds_that_do_not_fit_are_refused_with_a_way_out():
    many = compared([f"h.0.kind_{k}" for k in range(40)], r_b=8)
    with pytest.raises(ArgumentError, match=r"40 kinds of module .* 7 inches; choose some"):
        layers_figure(many)
    assert len(panels(layers_figure(many, width=20))) == 40


def test_layers_chosen_by_number_and_gaps_left_empty():
    figure = layers_figure(compared(BERT[:3]), layers=[0, 1])
    assert len(panels(figure)) == 3
    assert len(panels(layers_figure(compared(), layers=[5]))) == 2
    with pytest.raises(UnknownModuleError, match="no layer 9 in this comparison; it has 0, 1"):
        layers_figure(compared(BERT[:3]), layers=[9])
    with pytest.raises(UnknownModuleError, match="no layer at all"):
        layers_figure(compared(BERT[:3]), layers=[])


def test_layers_of_several_ranks_each_have_their_ticks():
    mixed = {"h.0.q": module("h.0.q", 4, 4), "h.1.q": module("h.1.q", 16, 16), "head": module()}
    figure = layers_figure(Similarity(adapters=("a", "b"), side="A", modules=mixed, level=0.01))
    assert [ax.get_xticks()[-1] for ax in panels(figure)] == [4, 16, 64]


def test_encoder_and_decoder_layers_are_told_apart():
    names = ["encoder.block.0.q", "decoder.block.0.q"]
    labels = [ax.get_ylabel() for ax in panels(layers_figure(compared(names)))]
    assert labels == ["encoder 0\ni", "decoder 0\ni"]


def test_too_many_panels_are_refused():
    one = module()
    many = Similarity(
        adapters=("a", "b"), side="A", modules={f"h.{k}.q": one for k in range(513)}, level=0.01
    )
    with pytest.raises(ArgumentError, match="513 modules"):
        layers_figure(many)
