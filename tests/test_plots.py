"""What the figures draw, read from their Axes: never from pixels."""

import os
import re
import subprocess
import sys
import warnings
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont
from numpy.testing import assert_array_equal

from subspace import plots
from subspace.errors import ArgumentError, MissingFileError, ShapeError, UnknownModuleError
from subspace.modules.place import place
from subspace.plots.figure3 import figure3
from subspace.plots.figure4 import figure4
from subspace.plots.heatmap import phi_heatmap
from subspace.plots.layers import layers_figure
from subspace.plots.parts.cells import outline_edges
from subspace.plots.parts.colour_end import colour_end
from subspace.plots.parts.names import (
    default_modules,
    kind_labels,
    literal,
    module_label,
    shorten,
)
from subspace.plots.parts.page import ticks
from subspace.plots.parts.phi_words import ORIGIN
from subspace.plots.save import save
from subspace.results import Similarity
from tests.support.axes import assert_legible, drawn, enclosed, laid_out, marks, panels, segments
from tests.support.results import BERT, LONG, compared, module
from tests.support.samples import ROOT


def panel(result, **options):
    return phi_heatmap(result, ax=Figure().add_subplot(), **options)


# The panel


@pytest.mark.parametrize("shape", [(1, 1), (8, 8), (8, 64), (64, 8), (64, 64), (1, 256)])
def test_the_drawn_array_is_phi_and_cells_are_centred_on_i_and_j(shape):
    result = module(r_a=shape[0], r_b=shape[1])
    ax = panel(result)
    assert_array_equal(drawn(ax).filled(np.nan), result.phi)
    assert ax.get_xlim() == (0.5, shape[1] + 0.5)
    assert ax.get_ylim() == (shape[0] + 0.5, 0.5)  # i = 1 on top
    assert ax.images[0].get_clim() == (0, 1)
    for places, n in ((ax.get_xticks(), shape[1]), (ax.get_yticks(), shape[0])):
        assert places[0] == 1
        assert places[-1] <= n
        assert len(places) <= 9
        assert all(p == int(p) for p in places)


def test_ticks_are_powers_of_two():
    assert ticks(8) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert ticks(64) == [1, 8, 16, 24, 32, 40, 48, 56, 64]
    assert ticks(8, 4) == [1, 4, 8]
    assert ticks(1, 2) == [1]
    for n in range(1, 300):
        assert 1 <= len(ticks(n, 5)) <= 6


def test_above_chance_is_phi_minus_the_null_mean_on_a_scale_centred_on_zero():
    result = module(real=(6, 60))
    ax = panel(result, above_chance=True)
    assert_array_equal(drawn(ax).filled(np.nan), result.phi - result.null_mean)
    assert ax.images[0].get_clim() == (-1, 1)


@pytest.mark.parametrize("k", [1, 5, 8])
def test_the_zoom_shows_exactly_the_triangle(k):
    result = module()
    ax = panel(result, cells=(k, k), triangle=True)
    i, j = np.ogrid[1 : k + 1, 1 : k + 1]
    assert_array_equal(np.ma.getmaskarray(drawn(ax)), j > i)
    assert_array_equal(drawn(ax).data, result.phi[:k, :k])
    assert ax.get_ylim() == (k + 0.5, 0.5)  # the same origin as the whole grid


@pytest.mark.parametrize("options", [{}, {"cells": (8, 8), "triangle": True}])
@pytest.mark.parametrize("p", [0.01, 0.02])
def test_the_outline_encloses_exactly_the_cells_at_or_below_p(p, options):
    result = module(real=(7, 50), masked=[(2, 1)])
    result.pvalue[0, 0] = p  # at the level is within
    ax = panel(result, contour=p, **options)
    k, m = options.get("cells", (8, 64))
    expected = (result.pvalue <= p)[:k, :m]
    if options:
        expected &= np.tri(k, dtype=bool)
    assert_array_equal(enclosed(segments(ax), (k, m)), expected)


