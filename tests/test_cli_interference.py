"""``subspace interference``: tables, JSON, weights, figures, and what bad input gets."""

import csv
import io
import json

import numpy as np
import pytest
from matplotlib.colors import to_hex

from subspace import interference, load
from subspace.errors import ArgumentError, UnknownModuleError
from subspace.plots.interference_map import interference_figure, interference_map
from subspace.plots.parts.cells import UNDEFINED
from tests.support.axes import assert_apart
from tests.support.folders import agreeing_folder
from tests.support.verbs import modules_after, refused, run, run_cli

MODULES = ("enc.0.query", "enc.0.value", "enc.1.query", "enc.1.value")


@pytest.fixture
def runs(tmp_path):
    return [agreeing_folder(tmp_path / f"seed{n}", seed=n, modules=MODULES) for n in range(3)]


def strictly(done):
    def refuse(constant):
        raise AssertionError(constant)

    assert done.exit_code == 0, done.output
    return json.loads(done.stdout, parse_constant=refuse)


def test_two_adapters_have_a_line_a_module_and_one_for_the_whole(runs):
    done = run("interference", *runs[:2])
    lines = done.output.splitlines()
    assert lines[0] == (
        "interference in seed0 + seed1: what a merge by weighted sum of delta W would do"
    )
    assert lines[1] == "modules of enc"
    assert lines[2].split()[:5] == ["module", "cos", "null", "std", "p"]
    plain = strictly(run("interference", *runs[:2], "--json"))
    for line, m in zip(lines[4:8], plain["modules"], strict=True):
        pair = m["pairs"][0]
        words = line.split()
        assert m["module"] == f"enc.{words[0]}"
        assert words[1] == f"{pair['cosine']:.3f}*"
        assert words[2] == f"±{pair['null_std']:.2g}"
        assert words[-1] == f"{m['energy']:.3f}"
    assert lines[8].split()[:3] == ["whole", "model", f"{plain['pairs'][0]['cosine']:.3f}"]
    assert "'seed0' and 'seed1' add up" in done.output
    assert "In 4 of 4 modules the two significantly point the same way" in done.output


def test_weights_reach_the_sum_and_a_negative_one_the_cosines(runs):
    plain = strictly(run("interference", *runs[:2], "--weights", "1,-1", "--json"))
    plus = strictly(run("interference", *runs[:2], "--json"))
    assert plain["weights"] == [1.0, -1.0]
    assert plain["pairs"][0]["cosine"] == -plus["pairs"][0]["cosine"]
    assert plain["energy"] + plus["energy"] == pytest.approx(2)
    text = run("interference", *runs[:2], "--weights", "-1,.5").output
    assert text.startswith("interference in -1 x seed0 + 0.5 x seed1")
    assert "partly cancel" in text


def test_three_adapters_have_a_line_a_pair_and_the_modules_that_cancel_most(runs):
    output = run("interference", *runs, "--weights", "1,1,-1").output
    lines = output.splitlines()
    assert [line.split()[0:3:2] for line in lines[4:7]] == [
        ["seed0", "seed1"],
        ["seed0", "seed2"],
        ["seed1", "seed2"],
    ]
    assert lines[4].split()[-5:-2] == ["4", "4", "0"]  # modules, same, opposite
    assert lines[5].split()[-5:-2] == ["4", "0", "4"]
    assert "modules of lowest energy, 4 of 4" in output
    energies = [float(line.split()[1]) for line in lines[10:14]]
    assert energies == sorted(energies)
    assert "same: modules that are significant" in output
    each = run("interference", *runs, "--all").output
    assert sum(line.startswith(("0.", "1.")) for line in each.splitlines()) == 12


def test_csv_has_a_line_a_module_and_pair(runs):
    rows = list(csv.DictReader(io.StringIO(run("interference", *runs, "--csv").stdout)))
    plain = strictly(run("interference", *runs, "--json"))
    assert len(rows) == 12
    assert [row["module"] for row in rows[:3]] == ["enc.0.query"] * 3
    pair = plain["modules"][0]["pairs"][1]
    assert [rows[1]["a"], rows[1]["b"]] == pair["adapters"]
    assert float(rows[1]["cosine"]) == pair["cosine"]
    assert float(rows[1]["rows_phi"]) == pair["rows"]["phi"]


def test_untrained_is_null_in_json_empty_in_csv_and_a_dash(runs, tmp_path):
    nothing = agreeing_folder(tmp_path / "zero", change=lambda t: [v.fill(0) for v in t.values()])
    plain = strictly(run("interference", runs[0], nothing, "--json"))
    assert plain["kind"] == "interference"
    assert plain["modules"][0]["pairs"][0]["cosine"] is None
    assert plain["kept"][1] is None
    row = next(csv.DictReader(io.StringIO(run("interference", runs[0], nothing, "--csv").stdout)))
    assert (row["cosine"], row["finding"], row["rows_p"]) == ("", "", "")
    output = run("interference", runs[0], nothing).output
    assert "note: enc.0.query, enc.0.value: untrained: the update of zero" in output
    assert "note: only seed0 has enc.1.query, enc.1.value" in output


