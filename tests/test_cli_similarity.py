"""``subspace similarity``: what it prints, what it writes, what bad input gets."""

import csv
import io
import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.support.folders import folder
from tests.support.verbs import refused, run


@pytest.fixture
def pair(tmp_path):
    return folder(tmp_path / "r2"), folder(tmp_path / "r3", r=3, seed=1)


def test_the_table_names_every_module_and_its_chance(pair):
    done = run("similarity", *pair)
    assert "phi of r2 (i) and r3 (j), side A: right singular vectors of A" in done.output
    assert "modules of enc.0\n" in done.output
    line = next(text for text in done.output.splitlines() if text.startswith("query"))
    assert "0.143" in line  # chance of phi(1, 1) is 1/7
    assert "0.429" in line  # chance of phi(2, 3) is 3/7
    assert "0/2" in line


def test_json_carries_the_contract(pair):
    done = run("similarity", *pair, "--json", "--side", "in", "--angles")
    result = json.loads(done.stdout)
    assert (result["schema_version"], result["kind"], result["side"]) == ("2", "similarity", "in")
    assert result["adapters"] == ["r2", "r3"]
    for module in result["modules"]:
        assert (module["rank_a"], module["rank_b"]) == (2, 3)
        for grid in ("phi", "null_mean", "pvalue", "error"):
            assert np.shape(module[grid]) == (2, 3)
        assert isinstance(module["agreeing"], int)
        assert len(module["angles"]) == 2


def test_csv_is_one_line_a_cell(pair):
    rows = list(csv.DictReader(io.StringIO(run("similarity", *pair, "--csv").stdout)))
    assert len(rows) == 2 * 2 * 3
    plain = json.loads(run("similarity", *pair, "--json").stdout)["modules"][0]
    assert float(rows[5]["phi"]) == plain["phi"][1][2]
    assert (rows[5]["i"], rows[5]["j"]) == ("2", "3")


def test_tables_for_model_cards_and_papers(pair):
    shown = next(
        x for x in run("similarity", *pair).output.splitlines() if x.startswith("query")
    ).split()
    markdown = run("similarity", *pair, "--markdown").stdout.splitlines()
    assert markdown[0] == "| module | φ(1,1) | null mean | p | φ(2,3) | null mean | agree |"
    assert len(markdown) == 4
    assert markdown[2].replace("|", "").split() == [f"enc.0.{shown[0]}", *shown[1:]]
    latex = run("similarity", *pair, "--latex").stdout.splitlines()
    assert latex[2].startswith(r"  module & $\varphi$(1,1) & null mean & p &")
    assert latex[4].replace("&", "").split()[:-1] == [f"enc.0.{shown[0]}", *shown[1:]]


def test_strangers_names_in_tables_are_text(tmp_path):
    a = folder(tmp_path / "a", modules=("a|b_<i>$x$",))
    assert (
        run("similarity", a, a, "--markdown")
        .stdout.splitlines()[2]
        .startswith(r"| a\|b\_\<i\>\$x\$ |")
    )
    assert (
        run("similarity", a, a, "--latex")
        .stdout.splitlines()[4]
        .startswith(r"  a$\Vert$b\_$<$i$>$\$x\$ &")
    )


def test_csv_runs_no_formula(tmp_path):
    a = folder(tmp_path / "a", modules=("=cmd()|x",))
    rows = list(csv.DictReader(io.StringIO(run("similarity", a, a, "--csv").stdout)))
    assert rows[0]["module"] == "'=cmd()|x"


@pytest.mark.parametrize("figure", ["3", "4", "layers"])
def test_figures_are_written_and_stdout_stays_clean(pair, tmp_path, figure):
    out = tmp_path / "fig.svg"
    done = run("similarity", *pair, "--out", out, "--figure", figure, "--json")
    json.loads(done.stdout)
    assert out.read_text().startswith("<?xml")


def test_module_and_control(pair, tmp_path):
    control = folder(tmp_path / "control", r=4, seed=9)
    done = run("similarity", *pair, "--modules", "*.value", "--control", control, "--json")
    result = json.loads(done.stdout)
    assert [m["module"] for m in result["modules"]] == ["enc.0.value"]
    assert result["control"]["adapters"] == ["r2", "control"]
    assert (
        "control: φ(1,1) of r2 and control" in run("similarity", *pair, "--control", control).output
    )


def test_no_module_in_common(pair, tmp_path):
    other = folder(tmp_path / "other", modules=("dec.9.wo",))
    done = run("similarity", pair[0], other, "--out", tmp_path / "f.png", code=2)
    refused(done, tmp_path, "no module in common", "enc.0.query", "dec.9.wo")


def test_a_module_whose_d_differs(pair, tmp_path):
    other = folder(tmp_path / "other", d=(5, 8))
    done = run("similarity", pair[0], other, "--out", tmp_path / "f.png", code=2)
    refused(done, tmp_path, "cannot compare", "enc.0.query", "5 x 7", "5 x 8")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("side", ["A", "B", "in", "out"])
@pytest.mark.parametrize(("which", "index"), [("A", (1, 6)), ("B", (3, 1))])
def test_non_finite_in_either_factor_on_every_side(pair, tmp_path, value, side, which, index):
    def spoil(tensors):
        tensors[f"base_model.model.enc.0.value.lora_{which}.weight"][index] = value

    other = folder(tmp_path / "other", change=spoil)
    done = run("similarity", pair[0], other, "--side", side, "--out", tmp_path / "f.png", code=2)
    words = (f"entries of {which}", "enc.0.value", str(list(index)), "adapter_model.safetensors")
    refused(done, tmp_path, *words)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("side", ["A", "delta-A"])