@given(
    st.integers(1, 6).flatmap(
        lambda k: st.lists(st.lists(st.booleans(), min_size=k, max_size=k), min_size=1, max_size=6)
    )
)
def test_outlines_run_along_cells_for_any_set(rows):
    inside = np.array(rows)
    edges = outline_edges(inside)
    assert_array_equal(enclosed(edges, inside.shape), inside)
    for (x1, y1), (x2, y2) in edges:
        assert (x1 == x2) != (y1 == y2)
        assert all(v % 1 == 0.5 for v in (x1, y1, x2, y2))


def test_no_outline_without_p_and_none_where_nothing_passes():
    assert not marks(panel(module(), contour=None), "_outline")
    assert not marks(panel(module(), contour=1e-12), "_outline")


def test_a_panel_that_passes_as_a_whole_differs_from_one_that_does_not():
    """Its outline is black along the frame, and the frame itself is grey."""
    figure = figure3(compared(), contour=0.5)
    for ax in panels(figure):
        colours = {mpl.colors.to_hex(s.get_edgecolor()) for s in ax.spines.values()}
        assert colours == {"#b0b0b0"}
    (outline,) = marks(panels(figure)[0], "_outline")
    assert mpl.colors.to_hex(outline.get_color()[0]) == "#000000"
    assert len(outline.get_segments()) == 4


def test_undefined_cells_are_striped_and_no_others():
    result = module(real=(5, 50), masked=[(1, 1)])
    ax = panel(result)
    (stripes,) = marks(ax, "_undefined")
    assert stripes.get_hatch()
    covered = np.zeros(result.phi.shape, dtype=bool)
    for path in stripes.get_paths():
        (x0, y0), (x1, y1) = path.vertices.min(0), path.vertices.max(0)
        covered[int(y0) : int(y1), int(x0) : int(x1)] = True
    assert_array_equal(covered, np.isnan(result.phi))
    assert_array_equal(np.ma.getmaskarray(drawn(ax)), covered)


def test_a_masked_cell_is_never_drawn_even_if_it_holds_a_number():
    result = module(masked=[(0, 0)])
    result.phi[0, 0] = 0.7
    assert np.ma.getmaskarray(drawn(panel(result)))[0, 0]


def test_untrained_says_why_in_the_panel():
    result = replace(module(real=(0, 64)), note="untrained: B is zero")
    assert panel(result).texts[0].get_text() == "untrained: B is zero"
    assert panel(np.full((2, 2), np.nan)).texts[0].get_text() == "undefined"


def test_a_bare_grid_has_no_null():
    ax = panel(np.array([[0.9, 0.5], [0.1, 0.2]]))
    assert not ax.collections
    with pytest.raises(ArgumentError, match="pass the ModuleSimilarity"):
        panel(np.ones((2, 2)), above_chance=True)


@pytest.mark.parametrize("p", [0, 1, -0.1, float("nan")])
def test_p_that_is_no_level_is_refused(p):
    with pytest.raises(ArgumentError, match="lies between 0 and 1"):
        panel(module(), contour=p)


@pytest.mark.parametrize("cells", [(0, 1), (9, 1), (1, 65)])
def test_cells_outside_the_grid_are_refused(cells):
    with pytest.raises(ArgumentError, match="outside the grid of 8 x 64"):
        panel(module(), cells=cells)


@pytest.mark.parametrize("grid", [np.ones(3), np.ones((0, 2)), np.ones((1, 1, 1))])
def test_an_array_that_is_no_grid_is_refused(grid):
    with pytest.raises(ShapeError, match="expected a grid"):
        panel(grid)


# Names


@pytest.mark.parametrize("name", ["$\\frac{", "a$b", "\\$x$", "x\ny", "\x1b[31m", "日本", "\u202e"])
def test_any_name_is_drawn_as_it_is_written(name):
    text = literal(name)
    figure = Figure()
    label = figure.text(0, 0, text)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        laid_out(figure)  # mathtext would raise, a missing glyph would warn
    assert label._preprocess_math(text)[1] is False
    assert text.replace(r"\$", "$").isprintable()


