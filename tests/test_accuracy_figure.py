"""What the figure of Table 6 draws, read from its Axes: never from pixels."""

import math
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.colors import to_hex
from numpy.testing import assert_allclose, assert_array_equal

from subspace.errors import ArgumentError
from subspace.plots.accuracy.figure import accuracy, accuracy_figure
from subspace.results import NearlyEnough, SweepRow, Table6
from subspace.training.sweep.summary import find_nearly_enough
from tests.support.axes import across, assert_apart, axes, legend, title, words
from tests.support.results import HOSTILE, LONG
from tests.support.samples import ROOT

RANKS = (1, 2, 4, 8, 64)
SETS = ("query", "query+value", "query+key+value+attention.output.dense")
BLUE, ORANGE, GREEN = "#0072b2", "#d55e00", "#009e73"


def row(
    rank=8, *test, data="icd10", targets="query", method="lora", train=0.9, before=0.05, **more
):
    test = test or (0.70, 0.72, 0.74)
    n = len(test)
    lora = method == "lora"
    options = {"alpha": 16.0 if lora else None, "learning_rate": 4e-3, "parameters": 1000} | more
    return SweepRow(
        data=data, method=method, targets=targets if lora else "", rank=rank if lora else None,
        seeds=tuple(range(n)), test=test, validation=(0.5,) * n,
        train=tuple(train + 0.01 * k for k in range(n)), before=(before,) * n, **options,
    )  # fmt: skip


def failed(rank, **more):
    gone = {"seeds": (), "test": (), "validation": (), "train": (), "before": ()}
    return replace(row(rank, **more), **gone, failed=("r2-seed0: it broke",))


def reference(method, *test, **more):
    return row(None, *(test or (0.76, 0.78)), method=method, **more)


def sweep(data=("icd10",), sets=SETS, ranks=RANKS, seeds=3, references=("full", "head")):
    """Accuracy rises by a point a set and falls from rank 8 on; training accuracy rises."""
    rng = np.random.default_rng(0)
    rows = []
    for d, name in enumerate(data):
        for k, targets in enumerate(sets):
            for rank in ranks:
                level = 0.70 + 0.05 * d + 0.01 * k - 0.002 * abs(math.log2(rank / 8))
                test = (level + rng.normal(0, 0.004, seeds)).tolist()
                train = 0.8 + 0.05 * d + 0.01 * k + 0.01 * math.log2(rank)
                rows.append(row(rank, *test, data=name, targets=targets, train=train))
        for n, method in enumerate(references):
            test = (0.77 + 0.05 * d - 0.1 * n + rng.normal(0, 0.004, seeds)).tolist()
            rows.append(reference(method, *test, data=name))
    found = [
        find_nearly_enough([r for r in rows if (r.data, r.targets) == (name, targets)])
        for name in data
        for targets in sets
    ]
    return Table6(tuple(rows), tuple(found))


def table6(*rows, found=()):
    return Table6(rows, found)


def lines(ax, label):
    return [line for line in ax.lines if line.get_label() == label]


def bars(ax):
    """(x, low, high) of every error bar."""
    found = []
    for container in ax.containers:
        assert container.get_label() == "_bars"
        for collection in container.lines[2]:
            found += [(x, low, high) for (x, low), (_, high) in collection.get_segments()]
    return found


def named(ax):
    """Names at the right, with their height."""
    return {t.get_text(): t.get_position()[1] for t in ax.texts}


def note(figure):
    return figure.legends[0].get_title().get_text().replace("\N{NO-BREAK SPACE}", " ")


# One panel


def test_the_line_is_the_mean_over_seeds_in_percent():
    rows = [row(8, 0.70, 0.72, 0.74), row(1, 0.60, 0.62), row(64, 0.5, 0.5)]
    ax = accuracy(rows, ax=axes())
    (line,) = lines(ax, "_test")
    assert_allclose(line.get_xydata(), [[1, 61], [8, 72], [64, 50]])
    assert line.get_linestyle() == "-"
    assert line.get_marker() == "o"
    assert to_hex(line.get_color()) == to_hex(line.get_markerfacecolor()) == BLUE