def test_non_finite_initial_a_is_named(pair, tmp_path, bad, side):
    from pathlib import Path

    start = {f"enc.0.{n}": np.ones((2, 7), dtype="f4") for n in ("query", "value")}
    save_file(start, Path(pair[0]) / "initial_A.safetensors")
    other = folder(tmp_path / "other", seed=5)
    start["enc.0.value"][1, 1] = bad
    save_file(start, Path(other) / "initial_A.safetensors")
    refused(
        run("similarity", pair[0], other, "--side", side, code=2),
        tmp_path,
        "initial A of",
        "enc.0.value",
    )


def test_untrained_is_no_error(pair, tmp_path):
    def untrained(tensors):
        for key in tensors:
            if "lora_B" in key:
                tensors[key][:] = 0

    other = folder(tmp_path / "other", change=untrained)
    done = run("similarity", pair[0], other)
    assert "untrained: the update of other is exactly zero" in done.output
    module = json.loads(run("similarity", pair[0], other, "--json").stdout)["modules"][0]
    assert module["agreeing"] is None
    assert module["phi"] == [[None] * 2] * 2


@pytest.mark.parametrize("out", ["f.tiff", "nowhere/f.png", "f"])
def test_a_figure_that_cannot_be_written_is_refused_before_the_work(
    pair, tmp_path, out, monkeypatch
):
    import subspace.measures.similarity.measure as measure

    def too_late(*_, **__):
        raise AssertionError("compared before the figure's place was checked")

    monkeypatch.setattr(measure, "similarity", too_late)
    refused(run("similarity", *pair, "--out", tmp_path / out, code=2), tmp_path, out)


@pytest.mark.parametrize(
    "option", [("--figure", "4"), ("--above-chance",), ("--contour", "0.5"), ("--initial",)]
)
def test_an_option_of_a_figure_without_one_is_said(pair, tmp_path, option):
    refused(run("similarity", *pair, *option, code=2), tmp_path, option[0], "--out")


def test_angles_stand_in_the_table(pair):
    output = run("similarity", *pair, "--angles").output
    assert "least angle" in output
    assert "°" in output


def test_a_strangers_names_never_reach_the_terminal(tmp_path):
    """Escape sequences and newlines in module names, in every place that shows one."""
    evil = "a\x1b[31mRED\nlayer"

    def untrained(tensors):
        for key in tensors:
            if "lora_B" in key:
                tensors[key][:] = 0

    a = folder(tmp_path / "a", modules=(evil, "only\x1b[31m.a"), change=untrained)
    b = folder(tmp_path / "b", modules=(evil,), seed=1)
    done = run("similarity", a, b)
    assert "\x1b" not in done.output
    assert "note: a\\x1b[31mRED\\x0alayer: untrained" in done.output
    assert "only a has only\\x1b[31m.a" in done.output


def test_two_folders_of_one_name_are_told_apart(tmp_path):
    (tmp_path / "seed0").mkdir()
    (tmp_path / "seed1").mkdir()
    a, b = folder(tmp_path / "seed0" / "r2"), folder(tmp_path / "seed1" / "r2", seed=1)
    assert "phi of seed0/r2 (i) and seed1/r2 (j)" in run("similarity", a, b).output
    assert "phi of r2 (i) and r2 (j)" in run("similarity", a, a).output


def test_a_rank_deficient_module_says_so(pair, tmp_path):
    def flatten(tensors):
        for key, value in tensors.items():
            if "lora_A" in key:
                value[1] = value[0]

    other = folder(tmp_path / "other", change=flatten)
    output = run("similarity", other, pair[1]).output
    assert (
        "note: enc.0.query, enc.0.value: numerical rank 1 of 2 in other, undefined beyond" in output
    )
    assert "0/1" in output


def test_figure_4_draws_random_matrices_of_the_drawn_modules_shape(tmp_path, monkeypatch):
    """The first module of an adapter may be an embedding of quite another size."""
    import subspace.measures.similarity.measure as measure

    shapes = []
    real = measure.random_pair

    def seen(*shape, **options):
        shapes.append(shape)
        return real(*shape, **options)

    monkeypatch.setattr(measure, "random_pair", seen)

    def widen(tensors):
        rng = np.random.default_rng(3)
        tensors["base_model.model.embed.lora_A.weight"] = rng.standard_normal((6, 50)).astype("f4")
        tensors["base_model.model.embed.lora_B.weight"] = rng.standard_normal((5, 6)).astype("f4")

    a = folder(tmp_path / "a", change=widen)
    run("similarity", a, a, "--figure", "4", "--out", tmp_path / "f.svg")
    assert shapes == [(2, 2, 7)]


def test_what_cannot_be_written_to_is_no_bug(pair, monkeypatch):
    import click

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(click, "echo", full)
    run("similarity", *pair, code=1)


def test_two_outputs_at_once(pair, tmp_path):
    refused(run("similarity", *pair, "--json", "--csv", code=2), tmp_path, "choose one")


def test_a_device_that_is_not_there(pair, tmp_path):
    refused(run("similarity", *pair, "--device", "abacus", code=2), tmp_path, "abacus", "--device")


def test_delta_a_without_initial(pair, tmp_path):
    refused(
        run("similarity", *pair, "--side", "delta-A", code=2), tmp_path, "initial_A.safetensors"
    )


def test_missing(pair, tmp_path):
    refused(run("similarity", pair[0], tmp_path / "nothing", code=2), tmp_path, "nothing")