@given(st.text(max_size=200), st.integers(6, 80))
def test_a_name_is_cut_to_its_length_and_never_inside_an_escape(name, most):
    shown = literal(name, most).replace(r"\$", "$")
    # One escape of ten characters (\U0001f600) at either side may stay whole.
    assert len(shown) <= max(most, 2 * 10 + 1)
    font = mpl.font_manager.get_font(findfont(FontProperties()))
    assert all(font.get_char_index(ord(c)) for c in shown)


def test_long_names_keep_their_ends():
    assert shorten("abcdefghij", 5) == "ab…ij"
    assert shorten("abc", 3) == "abc"
    assert len(shorten("x" * 1000, 20)) == 20


def test_module_paths_are_split_at_their_first_number():
    assert place("a.layers.10.mlp.experts.7.w1").layer == 10
    assert place("lm_head").layer is None
    assert place("layer.²").layer is None
    assert place("x.99999999999999999999.q").layer is None
    assert module_label("model.layers.12.self_attn.q_proj") == "layer 12 q_proj"
    assert module_label("lm_head") == "lm_head"
    assert kind_labels(["a.q", "b.q", "v"]) == {"a.q": "a.q", "b.q": "b.q", "v": "v"}
    assert kind_labels(["dense", "out.dense"]) == {"dense": "dense", "out.dense": "out.dense"}


def test_the_middle_layer_is_the_papers():
    """The paper's 48th of 96, counted from one."""
    many = [f"h.{k}.attn.{w}_proj" for k in range(96) for w in "qkv"]
    assert default_modules(many) == ("h.47.attn.q_proj", "h.47.attn.v_proj")
    assert default_modules(["h.0.c_attn", "h.1.c_attn", "h.2.c_attn"]) == ("h.1.c_attn",)
    assert default_modules(["up", "down", "gate"]) == ("up", "down")


# Figures


def test_figure3_is_two_grids_then_their_zooms_on_one_scale():
    similarity = compared()
    figure = figure3(similarity)
    query, value, *zooms = panels(figure)
    for ax, kind in ((query, "query"), (value, "value")):
        assert ax.get_title() == f"layer 2 {kind}, d = 384".replace("d = ", "d\xa0=\xa0")
        expected = similarity[f"encoder.layer.2.attention.self.{kind}"].phi
        assert_array_equal(drawn(ax), expected)
    for ax, whole in zip(zooms, (query, value), strict=True):
        assert ax.get_title().startswith("zoom: layer 2")
        assert_array_equal(drawn(ax).data, drawn(whole).data[:8, :8])
        assert_array_equal(np.ma.getmaskarray(drawn(ax)), ~np.tri(8, dtype=bool))
    assert {ax.images[0].get_clim() for ax in panels(figure)} == {(0, 1)}
    assert {ax.images[0].get_cmap().name for ax in panels(figure)} == {"viridis"}
    assert len(figure.axes) == 5  # and one colour bar
    assert all(ax.get_ylim()[0] > ax.get_ylim()[1] for ax in panels(figure))
    assert " ".join(figure.legends[0].get_title().get_text().split()).startswith(ORIGIN)
    assert (query.get_ylabel(), query.get_xlabel()) == ("i (r8)", "j (r64)")
    assert "side A: right-singular vectors of A" in figure.get_suptitle()


def test_the_legend_names_the_level_and_stripes_only_where_they_are():
    def said(figure):
        return [t.get_text() for t in figure.legends[0].get_texts()]

    assert said(figure3(compared(), contour=0.02)) == [
        "outline: p ≤ 0.02 against random subspaces, each cell by itself, uncorrected"
    ]
    assert said(figure3(compared(), contour=None)) == []
    sure = {k: replace(m, pvalue=0 * m.pvalue) for k, m in compared().items()}
    (whole,) = said(figure3(replace(compared(), modules=sure)))
    assert " ".join(whole.split()).endswith("uncorrected; around a panel: all its cells")
    assert "undefined" in said(figure3(compared(real=(5, 5))))[1]