def test_bars_are_one_standard_deviation_to_both_sides():
    ax = accuracy([row(1, 0.60, 0.62, 0.64), row(8, 0.70, 0.80)], ax=axes())
    half = 10 / math.sqrt(2)
    assert_allclose(bars(ax), [(1, 60, 64), (8, 75 - half, 75 + half)])


def test_training_is_dashed_and_hollow_in_the_same_colour():
    ax = accuracy([row(1, 0.6, 0.7, train=0.8), row(2, 0.6, 0.7, train=0.9)], ax=axes())
    (line,) = lines(ax, "_train")
    assert_allclose(line.get_xydata(), [[1, 80.5], [2, 90.5]])
    assert line.get_linestyle() == "--"
    assert line.get_markerfacecolor() == "white"
    assert to_hex(line.get_color()) == BLUE
    assert line.get_marker() == "o"


def test_every_seed_is_a_faint_dot_beside_its_mean():
    ax = accuracy([row(1, 0.6), row(8, 0.70, 0.72, 0.74)], ax=axes())
    (dots,) = lines(ax, "_seeds")
    assert_allclose(dots.get_ydata(), [70, 72, 74])
    assert len(set(dots.get_xdata())) == 1
    assert 8 < dots.get_xdata()[0] < 8 * 2**0.25
    assert dots.get_linestyle() == "None"
    assert dots.get_alpha() < 1


def test_many_sets_have_no_dots():
    rows = [row(r, targets=t) for t in "abcd" for r in (1, 2)]
    assert not lines(accuracy(rows, ax=axes()), "_seeds")
    assert len(lines(accuracy(rows[:6], ax=axes()), "_seeds")) == 3
    assert "test texts, each seed" not in legend(accuracy_figure(table6(*rows)))


@pytest.mark.parametrize("ranks", [RANKS, (8,), (3, 5, 6), tuple(range(1, 17)), (1, 1024)])
def test_ticks_stand_at_the_ranks_that_were_run_and_nowhere_else(ranks):
    ax = accuracy([row(r) for r in ranks], ax=axes())
    assert ax.get_xscale() == "log"
    assert_array_equal(ax.get_xticks(), ranks)
    assert not len(ax.get_xticks(minor=True))
    assert {name for name in across(ax) if name} <= set(map(str, ranks))
    low, high = ax.get_xlim()
    assert low < ranks[0]
    assert ranks[-1] < high


def test_ranks_that_stand_close_are_not_all_named():
    ranks = [row(r) for r in range(1, 17)]
    wide, narrow = (
        [name for name in across(accuracy(ranks, ax=axes(), inches=(x, 2.0))) if name]
        for x in (6.0, 2.0)
    )
    assert wide[:12] == [str(r) for r in range(1, 13)]
    assert narrow[:4] == ["1", "2", "3", "4"]
    assert len(narrow) < len(wide) < 16


def test_sets_stand_side_by_side_in_colours_and_shapes_of_their_own():
    ax = accuracy([row(r, targets=t) for t in SETS for r in RANKS], ax=axes())
    one, two, three = lines(ax, "_test")
    assert [to_hex(line.get_color()) for line in (one, two, three)] == [BLUE, ORANGE, GREEN]
    assert len({line.get_marker() for line in (one, two, three)}) == 3
    assert_allclose(two.get_xdata(), RANKS)
    ratio = three.get_xdata() / two.get_xdata()
    assert_allclose(ratio, two.get_xdata() / one.get_xdata())
    assert_allclose(ratio, ratio[0])
    assert 1 < ratio[0] < 2 ** (1 / 6)


@pytest.mark.parametrize("ranks", [(1, 2, 4), (8, 9, 10), (63, 64)])
def test_no_set_reaches_the_next_rank(ranks):
    ax = accuracy([row(r, targets=t) for t in "abcdefg" for r in ranks], ax=axes())
    places = np.array([line.get_xdata() for line in lines(ax, "_test")])
    assert (np.diff(places.ravel(order="F")) > 0).all()


