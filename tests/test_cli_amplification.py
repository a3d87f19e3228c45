"""``subspace amplification``: Table 7 on a small base, and what bad input gets."""

import csv
import io
import json
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner

from subspace.cli import main
from tests.support.folders import base, folder
from tests.support.verbs import refused

MODULES = ("enc.0.query", "enc.0.value")


@pytest.fixture
def pair(tmp_path):
    return folder(tmp_path / "r2"), base(tmp_path / "model")


def run(adapter, model, *more):
    return CliRunner().invoke(main, ["amplification", adapter, "--base", model, *map(str, more)])


def test_the_table_has_every_module_and_its_chance(pair):
    done = run(*pair)
    assert done.exit_code == 0, done.output
    assert "amplification by r2 of model, delta W with its scale alpha/r" in done.output
    assert "query" in done.output
    plain = json.loads(run(*pair, "--json").stdout)
    assert (plain["kind"], plain["adapter"], plain["base"]) == ("amplification", "r2", "model")
    row = plain["modules"][0]
    for number in ("w_norm", "delta_norm", "factor"):
        assert f"{row[number]:.3g}" in done.output
    assert len(row["directions"]) == 2


def test_ranks_scale_and_module(pair):
    rows = json.loads(run(*pair, "--ranks", "2,1", "--modules", "*.value", "--json").stdout)
    assert [(r["module"], r["rank"]) for r in rows["modules"]] == [
        ("enc.0.value", 1),
        ("enc.0.value", 2),
    ]
    bare = json.loads(run(*pair, "--unscaled", "--modules", "*.value", "--json").stdout)
    assert not bare["scaled"]
    assert rows["modules"][1]["factor"] == pytest.approx(8 * bare["modules"][0]["factor"])


def test_csv_and_directions(pair):
    rows = list(csv.DictReader(io.StringIO(run(*pair, "--csv").stdout)))
    assert [row["module"] for row in rows] == list(MODULES)
    assert float(rows[0]["factor"]) > 0
    lines = run(*pair, "--directions").output.splitlines()
    assert sum(line.startswith(("query", "value")) for line in lines) == 4


def test_markdown_and_latex_hold_the_same_numbers(pair):
    row = json.loads(run(*pair, "--json").stdout)["modules"][0]
    markdown = run(*pair, "--markdown").stdout.splitlines()
    assert markdown[1] == "| :-- |" + " --: |" * 9
    assert markdown[2].startswith("| enc.0.query | 2 | ")
    latex = run(*pair, "--latex").stdout.splitlines()
    assert latex[0] == r"\begin{tabular}{lrrrrrrrrr}"
    assert latex[-1] == r"\end{tabular}"
    assert latex[2].count("&") == 9
    for line in (markdown[2], latex[4]):
        assert f"{row['factor']:.3g}" in line


def test_a_strangers_name_is_no_markup(tmp_path):
    evil = r"a|b_<script>$\input{x}&"
    a = folder(tmp_path / "a", modules=(evil,))
    model = base(tmp_path / "m", names=(evil,))
    markdown = run(a, model, "--markdown").stdout.splitlines()[2]
    assert markdown.startswith(r"| a\|b\_\<script\>\$\\input\{x\}& | 2 |")
    latex = run(a, model, "--latex").stdout.splitlines()[4]
    assert r"a$\Vert$b\_$<$script$>$\$\textbackslash{}input\{x\}\& & 2" in latex


def test_a_chart_of_one_modules_directions(pair, tmp_path):
    out = tmp_path / "gains.svg"
    done = run(*pair, "--modules", "*.query", "--out", out, "--json")
    assert done.exit_code == 0, done.output
    json.loads(done.stdout)
    assert out.read_text().startswith("<?xml")
    refused(run(*pair, "--out", tmp_path / "gains.gif"), tmp_path, "gains.gif")


def test_untrained_is_no_error(tmp_path):
    def untrained(tensors):
        for key in tensors:
            if "lora_B" in key:
                tensors[key][:] = 0

    done = run(folder(tmp_path / "a", change=untrained), base(tmp_path / "model"))
    assert done.exit_code == 0, done.output
    assert "note: enc.0.query: untrained" in done.output