@pytest.mark.parametrize(
    ("phi", "end"),
    [
        (0.11, 0.15),
        (0.25, 0.25),
        (0.26, 0.3),
        (0.5, 0.5),
        (0.51, 1.0),
        (0.0, 1.0),
        (0.0156, 0.02),
        (0.003, 0.003),
        (-0.11, 0.15),
    ],
)
def test_the_colours_end_at_a_round_number_above_what_is_faint(phi, end):
    figure = Figure()
    axes = [figure.add_subplot(1, 2, k) for k in (1, 2)]
    images = [
        ax.imshow(np.ma.masked_invalid([[x, np.nan]]))
        for ax, x in zip(axes, (phi, 0.0), strict=True)
    ]
    assert colour_end(images) == end


def random_pairs(modules=BERT, r_a=64, r_b=64, d=384):
    """A comparison in which every phi is what chance gives."""
    made = {}
    for k, name in enumerate(modules):
        m = module(name, r_a, r_b, d=d, seed=k)
        made[name] = replace(m, phi=m.null_mean.copy(), pvalue=np.full(m.phi.shape, 0.5))
    return Similarity(adapters=("r64", "r64-seed1"), side="A", modules=made, level=0.01)


def note(figure):
    return " ".join(figure.legends[0].get_title().get_text().split())


@pytest.mark.parametrize("draw", [figure3, layers_figure])
@pytest.mark.parametrize(("d", "end"), [(384, 0.2), (4096, 0.02)])
def test_colours_that_do_not_end_at_one_are_said_to(draw, d, end):
    figure = draw(random_pairs(BERT[:2], d=d))
    assert {ax.images[0].get_clim() for ax in panels(figure)} == {(0, end)}
    assert note(figure).endswith(f"The colours end at {end}, not at 1.")
    bar = next(ax for ax in figure.axes if "φ" in ax.get_ylabel())
    assert bar.get_ylabel() == f"φ(i, j), up to {end}"
    whole = draw(compared(BERT[:2]))
    assert {ax.images[0].get_clim() for ax in panels(whole)} == {(0, 1)}
    assert "colours end" not in note(whole)


def test_colours_above_chance_end_alike_on_both_sides():
    flat = random_pairs(BERT[:2])
    below = {k: replace(m, phi=m.null_mean - 0.039) for k, m in flat.items()}
    figure = figure3(replace(flat, modules=below), above_chance=True)
    assert {ax.images[0].get_clim() for ax in panels(figure)} == {(-0.04, 0.04)}
    assert note(figure).endswith("The colours end at −0.04 and 0.04, not at −1 and 1.")


def test_one_column_of_a_page_has_two_panels_a_row():
    figure = figure3(compared(), width=3.4)
    assert [len({ax.get_position().x0 for ax in panels(figure)})] == [2]
    assert figure.get_figwidth() == 3.4


def test_one_module_by_name_and_above_chance():
    figure = figure3(compared(), modules=BERT[0], above_chance=True)
    whole, zoom = panels(figure)
    assert whole.images[0].get_clim() == zoom.images[0].get_clim() == (-1, 1)
    assert "chance" in figure.axes[-1].get_ylabel()


def test_control_and_initial_a_are_drawn_beside():
    control, initial = compared(BERT[:6], ("r8", "shuffled")), compared(names=("r8", "r64"))
    full = replace(compared(), control=control, initial=initial)
    figure = figure3(full)
    titles = [ax.get_title() for ax in panels(figure)]
    assert sum("control:" in t for t in titles) == 4
    assert panels(figure)[4].get_xlabel() == "j (shuffled)"
    assert len(panels(figure3(full, initial=True))) == 12
    missing = figure3(replace(full, control=compared(BERT[:2], ("r8", "shuffled"))))
    assert len(panels(missing)) == 4  # and words where the control has no such module
    words = [t.get_text() for ax in missing.axes for t in ax.texts]
    assert "not compared" in " ".join(" ".join(words).split())
    with pytest.raises(ArgumentError, match="initial A of both"):
        figure3(compared(), initial=True)