def test_colours_belong_to_a_set_in_every_panel():
    ax = accuracy([row(1, targets="query+value")], ax=axes(), sets=SETS)
    assert to_hex(lines(ax, "_test")[0].get_color()) == ORANGE
    table = sweep(("a", "b"))
    table = table6(*(r for r in table if (r.data, r.targets) != ("b", "query")))
    one, other = (
        [to_hex(line.get_color()) for line in lines(ax, "_test")]
        for ax in accuracy_figure(table).axes
    )
    assert one == [BLUE, ORANGE, GREEN]
    assert other == [ORANGE, GREEN]


def test_the_rank_that_is_nearly_enough_is_ringed():
    found = [
        NearlyEnough(data="icd10", targets="query", rank=2, best=8, behind=0.001, error=0.002),
        NearlyEnough(data="icd10", targets="query+value", rank=None, best=8, behind=0.0, error=0.0),
        NearlyEnough(data="snli", targets="query", rank=1, best=8, behind=0.001, error=0.002),
    ]
    rows = [row(r, 0.7 + 0.001 * r, targets=t) for t in SETS[:2] for r in (1, 2, 8)]
    ax = accuracy(rows, ax=axes(), nearly_enough=found)
    (ring,) = lines(ax, "_enough")
    assert_allclose(ring.get_xydata(), [lines(ax, "_test")[0].get_xydata()[1]])
    assert to_hex(ring.get_color()) == BLUE
    assert ring.get_markerfacecolor() == "none"
    assert ring.get_markersize() > 2 * lines(ax, "_test")[0].get_markersize()


def test_a_ring_without_its_run_is_not_drawn():
    found = [
        NearlyEnough(data="icd10", targets="query", rank=r, best=8, behind=0.0, error=0.0)
        for r in (2, 4)
    ]
    for one in found:
        ax = accuracy([row(1), failed(2), row(8)], ax=axes(), nearly_enough=[one])
        assert not lines(ax, "_enough")


def test_references_are_lines_with_their_names_at_the_right():
    rows = [row(1, 0.6, 0.7), row(8, 0.7, 0.8), reference("full", 0.74, 0.76)]
    ax = accuracy([*rows, reference("head", 0.55)], ax=axes())
    (full,), (head,) = lines(ax, "_full"), lines(ax, "_head")
    assert_allclose(full.get_ydata(), 75)
    assert_allclose(head.get_ydata(), 55)
    assert_array_equal(full.get_xdata(), [0, 1])  # the whole width
    assert full.get_linestyle() != head.get_linestyle()
    assert full.get_color() == head.get_color() not in (BLUE, ORANGE, GREEN)
    assert named(ax) == {"full": pytest.approx(75), "head": pytest.approx(55)}
    assert all(t.get_position()[0] > 1 for t in ax.texts)
    assert ax.get_ylim()[0] < 55


def test_a_references_seeds_are_a_band():
    ax = accuracy([row(1), reference("full", 0.70, 0.80), reference("head", 0.71)], ax=axes())
    (band,) = [patch for patch in ax.patches if patch.get_label() == "_spread"]
    half = 10 / math.sqrt(2)
    assert_allclose((band.get_y(), band.get_height()), (75 - half, 2 * half))


def test_names_of_references_that_lie_together_are_pushed_apart():
    rows = [row(r, 0.6, 0.8) for r in RANKS]
    ax = accuracy([*rows, reference("full", 0.701), reference("head", 0.7)], ax=axes())
    names = named(ax)
    apart = (names["full"] - names["head"]) / np.ptp(ax.get_ylim()) * 2.3 * 72
    assert 6.5 < apart < 10  # points
    assert_allclose(np.mean(list(names.values())), 70.05)


def test_a_reference_that_would_crush_the_curves_is_said_in_place_of_drawn():
    rows = [row(r, 0.70, 0.72, train=0.75) for r in RANKS]
    figure = accuracy_figure(table6(*rows, reference("head", 0.4), reference("full", 0.76)))
    (ax,) = figure.axes
    assert not lines(ax, "_head")
    assert lines(ax, "_full")
    assert ax.get_ylim()[0] > 65
    assert "off the scale: head 40.0 %, untrained 5.0 %" in note(figure)
    assert not any(label.startswith("head") for label in legend(figure))


