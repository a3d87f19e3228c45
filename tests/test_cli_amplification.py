"""``subspace amplification``: Table 7 on a small base, and what bad input gets."""

import csv
import io
import json
from dataclasses import replace

import numpy as np
import pytest

from tests.support.folders import base, folder
from tests.support.verbs import refused, run

MODULES = ("enc.0.query", "enc.0.value")


@pytest.fixture
def pair(tmp_path):
    return folder(tmp_path / "r2"), base(tmp_path / "model")


def amplified(adapter, model, *more, code=0):
    return run("amplification", adapter, "--base", model, *more, code=code)


def test_the_table_has_every_module_and_its_chance(pair):
    done = amplified(*pair)
    assert "amplification by r2 of model, delta W with its scale alpha/r" in done.output
    assert "query" in done.output
    plain = json.loads(amplified(*pair, "--json").stdout)
    assert (plain["kind"], plain["adapter"], plain["base"]) == ("amplification", "r2", "model")
    row = plain["modules"][0]
    for number in ("w_norm", "delta_norm", "factor"):
        assert f"{row[number]:.3g}" in done.output
    assert len(row["directions"]) == 2


def test_ranks_scale_and_module(pair):
    rows = json.loads(amplified(*pair, "--ranks", "2,1", "--modules", "*.value", "--json").stdout)
    assert [(r["module"], r["rank"]) for r in rows["modules"]] == [
        ("enc.0.value", 1),
        ("enc.0.value", 2),
    ]
    bare = json.loads(amplified(*pair, "--unscaled", "--modules", "*.value", "--json").stdout)
    assert not bare["scaled"]
    assert rows["modules"][1]["factor"] == pytest.approx(8 * bare["modules"][0]["factor"])


def test_csv_and_directions(pair):
    rows = list(csv.DictReader(io.StringIO(amplified(*pair, "--csv").stdout)))
    assert [row["module"] for row in rows] == list(MODULES)
    assert float(rows[0]["factor"]) > 0
    lines = amplified(*pair, "--directions").output.splitlines()
    assert sum(line.startswith(("query", "value")) for line in lines) == 4


def test_markdown_and_latex_hold_the_same_numbers(pair):
    row = json.loads(amplified(*pair, "--json").stdout)["modules"][0]
    markdown = amplified(*pair, "--markdown").stdout.splitlines()
    assert markdown[1] == "| :-- |" + " --: |" * 9
    assert markdown[2].startswith("| enc.0.query | 2 | ")
    latex = amplified(*pair, "--latex").stdout.splitlines()
    assert latex[0] == r"\begin{tabular}{lrrrrrrrrr}"
    assert latex[-1] == r"\end{tabular}"
    assert latex[2].count("&") == 9
    for line in (markdown[2], latex[4]):
        assert f"{row['factor']:.3g}" in line


def test_a_strangers_name_is_no_markup(tmp_path):
    evil = r"a|b_<script>$\input{x}&"
    a = folder(tmp_path / "a", modules=(evil,))
    model = base(tmp_path / "m", names=(evil,))
    markdown = amplified(a, model, "--markdown").stdout.splitlines()[2]
    assert markdown.startswith(r"| a\|b\_\<script\>\$\\input\{x\}& | 2 |")
    latex = amplified(a, model, "--latex").stdout.splitlines()[4]
    assert r"a$\Vert$b\_$<$script$>$\$\textbackslash{}input\{x\}\& & 2" in latex


def test_a_chart_of_one_modules_directions(pair, tmp_path):
    out = tmp_path / "gains.svg"
    done = amplified(*pair, "--modules", "*.query", "--out", out, "--json")
    json.loads(done.stdout)
    assert out.read_text().startswith("<?xml")
    refused(amplified(*pair, "--out", tmp_path / "gains.gif", code=2), tmp_path, "gains.gif")


def test_untrained_is_no_error(tmp_path):
    def untrained(tensors):
        for key in tensors:
            if "lora_B" in key:
                tensors[key][:] = 0

    done = amplified(folder(tmp_path / "a", change=untrained), base(tmp_path / "model"))
    assert "note: enc.0.query, enc.0.value: untrained" in done.output


