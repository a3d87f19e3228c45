"""``subspace rank``: what it prints, what it writes, what bad input gets."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.support.folders import agreeing_folder
from tests.support.verbs import refused, run

MODULES = ("enc.0.query", "enc.0.value")


@pytest.fixture
def runs(tmp_path):
    return [agreeing_folder(tmp_path / f"seed{n}", seed=n) for n in range(3)]


def test_the_table_has_every_module_its_ranks_and_the_reasons(runs):
    done = run("rank", *runs)
    assert "ranks of seed0, seed1, seed2, side in: right singular vectors of delta W" in done.output
    assert "modules of enc.0\n" in done.output
    line = next(text for text in done.output.splitlines() if text.startswith("query"))
    assert line.split()[1:4] == ["3", "1", "(1-1)"]
    assert line.split()[-1] == "1"
    assert "median over 3 pairs of runs" in done.output
    assert "In 2 of 2 modules 3 runs share leading directions above chance" in done.output
    assert "Not shown: that this rank does for the task" in done.output
    assert "The count is not owed to the task alone" in " ".join(done.output.split())
    assert "note: the initial A is not stored with every run" in done.output


def test_json_is_strict_and_carries_the_contract(runs, tmp_path):
    nothing = agreeing_folder(tmp_path / "zero", change=lambda t: [v.fill(0) for v in t.values()])

    def refuse(constant):
        raise AssertionError(constant)

    done = run("rank", nothing, *runs[:1], "--json", "--side", "out", "--level", "0.05")
    plain = json.loads(done.stdout, parse_constant=refuse)
    assert (plain["schema_version"], plain["kind"], plain["side"]) == ("2", "rank", "out")
    assert (plain["adapters"], plain["level"]) == (["zero", "seed0"], 0.05)
    assert [m["module"] for m in plain["modules"]] == list(MODULES)
    assert plain["modules"][0]["replicable"] is None
    assert "untrained: the update of zero" in plain["modules"][0]["note"]
    assert "-" in run("rank", nothing, *runs[:1]).output


def test_csv_is_one_line_a_module(runs):
    rows = list(csv.DictReader(io.StringIO(run("rank", *runs, "--csv").stdout)))
    plain = json.loads(run("rank", *runs, "--json").stdout)["modules"]
    assert [row["module"] for row in rows] == list(MODULES)
    assert float(rows[0]["stable_high"]) == plain[0]["stable"]["high"]
    assert (rows[0]["replicable"], rows[0]["recommended"]) == ("1", "1")
    alone = next(csv.DictReader(io.StringIO(run("rank", runs[0], "--csv").stdout)))
    assert alone["replicable"] == ""


def test_tables_for_model_cards_and_papers(runs):
    lines = run("rank", *runs, "--markdown").stdout.splitlines()
    assert lines[0].startswith("| module | r | replicable |")
    assert lines[2].startswith("| enc.0.query | 3 | 1 (1-1) |")
    latex = run("rank", *runs, "--latex").stdout
    assert "\\toprule" in latex
    assert "90\\%" in latex


def test_one_run_says_what_is_missing(runs):
    done = run("rank", runs[0], "--modules", "*.query")
    assert "No replicable rank from one run, only its spectrum" in done.output
    assert done.output.count("one run: a replicable rank needs a second one") == 1


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_a_figure_is_written_and_stdout_stays_clean(runs, tmp_path, suffix):
    out = tmp_path / f"rank.{suffix}"
    done = run("rank", *runs, "--out", out, "--json")
    json.loads(done.stdout)
    assert out.stat().st_size > 1000
    again = tmp_path / f"again.{suffix}"
    run("rank", *runs, "--out", again)
    assert again.read_bytes() == out.read_bytes()


def test_runs_of_one_name_are_told_apart(tmp_path):
    paths = [agreeing_folder(tmp_path / f"seed{n}" / "r3", seed=n) for n in range(3)]
    assert "ranks of seed0/r3, seed1/r3, seed2/r3" in run("rank", *paths).output


def test_modules_that_not_all_have_are_named(runs, tmp_path):
    other = agreeing_folder(tmp_path / "other", modules=(*MODULES, "enc.1.query"), seed=9)
    assert (
        "left out, since only other of 2 runs has them: enc.1.query"
        in run("rank", runs[0], other).output
    )


def test_the_same_initial_a_is_warned_of(runs):
    start = {name: np.random.default_rng(1).standard_normal((3, 40)) for name in MODULES}
    for path in runs[:2]:
        save_file(start, Path(path) / "initial_A.safetensors")
    output = run("rank", *runs[:2]).output
    assert "caution: seed0 and seed1 have the same initial A in 2 of 2 modules" in output


def test_a_strangers_names_never_reach_the_terminal(tmp_path):
    evil = "a\x1b[31mRED\nlayer"
    paths = [agreeing_folder(tmp_path / f"s{n}", modules=(evil, "x.v"), seed=n) for n in range(2)]
    for option in ((), ("--csv",), ("--markdown",), ("--latex",), ("--json",)):
        done = run("rank", *paths, *option)
        assert "\x1b" not in done.output


def test_the_same_run_twice(runs, tmp_path):
    done = run("rank", runs[0], f"{runs[0]}/../seed0", "--out", tmp_path / "f.png", code=2)
    refused(done, tmp_path, "'seed0' was given twice", "different seeds")


def test_bad_input_is_one_line(runs, tmp_path):
    out = ("--out", tmp_path / "f.png")
    refused(
        run("rank", *runs, "--level", "2", *out, code=2), tmp_path, "level is 2.0", "probability"
    )
    refused(run("rank", *runs, "--json", "--latex", *out, code=2), tmp_path, "choose one")
    refused(
        run("rank", *runs, "--side", "delta-A", *out, code=2), tmp_path, "initial_A.safetensors"
    )
    refused(
        run("rank", *runs, "--modules", "typo", *out, code=2), tmp_path, "'typo'", "enc.0.query"
    )
    refused(run("rank", *runs, "--device", "abacus", *out, code=2), tmp_path, "abacus")
    refused(run("rank", runs[0], tmp_path / "nowhere", *out, code=2), tmp_path, "nowhere")
    other = agreeing_folder(tmp_path / "other", d=(30, 41))
    refused(run("rank", runs[0], other, *out, code=2), tmp_path, "30 x 40", "30 x 41")


@pytest.mark.parametrize("out", ["f.tiff", "nowhere/f.png"])
def test_a_figure_that_cannot_be_written_is_refused_before_the_work(
    runs, tmp_path, out, monkeypatch
):
    import subspace.measures.rank.measure as measure

    def too_late(*_, **__):
        raise AssertionError("compared before the figure's place was checked")

    monkeypatch.setattr(measure, "rank", too_late)
    refused(run("rank", *runs, "--out", tmp_path / out, code=2), tmp_path, out)


@pytest.mark.parametrize("which", ["A", "B"])
@pytest.mark.parametrize("side", ["A", "B", "in", "out"])
def test_non_finite_is_named_on_every_side(runs, tmp_path, which, side):
    def spoil(tensors):
        tensors[f"base_model.model.enc.0.value.lora_{which}.weight"][1, 2] = np.nan

    bad = agreeing_folder(tmp_path / "bad", change=spoil)
    words = (f"entries of {which}", "enc.0.value", "[1, 2]", "adapter_model.safetensors")
    refused(run("rank", runs[0], bad, "--side", side, code=2), tmp_path, *words)


def test_without_a_figure_nothing_heavy_is_imported(runs):
    import subprocess
    import sys

    code = (
        f"from subspace.cli import main\ntry:\n    main(['rank', {runs[0]!r}, {runs[1]!r}])\n"
        "except SystemExit as e:\n    assert not e.code, e.code\n"
        "import sys\nprint('\\n' + ' '.join(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    loaded = set(done.stdout.splitlines()[-1].split())
    assert not loaded & {"pandas", "matplotlib", "seaborn", "scipy.stats", "transformers"}