def test_the_untrained_model_is_drawn_where_the_scale_reaches_it():
    rows = [row(1, 0.2, 0.3, before=0.25), row(2, 0.6, 0.7, before=0.27)]
    figure = accuracy_figure(table6(*rows))
    (line,) = lines(figure.axes[0], "_untrained")
    assert_allclose(line.get_ydata(), 26)
    assert named(figure.axes[0]) == {"untrained": pytest.approx(26)}
    assert "untrained: under the first, random head" in legend(figure)
    assert not note(figure)
    figure = accuracy_figure(table6(*(replace(r, before=(0.05, 0.07)) for r in rows)))
    assert not lines(figure.axes[0], "_untrained")
    assert note(figure) == "off the scale: untrained 6.0 %"


def test_the_scale_holds_every_seed_bar_and_training_accuracy():
    ax = accuracy([row(1, 0.4, 0.6, train=0.95), row(8, 0.7, 0.7)], ax=axes())
    low, high = ax.get_ylim()
    assert low < 50 - 10 * math.sqrt(2) < 96 < high


def test_equal_accuracies_still_have_a_scale():
    ax = accuracy([row(r, 1.0, 1.0, train=0.995) for r in RANKS], ax=axes())
    low, high = ax.get_ylim()
    assert low < 100 < high < 102
    assert max(ax.get_yticks()) == 100
    assert len(ax.get_yticks()) > 2


# What is missing


@pytest.mark.parametrize(
    ("middle", "said"),
    [((failed(4),), "failed: r = 4"), ((), "not run: r = 4")],
)
def test_a_cell_without_a_run_is_a_gap_and_said(middle, said):
    rows = [row(1), row(2), *middle, row(8)]
    other = [row(r, targets="value") for r in (1, 2, 4, 8)]
    figure = accuracy_figure(table6(*rows, *other))
    (ax,) = figure.axes
    for label in ("_test", "_train"):
        one, whole = lines(ax, label)
        assert_array_equal(np.isnan(one.get_ydata()), [False, False, True, False])
        assert not np.isnan(whole.get_ydata()).any()
    assert len(bars(ax)) == 3 + 4
    assert f"query: {said}" in note(figure)
    assert "value:" not in note(figure)
    assert_array_equal(ax.get_xticks(), [1, 2, 4, 8])


def test_a_rank_that_lost_some_seeds_is_drawn_of_the_others_and_said():
    lost = replace(row(8, 0.7, 0.72), failed=("r8-seed2: it broke",))
    figure = accuracy_figure(table6(row(1), lost))
    assert_allclose(lines(figure.axes[0], "_test")[0].get_ydata(), [72, 71])
    assert "query: a run failed, 2 seeds left: r = 8" in note(figure)
    assert "2 to 3 seeds" in title(figure)


def test_a_reference_that_failed_is_said():
    lost = replace(reference("full"), test=(), before=(), failed=("full-seed0: it broke",))
    figure = accuracy_figure(table6(row(1), lost))
    assert "full: failed" in note(figure)
    partly = replace(reference("full"), failed=("full-seed2: it broke",))
    assert "full: a run failed, 2 seeds left" in note(accuracy_figure(table6(row(1), partly)))
    assert not lines(figure.axes[0], "_full")


def test_where_nothing_ended_the_panel_says_so():
    table = table6(*(failed(r) for r in RANKS), row(1, data="snli"), row(2, data="snli"))
    figure = accuracy_figure(table)
    assert "no run ended" in words(figure)
    assert "icd10, query: failed: r = 1, 2, 4, 8, 64" in note(figure)
    assert_apart(figure)
    assert_apart(accuracy_figure(table6(failed(8))))


def test_references_alone_are_drawn():
    figure = accuracy_figure(table6(reference("full"), reference("head")))
    (ax,) = figure.axes
    assert len(ax.lines) == 2
    assert not len(ax.get_xticks())
    assert "no LoRA run" in title(figure)
    assert_apart(figure)