def test_another_models_base(pair, tmp_path):
    other = base(tmp_path / "other", d=(5, 9))
    refused(amplified(pair[0], other, code=2), tmp_path, "enc.0.query", "5", "9", "7")


def test_a_base_without_the_module_lists_the_nearest(pair, tmp_path):
    def rename(tensors):
        tensors["enc.0.query_2.weight"] = tensors.pop("enc.0.query.weight")

    other = base(tmp_path / "other", change=rename)
    refused(amplified(pair[0], other, "--strict", code=2), tmp_path, "enc.0.query_2")
    shown = amplified(pair[0], other).stdout  # the other module is measured all the same
    assert "left out, since the base does not have them so: enc.0.query" in shown
    assert "value" in shown


def test_nan_in_w(pair, tmp_path):
    def spoil(tensors):
        tensors["enc.0.query.weight"][1, 2] = np.nan

    done = amplified(pair[0], base(tmp_path / "other", change=spoil), code=2)
    refused(done, tmp_path, "W of module 'enc.0.query'", "model.safetensors")


def test_several_adapters_stand_one_after_the_other(pair, tmp_path):
    other = folder(tmp_path / "other", seed=5)
    paths = [pair[0], other]
    done = run("amplification", *paths, "--base", pair[1])
    assert done.output.index("amplification by r2") < done.output.index("amplification by other")

    def of(*more):
        done = run("amplification", *paths, "--base", pair[1], *more)
        return done.stdout

    plain = json.loads(of("--json"))
    assert (plain["kind"], plain["schema_version"]) == ("amplifications", "2")
    assert plain["results"][0] == json.loads(amplified(*pair, "--json").stdout)
    assert [r["adapter"] for r in plain["results"]] == ["r2", "other"]
    rows = list(csv.DictReader(io.StringIO(of("--csv"))))
    assert [row["adapter"] for row in rows] == ["r2", "r2", "other", "other"]
    assert of("--markdown").splitlines()[0].startswith("| adapter | module | r |")
    assert of("--latex").count(r"\\") == 5
    refused(
        run("amplification", *paths, "--base", pair[1], "--out", tmp_path / "g.png", code=2),
        tmp_path,
        "draws one adapter, 2 were given",
    )


def test_no_top_leaves_the_column_empty(pair):
    amplified(*pair, "--no-top")
    row = json.loads(amplified(*pair, "--no-top", "--json").stdout)["modules"][0]
    assert (row["w_in_w"], row["w_in_w_method"]) == (None, "skipped")
    assert row["factor"] == json.loads(amplified(*pair, "--json").stdout)["modules"][0]["factor"]


def test_a_lower_bound_is_called_one(pair, monkeypatch):
    """Of a large W the table says what its Krylov values are, and how well they were found."""
    from subspace import linalg
    from subspace.measures.amplification import pretrained_values

    whole = linalg.leading

    def krylov(W, k, **options):
        return replace(whole(W, k, **options), method="krylov")

    monkeypatch.setattr(pretrained_values.linalg, "leading", krylov)
    done = amplified(*pair)
    assert "in W: by block Krylov" in done.output
    assert "a lower bound" in done.output