def test_figure4_adds_two_random_gaussians():
    seeds = compared(names=("r64", "r64-seed1"), r_a=64)
    random = module("random", 64, 64, seed=99)
    for given_random in (
        random,
        Similarity(adapters=("x", "y"), side="A", modules={"random": random}, level=0.01),
    ):
        ax = panels(figure4(seeds, given_random))
        assert len(ax) == 3
        assert_array_equal(drawn(ax[2]), random.phi)
        assert "random Gaussian" in " ".join(ax[2].get_title().split())
        assert ax[2].get_ylabel() == "i (Gaussian 1)"
    with pytest.raises(UnknownModuleError, match="random matrices"):
        figure4(seeds, Similarity(adapters=("x", "y"), side="A", modules={}, level=0.01))


@pytest.mark.parametrize(
    ("error", "match", "options"),
    [
        (UnknownModuleError, "no module 'nope'", {"modules": ["nope"]}),
        (ArgumentError, "1 to 2 modules, got 3", {"modules": BERT[:3]}),
        (ArgumentError, "1 to 2 modules, got 0", {"modules": []}),
        (ArgumentError, "3 to 40 inches", {"width": 1.0}),
        (ArgumentError, "3 to 40 inches", {"width": float("nan")}),
        (ArgumentError, "between 0 and 1", {"contour": 2}),
    ],
)
def test_what_figure3_refuses(error, match, options):
    with pytest.raises(error, match=match):
        figure3(compared(), **options)


def test_a_comparison_without_modules_is_refused():
    empty = Similarity(adapters=("a", "b"), side="A", modules={}, level=0.01)
    for draw in (figure3, layers_figure, lambda s: figure4(s, module())):
        with pytest.raises(UnknownModuleError, match="share none"):
            draw(empty)


@pytest.mark.parametrize("width", [3.4, 7.0])
@pytest.mark.parametrize("shape", [(1, 1), (8, 64), (64, 64), (1, 256)])
def test_no_label_is_clipped_or_too_small_in_print(width, shape):
    """Every text lies within the page and has 6 pt or more, with names of 60 characters."""
    names = (LONG, LONG.replace("r8", "r64"))
    figure = figure3(compared(BERT[:2], names, r_a=shape[0], r_b=shape[1]), width=width)
    assert_legible(figure)


def test_tick_labels_do_not_overlap():
    figure = figure3(compared(r_a=64, r_b=256, d=1024), width=3.4)
    laid_out(figure)
    for ax in panels(figure):
        boxes = [t.get_window_extent() for t in ax.get_xticklabels()]
        assert all(a.x1 < b.x0 for a, b in pairwise(boxes))
        boxes = [t.get_window_extent() for t in ax.get_yticklabels()]
        assert all(a.y0 > b.y1 - 2 for a, b in pairwise(boxes))


# Files


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf", "PNG"])
def test_the_same_figure_is_written_as_the_same_bytes(tmp_path, suffix):
    paths = [save(figure3(compared()), tmp_path / f"{k}.{suffix}") for k in range(2)]
    first, second = (p.read_bytes() for p in paths)
    assert first == second
    start = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[suffix.lower()]
    assert first.startswith(start)


def test_bytes_do_not_depend_on_the_process(tmp_path):
    """Matplotlib names a PDF's fonts and an SVG's elements by hashes and random salts."""
    code = (
        "import sys, numpy as np; from matplotlib.figure import Figure;"
        "from subspace.plots.heatmap import phi_heatmap; from subspace.plots.save import save;"
        "f = Figure(); phi_heatmap(np.array([[.1, np.nan], [.2, .3]]), ax=f.add_subplot());"
        "[save(f, f'{sys.argv[1]}.{s}') for s in ('png', 'svg', 'pdf')]"
    )
    for seed in ("1", "2"):
        subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / seed)],
            check=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
            cwd=ROOT,
        )
    for suffix in ("png", "svg", "pdf"):
        one, two = (tmp_path / f"{seed}.{suffix}" for seed in "12")
        assert one.read_bytes() == two.read_bytes(), suffix