@pytest.mark.parametrize("train", [(), (math.nan, math.nan, math.nan)])
def test_without_training_accuracy_there_is_no_second_line(train):
    figure = accuracy_figure(table6(*(replace(row(r), train=train) for r in RANKS)))
    (ax,) = figure.axes
    assert not lines(ax, "_train")
    assert lines(ax, "_test")
    assert not any("training" in label for label in legend(figure))
    assert all(map(math.isfinite, ax.get_ylim()))


def test_one_seed_has_no_bars_and_says_so():
    table = sweep(seeds=1)
    figure = accuracy_figure(table)
    (ax,) = figure.axes
    assert all(found.rank is None for found in table.nearly_enough)
    assert not bars(ax)
    assert not lines(ax, "_seeds")
    assert not lines(ax, "_enough")
    assert title(figure).endswith("\none seed")
    assert "One seed: no bars, and it does not tell which rank is nearly enough." in note(figure)
    assert {"test texts", "training texts"} < set(legend(figure))
    assert not any("nearly enough" in label for label in legend(figure))


def test_ranks_of_one_seed_beside_others_are_said():
    rows = [*(row(r) for r in (1, 2)), row(8, 0.8)]
    rows += [row(r, 0.8, targets="all-linear") for r in (1, 2, 8)]
    figure = accuracy_figure(table6(*rows))
    assert note(figure).splitlines()[:2] == [
        "query: one seed, no bar: r = 8",
        "all-linear: one seed, no bar: r = 1, 2, 8",
    ]
    assert "1 to 3 seeds" in title(figure)
    assert len(bars(figure.axes[0])) == 2


def test_one_rank_is_points():
    figure = accuracy_figure(sweep(ranks=(8,)))
    (ax,) = figure.axes
    assert [len(line.get_xdata()) for line in lines(ax, "_test")] == [1, 1, 1]
    assert_array_equal(ax.get_xticks(), [8])
    assert_apart(figure)


def test_many_notes_are_cut_and_counted():
    rows = [row(r, targets=t, data=d) for d in "wxyz" for t in "abc" for r in (1, 2)]
    rows += [row(4, targets="d", data=d) for d in "wxyz"]
    said = note(accuracy_figure(table6(*rows))).splitlines()
    assert len(said) == 8
    assert said[0] == "w, a: not run: r = 4"
    assert said[-1] == f"and {4 * (4 + 1) - 7} more such lines"


# The figure


def test_alpha_is_in_the_title():
    def head(*rows):
        return title(accuracy_figure(table6(*rows))).splitlines()[0]

    first = "Accuracy over rank: test against training texts; "
    assert head(*(row(r) for r in RANKS)) == f"{first}alpha 16 at every rank"
    assert head(*(row(r, alpha=2.0 * r) for r in RANKS)) == f"{first}alpha = 2r"
    assert head(row(1, alpha=8.0), row(2, alpha=8.0), row(8, alpha=32.0)) == f"{first}alpha 8 to 32"


def test_the_legend_explains_all_that_is_drawn():
    figure = accuracy_figure(sweep())
    labels = [label.replace("\n", " ") for label in legend(figure)]
    assert [label for label in labels if label] == [
        "query",
        "query, value",
        "query, key, value, attention.output.dense",
        "test texts, mean ± one standard deviation",
        "training texts, mean",
        "test texts, each seed",
        "nearly enough: the smallest rank whose mean is within one standard error of the best, "
        "paired over seeds",
        "full: all weights trained",
        "head: the classifier alone trained",
        "± one standard deviation of these",
    ]
    assert "3 seeds" in title(figure)


def test_texts_written_exactly_are_not_called_accuracy():
    table = sweep(("icd10", "sql"))
    exact = [replace(r, metric="exact match") if r.data == "sql" else r for r in table]
    figure = accuracy_figure(replace(table, rows=tuple(exact)))
    assert [ax.get_ylabel() for ax in figure.axes] == ["accuracy (%)", "exact matches (%)"]
    assert title(figure).startswith("Accuracy or exact matches over rank")
    alone = accuracy_figure(replace(table, rows=tuple(r for r in exact if r.data == "sql")))
    assert title(alone).startswith("Exact matches over rank")