def test_tables_for_model_cards_and_papers(runs):
    lines = run("interference", *runs[:2], "--markdown").stdout.splitlines()
    assert lines[0].startswith("| module | cos | null std | p |")
    assert lines[2].startswith("| enc.0.query |")
    assert lines[-1].startswith("| whole model |")
    latex = run("interference", *runs, "--latex").stdout
    assert "seed0 + seed1 &" in latex


def test_a_figure_is_the_same_bytes_again_and_stdout_stays_clean(runs, tmp_path):
    out, again = tmp_path / "f.svg", tmp_path / "g.svg"
    strictly(run("interference", *runs, "--out", out, "--json"))
    assert run("interference", *runs, "--out", again).stderr == f"wrote {again}\n"
    assert out.read_bytes() == again.read_bytes()
    assert out.stat().st_size > 1000


def test_a_strangers_names_never_reach_the_terminal(tmp_path):
    evil = "a\x1b[31mRED\nlayer"
    paths = [agreeing_folder(tmp_path / f"s{n}", modules=(evil, "x.v"), seed=n) for n in range(3)]
    for option in ((), ("--all",), ("--csv",), ("--markdown",), ("--latex",), ("--json",)):
        for some in (paths, paths[:2]):
            done = run("interference", *some, *option)
            assert "\x1b" not in done.output


def test_bad_input_is_one_line(runs, tmp_path):
    out = ("--out", tmp_path / "f.png")
    refused(
        run("interference", runs[0], *out, code=2), tmp_path, "1 adapter was given", "two or more"
    )
    refused(
        run("interference", *runs, "--weights", "1,x,2", *out, code=2),
        tmp_path,
        "'1,x,2'",
        "0.5,0.5",
    )
    refused(
        run("interference", *runs, "--weights", "1,2", *out, code=2),
        tmp_path,
        "2 weights for 3 adapters",
    )
    refused(
        run("interference", *runs, "--weights", "1,0,2", *out, code=2),
        tmp_path,
        "'seed1' is 0",
        "leave",
    )
    refused(run("interference", *runs, "--json", "--csv", *out, code=2), tmp_path, "choose one")
    refused(run("interference", *runs, "--level", "0", *out, code=2), tmp_path, "probability")
    refused(
        run("interference", *runs, "--modules", "typo", *out, code=2),
        tmp_path,
        "'typo'",
        "enc.0.query",
    )
    refused(run("interference", runs[0], tmp_path / "nowhere", *out, code=2), tmp_path, "nowhere")
    other = agreeing_folder(tmp_path / "other", d=(30, 41))
    refused(
        run("interference", runs[0], other, *out, code=2),
        tmp_path,
        "30 x 40",
        "30 x 41",
        "same base model",
    )

    def spoil(tensors):
        tensors["base_model.model.enc.0.value.lora_B.weight"][1, 2] = np.nan

    bad = agreeing_folder(tmp_path / "bad", change=spoil)
    words = ("entries of B", "enc.0.value", "[1, 2]", "adapter_model.safetensors")
    refused(run("interference", runs[0], bad, *out, code=2), tmp_path, *words)


def test_a_figure_that_cannot_be_written_is_refused_before_the_work(runs, tmp_path, monkeypatch):
    import subspace.measures.interference.measure as measure

    def too_late(*_, **__):
        raise AssertionError("compared before the figure's place was checked")

    monkeypatch.setattr(measure, "interference", too_late)
    refused(run("interference", *runs, "--out", tmp_path / "f.tiff", code=2), tmp_path, "f.tiff")


def test_without_a_figure_nothing_heavy_is_imported(runs):
    loaded = modules_after(run_cli("interference", *runs[:2]))
    assert not loaded & {"pandas", "matplotlib", "seaborn", "scipy.stats", "transformers"}


# The map, read from its Axes


def drawn(figure):
    return [ax.images[0].get_array().filled(np.nan) for ax in figure.axes[:-1]]