def test_users_settings_neither_change_the_file_nor_are_changed(tmp_path):
    plain = save(figure3(compared()), tmp_path / "a.svg").read_bytes()
    with mpl.rc_context({"savefig.bbox": "tight", "svg.fonttype": "none"}):
        again = save(figure3(compared()), tmp_path / "b.svg").read_bytes()
        assert mpl.rcParams["svg.fonttype"] == "none"
    assert plain == again


def test_a_pdf_embeds_truetype(tmp_path):
    data = save(figure3(compared()), tmp_path / "a.pdf").read_bytes()
    assert b"/Type42" in data or b"/CIDFontType2" in data
    assert b"/Type3" not in data
    assert b"CreationDate" not in data


def test_dpi_settles_the_pixels_of_a_png(tmp_path):
    data = save(figure3(compared()), tmp_path / "a.png", dpi=100).read_bytes()
    assert int.from_bytes(data[16:20], "big") == 700


@pytest.mark.parametrize("name", ["a.jpg", "a", ".png", "a.png.txt"])
def test_other_suffixes_are_refused(tmp_path, name):
    with pytest.raises(ArgumentError, match=r"\.png, \.svg or \.pdf"):
        save(Figure(), tmp_path / name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("dpi", [0, -1, float("nan"), 1e9])
def test_dpi_that_no_picture_has_is_refused(tmp_path, dpi):
    with pytest.raises(ArgumentError, match="expected 10 to 2400"):
        save(Figure(), tmp_path / "a.png", dpi=dpi)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(MissingFileError, match="there is no folder"):
        save(Figure(), tmp_path / "no" / "a.png")


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(b"old")

    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", fail)
        with pytest.raises(ArgumentError, match="No space left"):
            save(Figure(), path)
    assert path.read_bytes() == b"old"
    figure = Figure()
    monkeypatch.setattr(figure, "savefig", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        save(figure, path)
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]
    assert path.read_bytes() == b"old"


def test_a_folder_in_the_place_of_the_file_is_refused(tmp_path):
    (tmp_path / "a.png").mkdir()
    with pytest.raises(ArgumentError, match="cannot write"):
        save(Figure(), tmp_path / "a.png")
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_plots_use_no_pyplot_and_no_seaborn():
    """Neither global state nor the seconds that importing seaborn costs."""
    code = (
        "import sys, subspace.plots.figure3, subspace.plots.figure4, subspace.plots.layers,"
        "subspace.plots.save; print([m for m in ('matplotlib.pyplot', 'seaborn', 'pandas',"
        "'torch') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.stdout.strip() == "[]"


def test_every_figure_has_its_row_and_its_place_in_the_api():
    """As CONTRIBUTING.md asks: its line in the stub, which gives the name, and in docs/api.md."""
    stub = (ROOT / "subspace/plots/__init__.pyi").read_text()
    api = (ROOT / "docs/api.md").read_text()
    rows = re.findall(r"^from \.([\w.]+) import (\w+) as \2$", stub, flags=re.MULTILINE)
    assert sorted(name for _, name in rows) == plots.__all__
    for file, name in rows:
        assert getattr(plots, name).__module__ == f"subspace.plots.{file}"
        assert f"::: subspace.plots.{file}.{name}\n" in api
    asked = (ROOT / "CONTRIBUTING.md").read_text()
    for word in ("`subspace/plots/__init__.pyi`", "`docs/api.md`"):
        assert word in asked
    drawn = {f"{f.stem}.{n}" for f in (ROOT / "subspace/plots").glob("*.py") for n in re.findall(
        r"^def ((?:\w+_)?figure\d?)\(", f.read_text(), re.MULTILINE)}  # fmt: skip
    assert drawn <= {f"{file}.{name}" for file, name in rows}