def test_another_models_base(pair, tmp_path):
    other = base(tmp_path / "other", d=(5, 9))
    refused(run(pair[0], other), tmp_path, "enc.0.query", "5", "9", "7")


def test_a_base_without_the_module_lists_the_nearest(pair, tmp_path):
    def rename(tensors):
        tensors["enc.0.query_2.weight"] = tensors.pop("enc.0.query.weight")

    refused(run(pair[0], base(tmp_path / "other", change=rename)), tmp_path, "enc.0.query_2")


def test_nan_in_w(pair, tmp_path):
    def spoil(tensors):
        tensors["enc.0.query.weight"][1, 2] = np.nan

    done = run(pair[0], base(tmp_path / "other", change=spoil))
    refused(done, tmp_path, "W of module 'enc.0.query'", "model.safetensors")


def test_several_adapters_stand_one_after_the_other(pair, tmp_path):
    other = folder(tmp_path / "other", seed=5)
    paths = [pair[0], other]
    done = CliRunner().invoke(main, ["amplification", *paths, "--base", pair[1]])
    assert done.exit_code == 0, done.output
    assert done.output.index("amplification by r2") < done.output.index("amplification by other")

    def of(*more):
        done = CliRunner().invoke(main, ["amplification", *paths, "--base", pair[1], *more])
        assert done.exit_code == 0, done.output
        return done.stdout

    plain = json.loads(of("--json"))
    assert (plain["kind"], plain["schema_version"]) == ("amplifications", "1")
    assert plain["results"][0] == json.loads(run(*pair, "--json").stdout)
    assert [r["adapter"] for r in plain["results"]] == ["r2", "other"]
    rows = list(csv.DictReader(io.StringIO(of("--csv"))))
    assert [row["adapter"] for row in rows] == ["r2", "r2", "other", "other"]
    assert of("--markdown").splitlines()[0].startswith("| adapter | module | r |")
    assert of("--latex").count(r"\\") == 5
    refused(
        CliRunner().invoke(
            main, ["amplification", *paths, "--base", pair[1], "--out", str(tmp_path / "g.png")]
        ),
        tmp_path,
        "draws one adapter, 2 were given",
    )


def test_no_top_leaves_the_column_empty(pair):
    done = run(*pair, "--no-top")
    assert done.exit_code == 0, done.output
    row = json.loads(run(*pair, "--no-top", "--json").stdout)["modules"][0]
    assert (row["w_in_w"], row["w_in_w_method"]) == (None, "skipped")
    assert row["factor"] == json.loads(run(*pair, "--json").stdout)["modules"][0]["factor"]


def test_a_lower_bound_is_called_one(pair, monkeypatch):
    """Of a large W the table says what its Krylov values are, and how well they were found."""
    from subspace import linalg
    from subspace.measures.amplification import pretrained_values

    whole = linalg.leading

    def krylov(W, k, **options):
        return replace(whole(W, k, **options), method="krylov")

    monkeypatch.setattr(pretrained_values.linalg, "leading", krylov)
    done = run(*pair)
    assert "in W: by block Krylov" in done.output
    assert "a lower bound" in done.output