def test_the_map_holds_the_cosines_around_zero_and_brackets_within_chance(tmp_path):
    modules = (*MODULES, "enc.2.query")
    alone = [
        agreeing_folder(tmp_path / f"x{n}", seed=50 + n, modules=modules, shared=0)
        for n in range(2)
    ]
    a, b = load(alone[0]), load(alone[1])
    result = interference([a, b])
    figure = interference_figure(result)
    grid = drawn(figure)[0]
    wanted = [[result[f"enc.{n}.{kind}"].pairs[0].cosine for n in range(2)]
              for kind in ("query", "value")]  # fmt: skip
    np.testing.assert_array_equal(grid[:, :2], wanted)
    assert np.isnan(grid[1, 2])  # no such module: blank, and not striped
    ax = figure.axes[0]
    low, high = ax.images[0].get_clim()
    assert low == -high == -max(0.05, np.nanmax(np.abs(grid)))
    red, green, blue, _ = ax.images[0].to_rgba(0.0)
    assert min(red, green, blue) > 0.96  # white at no cosine
    texts = [t.get_text() for t in ax.texts]
    assert len(texts) == 5
    assert all(t.startswith("(") and t.endswith(")") for t in texts)
    legend = [t.get_text() for t in figure.legends[0].get_texts()]
    assert legend == ["in brackets: within chance (level 0.01, Benjamini-Hochberg)"]
    assert "chance gives 0 ± 0.029" in figure.get_suptitle()
    said = figure.legends[0].get_title().get_text()
    assert said == f"The colours end at ±{high:.2g}, not at ±1."
    alike = interference_figure(interference([a, a], weights=[1, 2]))
    assert alike.axes[0].images[0].get_clim()[1] == pytest.approx(1)
    assert alike.legends[0].get_title().get_text() == ""
    assert_apart(figure)


def test_three_adapters_have_three_maps_on_one_scale(runs):
    result = interference([load(path) for path in runs], weights=[1, 1, -1])
    figure = interference_figure(result)
    titles = [ax.get_title() for ax in figure.axes[:-1]]
    assert titles == ["seed0 + seed1", "seed0 + seed2", "seed1 + seed2"]
    assert len({ax.images[0].get_clim() for ax in figure.axes[:-1]}) == 1
    assert (drawn(figure)[0] > 0).all()
    assert (drawn(figure)[1] < 0).all()
    assert "weighted updates of 3 adapters" in figure.get_suptitle()
    label = figure.legends[0].get_texts()[0].get_text()
    assert label.startswith("every cosine is significant")
    assert_apart(figure)


def test_long_names_of_pairs_are_shortened_where_they_do_not_differ(tmp_path):
    names = [f"a-very-long-name-of-a-run-seed{n}-on-wikisql-with-labels-shuffled" for n in range(3)]
    some = [
        load(agreeing_folder(tmp_path / name, seed=n, modules=MODULES))
        for n, name in enumerate(names)
    ]
    figure = interference_figure(interference(some), width=3.5)
    titles = [ax.get_title() for ax in figure.axes[:-1]]
    assert [[n for n in range(3) if f"seed{n}" in title] for title in titles] == [
        [0, 1],
        [0, 2],
        [1, 2],
    ]
    assert_apart(figure)


def test_many_layers_run_downwards_with_dots_and_stripes(tmp_path):
    def two_zero(tensors):
        for name in list(tensors):
            if ".40." in name:
                tensors[name].fill(0)

    modules = tuple(f"model.layers.{n}.{k}_proj" for n in range(70) for k in "qkv")
    options = {"r": 1, "d": (9, 8), "modules": modules, "shared": 0, "change": two_zero}
    some = [load(agreeing_folder(tmp_path / f"{n}", seed=n, **options)) for n in range(2)]
    figure = interference_figure(interference(some), width=3.3)
    ax = figure.axes[0]
    assert drawn(figure)[0].shape == (70, 3)
    assert not ax.texts
    assert len(ax.lines[0].get_xdata()) == 3 * 69
    assert [c for c in ax.collections if c.get_label() == "_undefined"]
    assert to_hex(ax.collections[0].get_facecolor()[0]) == UNDEFINED
    words = [t.get_text() for t in figure.legends[0].get_texts()]
    assert words == [
        "within chance (level 0.01, Benjamini-Hochberg)",
        "undefined: an update is zero",
    ]
    assert_apart(figure)


def test_of_many_pairs_the_six_strongest_are_drawn(runs, tmp_path):
    more = [
        agreeing_folder(tmp_path / f"more{n}", seed=9 + n, modules=MODULES, shared=n)
        for n in range(2)
    ]
    result = interference([load(path) for path in [*runs, *more]])
    figure = interference_figure(result)
    sizes = sorted((abs(p.cosine) for p in result.pairs), reverse=True)[:6]
    by_name = {" + ".join(p.adapters): abs(p.cosine) for p in result.pairs}
    assert sorted((by_name[ax.get_title()] for ax in figure.axes[:-1]), reverse=True) == sizes
    assert "6 of 10 pairs, those with the largest cosine" in figure.get_suptitle()


def test_the_axes_level_map_draws_into_what_it_is_given(runs):
    from matplotlib.figure import Figure

    result = interference([load(path) for path in runs])
    ax = Figure(figsize=(5, 2)).subplots()
    assert interference_map(result, ax=ax, pair=("seed1", "seed2")) is ax
    cosine = result["enc.0.query"].pair(("seed1", "seed2")).cosine
    assert ax.images[0].get_array()[0, 0] == cosine
    with pytest.raises(UnknownModuleError, match="no module in common to draw"):
        interference_map(result, ax=ax, pair=("seed1", "nobody"))
    with pytest.raises(ArgumentError, match="3 to 40 inches"):
        interference_figure(result, width=1)