def test_the_cache_goes_where_it_is_told(pair, tmp_path, monkeypatch):
    from subspace.measures.amplification import pretrained_values

    monkeypatch.setattr(pretrained_values, "KEPT_FROM", 0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    cold = amplified(*pair, "--cache", tmp_path / "cache", "--json").stdout
    assert len(list((tmp_path / "cache").iterdir())) == 2
    assert not (tmp_path / "home").exists()
    for option in ("--verify-cache", "--json"):
        amplified(*pair, "--cache", tmp_path / "cache", option)
    assert amplified(*pair, "--cache", tmp_path / "cache", "--json").stdout == cold
    assert amplified(*pair, "--no-cache", "--json").stdout == cold
    assert not (tmp_path / "home").exists()
    amplified(*pair)
    assert len(list((tmp_path / "home").rglob("*.json"))) == 2
    refused(
        amplified(*pair, "--no-cache", "--verify-cache", code=2),
        tmp_path,
        "--no-cache goes with neither",
    )


def test_ranks_may_be_a_span(pair):
    rows = json.loads(amplified(*pair, "--ranks", "1-2", "--json").stdout)["modules"]
    assert [row["rank"] for row in rows] == [1, 2, 1, 2]
    for wrong in ("2-1", "1-", "a", "1-9999999999"):
        amplified(*pair, "--ranks", wrong, code=2)


def test_directions_of_several_ranks_are_listed_once(pair):
    once = amplified(*pair, "--directions").stdout
    assert amplified(*pair, "--directions", "--ranks", "1,2").stdout == once


def test_a_zero_w_is_a_row_with_its_reason_once(pair, tmp_path):
    def erase(tensors):
        for tensor in tensors.values():
            tensor[:] = 0

    done = amplified(pair[0], base(tmp_path / "zero", change=erase), "--ranks", "1-2")
    assert (
        done.stdout.count("note: enc.0.query, enc.0.value: W is exactly zero: nothing to amplify")
        == 1
    )


def test_draws_on_request(pair):
    rows = json.loads(amplified(*pair, "--draws", "300", "--json").stdout)["modules"]
    assert all(row["null_drawn"] for row in rows)
    amplified(*pair, "--draws", "20", code=2)


def test_the_map_and_the_curve(pair, tmp_path):
    for figure, more in (("map", ()), ("curve", ("--ranks", "1-2"))):
        out = tmp_path / f"{figure}.svg"
        amplified(*pair, "--figure", figure, "--out", out, *more)
        assert out.read_text().startswith("<?xml")
    refused(amplified(*pair, "--figure", "map", code=2), tmp_path, "--figure is for a figure")
    refused(
        amplified(*pair, "--figure", "curve", "--out", tmp_path / "c.png", code=2),
        tmp_path,
        "--ranks 1-8",
    )
    assert not (tmp_path / "c.png").exists()


def test_missing_base_and_wrong_options(pair, tmp_path):
    refused(amplified(pair[0], tmp_path / "nowhere", code=2), tmp_path, "nowhere")
    refused(amplified(*pair, "--json", "--csv", code=2), tmp_path, "choose one")
    refused(amplified(*pair, "--ranks", "0", code=2), tmp_path, "ranks are")
    refused(amplified(*pair, "--ranks", "16", "--csv", code=2), tmp_path, "its ranks go to 2")
    amplified(*pair, "--ranks", "one", code=2)


def test_two_readers_of_the_same_numbers_agree(pair):
    """The Python way: three lines."""
    import subspace

    result = subspace.amplification(subspace.load(pair[0]), pair[1])
    plain = json.loads(amplified(*pair, "--json").stdout)
    assert [row.factor for row in result] == [row["factor"] for row in plain["modules"]]


def test_placement_is_a_similarity_with_w(pair, tmp_path):
    adapter, model = pair
    out = tmp_path / "fig8.svg"
    done = run("placement", adapter, "--base", model, "--k", "3", "--out", out)
    assert "phi of W of model (i) and r2 (j), side in" in done.output
    assert out.read_text().startswith("<?xml")
    assert "side in: right singular vectors of W (i) and of delta W = B A (j)" in done.output
    plain = run("placement", adapter, "--base", model, "--json")
    rows = json.loads(plain.stdout)["modules"]
    assert [(row["rank_a"], row["rank_b"]) for row in rows] == [(1, 2), (1, 2)]


def test_placement_refuses_before_the_work(pair, tmp_path):
    place = ["placement", pair[0], "--base", pair[1]]
    refused(run(*place, "--k", "0", code=2), tmp_path, "k is 0")
    refused(run(*place, "--out", "x.gif", code=2), tmp_path, "x.gif")
    refused(run(*place, "--json", "--csv", code=2), tmp_path, "choose one")