def test_the_cache_goes_where_it_is_told(pair, tmp_path, monkeypatch):
    from subspace.measures.amplification import pretrained_values

    monkeypatch.setattr(pretrained_values, "KEPT_FROM", 0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    cold = run(*pair, "--cache", tmp_path / "cache", "--json").stdout
    assert len(list((tmp_path / "cache").iterdir())) == 2
    assert not (tmp_path / "home").exists()
    for option in ("--verify-cache", "--json"):
        assert run(*pair, "--cache", tmp_path / "cache", option).exit_code == 0
    assert run(*pair, "--cache", tmp_path / "cache", "--json").stdout == cold
    assert run(*pair, "--no-cache", "--json").stdout == cold
    assert not (tmp_path / "home").exists()
    run(*pair)
    assert len(list((tmp_path / "home").rglob("*.json"))) == 2
    refused(run(*pair, "--no-cache", "--verify-cache"), tmp_path, "--no-cache goes with neither")


def test_ranks_may_be_a_span(pair):
    rows = json.loads(run(*pair, "--ranks", "1-2", "--json").stdout)["modules"]
    assert [row["rank"] for row in rows] == [1, 2, 1, 2]
    for wrong in ("2-1", "1-", "a", "1-9999999999"):
        assert run(*pair, "--ranks", wrong).exit_code == 2


def test_directions_of_several_ranks_are_listed_once(pair):
    once = run(*pair, "--directions").stdout
    assert run(*pair, "--directions", "--ranks", "1,2").stdout == once


def test_a_zero_w_is_a_row_with_its_reason_once(pair, tmp_path):
    def erase(tensors):
        for tensor in tensors.values():
            tensor[:] = 0

    done = run(pair[0], base(tmp_path / "zero", change=erase), "--ranks", "1-2")
    assert done.exit_code == 0, done.output
    assert done.stdout.count("note: enc.0.query: W is exactly zero: nothing to amplify") == 1


def test_draws_on_request(pair):
    rows = json.loads(run(*pair, "--draws", "300", "--json").stdout)["modules"]
    assert all(row["chance_drawn"] for row in rows)
    assert run(*pair, "--draws", "20").exit_code == 2


def test_the_map_and_the_curve(pair, tmp_path):
    for figure, more in (("map", ()), ("curve", ("--ranks", "1-2"))):
        out = tmp_path / f"{figure}.svg"
        done = run(*pair, "--figure", figure, "--out", out, *more)
        assert done.exit_code == 0, done.output
        assert out.read_text().startswith("<?xml")
    refused(run(*pair, "--figure", "map"), tmp_path, "--figure is for a figure")
    refused(run(*pair, "--figure", "curve", "--out", tmp_path / "c.png"), tmp_path, "--ranks 1-8")
    assert not (tmp_path / "c.png").exists()


def test_missing_base_and_wrong_options(pair, tmp_path):
    refused(run(pair[0], str(tmp_path / "nowhere")), tmp_path, "nowhere")
    refused(run(*pair, "--json", "--csv"), tmp_path, "choose one")
    refused(run(*pair, "--ranks", "0"), tmp_path, "ranks are")
    refused(run(*pair, "--ranks", "16", "--csv"), tmp_path, "its ranks go to 2")
    assert run(*pair, "--ranks", "one").exit_code == 2


def test_two_readers_of_the_same_numbers_agree(pair):
    """The Python way: three lines."""
    import subspace

    result = subspace.amplification(subspace.load(pair[0]), pair[1])
    plain = json.loads(run(*pair, "--json").stdout)
    assert [row.factor for row in result] == [row["factor"] for row in plain["modules"]]


def test_placement_is_a_similarity_with_w(pair, tmp_path):
    adapter, model = pair
    out = tmp_path / "fig8.svg"
    done = CliRunner().invoke(
        main, ["placement", adapter, "--base", model, "--top", "3", "--out", str(out)]
    )
    assert done.exit_code == 0, done.output
    assert "phi of W of model (i) and r2 (j), side in" in done.output
    assert out.read_text().startswith("<?xml")
    assert "side in: right singular vectors of W (i) and of delta W = B A (j)" in done.output
    plain = CliRunner().invoke(main, ["placement", adapter, "--base", model, "--json"])
    rows = json.loads(plain.stdout)["modules"]
    assert [(row["rank_a"], row["rank_b"]) for row in rows] == [(1, 2), (1, 2)]


def test_placement_refuses_before_the_work(pair, tmp_path):
    place = ["placement", pair[0], "--base", pair[1]]
    refused(CliRunner().invoke(main, [*place, "--top", "0"]), tmp_path, "top is 0")
    refused(CliRunner().invoke(main, [*place, "--out", "x.gif"]), tmp_path, "x.gif")
    refused(CliRunner().invoke(main, [*place, "--json", "--csv"]), tmp_path, "choose one")