def test_a_panel_is_a_data_set_on_its_own_scale():
    table = sweep(("icd10", "snli", "wikisql-agg"))
    figure = accuracy_figure(table)
    assert [ax.get_title() for ax in figure.axes] == ["icd10", "snli", "wikisql-agg"]
    assert [ax.get_ylabel() for ax in figure.axes] == ["accuracy (%)", "", "accuracy (%)"]
    assert [ax.get_xlabel() for ax in figure.axes] == ["", "rank r", "rank r"]
    assert len({ax.get_ylim() for ax in figure.axes}) == 3
    for ax in figure.axes:
        rows = [r for r in table if r.data == ax.get_title() and r.targets == "query"]
        assert_allclose(lines(ax, "_test")[0].get_ydata(), [100 * r.mean for r in rows])
        assert len(lines(ax, "_enough")) == 3


@pytest.mark.parametrize("width", [3.3, 7.0])
@pytest.mark.parametrize(
    ("data", "sets", "ranks", "seeds"),
    [
        (("icd10",), SETS[:1], RANKS, 3),
        (("icd10", "icd10-pairs"), SETS, RANKS, 3),
        (("a", "b", "c", "d"), tuple("vwxyz"), tuple(range(1, 17)), 1),
        (("a",), tuple("tuvwxyz"), (8, 64, 256, 1024), 2),
    ],
)
def test_figures_are_legible(data, sets, ranks, seeds, width):
    figure = accuracy_figure(sweep(data, sets, ranks, seeds), width=width)
    assert figure.get_figwidth() == width
    assert figure.get_figheight() < 12
    assert_apart(figure)


@pytest.mark.parametrize("width", [3.0, 7.0, 12.0])
def test_hostile_and_long_names_are_drawn_as_they_are_written(width):
    sets = (*HOSTILE, "+".join(["gate_proj", LONG]))
    table = sweep((LONG, "$\\frac", "日本\x1b[31m"), sets, (1, 2))
    gaps = [r for r in table if not (r.rank == 2 and r.targets in HOSTILE[:3])]
    figure = accuracy_figure(table6(*gaps), width=width)
    assert_apart(figure)
    assert "\\$\\frac" in {ax.get_title() for ax in figure.axes}
    assert "\x1b" not in "".join(words(figure))
    assert all(not t.get_usetex() for t in [*figure.legends[0].get_texts(), *figure.axes[0].texts])


@pytest.mark.parametrize(
    ("match", "call"),
    [
        ("1 to 4 data sets, got 0", lambda: accuracy_figure(table6())),
        ("1 to 4 data sets, got 5; draw a Table6", lambda: accuracy_figure(sweep(tuple("abcde")))),
        ("1 to 7 target sets, got 8", lambda: accuracy_figure(sweep(sets=tuple("abcdefgh")))),
        ("1 to 7 target sets, got 8",
         lambda: accuracy([row()], ax=axes(), sets=tuple("abcdefg"))),
        ("3 to 40 inches", lambda: accuracy_figure(sweep(), width=2.0)),
        ("3 to 40 inches", lambda: accuracy_figure(sweep(), width=math.nan)),
        ("of one data set, got 2", lambda: accuracy([row(), row(data="b")], ax=axes())),
        ("of one data set, got 0", lambda: accuracy([], ax=axes())),
        ("two rows of 'icd10' are of query, rank 8",
         lambda: accuracy_figure(table6(row(), row()))),
        ("two rows of 'icd10' are of full, rank None: data sets of one name",
         lambda: accuracy([reference("full"), reference("full")], ax=axes())),
    ],
)  # fmt: skip
def test_what_is_refused(match, call):
    with pytest.raises(ArgumentError, match=match):
        call()


def test_the_axes_are_returned():
    one, other = axes(), axes()
    assert accuracy([row()], ax=one) is one
    assert accuracy([failed(8)], ax=other) is other


def test_the_figure_uses_no_pyplot():
    code = (
        "import sys, subspace.plots.accuracy.figure;"
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
