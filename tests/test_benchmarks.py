"""The benchmarks run and say what they measured. No test here looks at how long anything took."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import __main__ as command
from benchmarks import base_7b, browser, calibration, page, rivals, synthetic
from benchmarks.printing import BASE_ROWS, ROWS, base_table, page_table
from tests.support.samples import ROOT

TINY = ["pair-7b", "--layers", "1", "--hidden", "96", "--inner", "160", "--repeat", "1"]


@pytest.fixture(scope="module")
def out():
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *TINY, "--json"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    return json.loads(done.stdout)


def test_every_row_is_there_and_positive(out):
    assert set(out["times"]) == set(ROWS)
    assert all(row["wall_s"] > 0 and row["cpu_s"] >= 0 for row in out["times"].values())
    assert out["family"]["modules"] == 7
    assert out["family"]["bytes"] == 4 * 72 * (4 * 2 * 96 + 3 * (96 + 160))


def test_the_dense_svd_says_that_it_is_extrapolated(out):
    dense = out["dense_svd"]
    assert dense["extrapolated"] is True
    assert [m["shape"] for m in dense["measured_modules"]] == [[96, 96], [96, 160]]
    square, wide = (m["cpu_s"] for m in dense["measured_modules"])
    assert dense["cpu_s"] == pytest.approx(2 * (4 * square + 3 * wide))


def test_ratios_are_of_the_times_beside_them(out):
    times, ratios = out["times"], out["ratios"]
    assert ratios["ours_over_floor_wall"] == pytest.approx(
        times["ours"]["wall_s"] / times["floor"]["wall_s"]
    )
    assert ratios["best_qr_over_ours_wall"] <= ratios["qr_over_ours_wall"]
    assert ratios["dense_over_ours_cpu"] >= 0


def test_speed_is_not_bought_with_digits(out):
    for side in ("A", "B", "in", "out"):
        assert out["accuracy"]["ours"][side] <= out["accuracy"]["stated_bound"][side] < 1e-6
    assert out["accuracy"]["ours"]["A"] < out["accuracy"]["qr_float32"]["A"]


def test_the_table_marks_what_was_not_measured_and_folders_are_used_again(tmp_path, capsys):
    arguments = [*TINY, "--dtype", "bfloat16", "--out-dir", str(tmp_path)]
    command.main(arguments)
    printed = capsys.readouterr().out
    assert "EXTRAPOLATED" in printed
    assert "bfloat16" in printed
    weights = sorted(tmp_path.glob("*/adapter_model.safetensors"))
    assert len(weights) == 2
    written = [path.stat().st_mtime_ns for path in weights]
    command.main([*arguments, "--no-dense"])
    assert [path.stat().st_mtime_ns for path in weights] == written
    assert "EXTRAPOLATED" not in capsys.readouterr().out


def test_other_dimensions_are_written_anew(tmp_path):
    for hidden in (72, 80):
        with synthetic.folders(synthetic.minilm(1, hidden), tmp_path) as (first, _):
            assert json.loads((first / "made_of.json").read_text())["modules"][0][1] == hidden


def test_rivals_know_nothing_of_ours():
    assert "subspace" not in {
        line.split()[1].split(".")[0]
        for line in Path(rivals.__file__).read_text().splitlines()
        if line.startswith(("import ", "from "))
    }


def test_a_table_is_pasted_between_its_marks_alone(tmp_path):
    page = tmp_path / "README.md"
    page.write_text("a\n<!-- x -->\nold\n<!-- end x -->\nb\n")
    for text in ("first", "second"):
        command.paste("x", text, page)
        assert page.read_text() == f"a\n<!-- x -->\n\n```text\n{text}\n```\n\n<!-- end x -->\nb\n"
    with pytest.raises(SystemExit, match="no marks <!-- y -->"):
        command.paste("y", "", page)


BASE = ["base-7b", "--layers", "2", "--hidden", "96", "--inner", "160", "--repeat", "1"]


@pytest.fixture(scope="module")
def base():
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *BASE, "--json"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    return json.loads(done.stdout)


def test_the_base_is_sharded_and_every_row_is_there(base):
    assert set(base["times"]) == set(BASE_ROWS)
    assert (base["family"]["modules"], base["family"]["shards"]) == (14, 2)
    assert base["family"]["bytes"] > 2 * 2 * (4 * 96 * 96 + 3 * 96 * 160)
    assert base["family"]["largest_float32"] == 4 * 96 * 160


def test_the_bases_ratios_are_of_what_stands_beside_them(base):
    times, ratios = base["times"], base["ratios"]
    assert ratios["sweep_over_floor_wall"] == pytest.approx(
        times["sweep"]["wall_s"] / times["floor"]["wall_s"]
    )
    assert base["gram"]["extrapolated"] is True
    assert len(base["gram"]["measured"]) == 3
    for way in ("sweep", "no_top", "top"):
        peak = base["memory"][way]
        assert peak["mapped"] > 0
        assert ratios[f"{way}_over_largest"] == peak["anonymous"] / (4 * 96 * 160)


def test_the_bases_numbers_are_float64s(base):
    assert base["accuracy"]["norm"] < 1e-7
    assert base["accuracy"]["projection"] < 1e-6
    assert base["gram"]["krylov_off_by"] < 1e-6


def test_a_base_that_is_there_whole_is_used_again(tmp_path):
    family = synthetic.llama_7b(1, 32, 48)
    folder = base_7b.written_base(family, tmp_path)
    index = folder / "model.safetensors.index.json"
    before = index.stat().st_mtime_ns
    assert base_7b.written_base(family, tmp_path) == folder
    assert index.stat().st_mtime_ns == before
    base_7b.written_base(synthetic.llama_7b(2, 32, 48), tmp_path)
    assert index.stat().st_mtime_ns != before


def test_the_bases_table_says_what_was_extrapolated(base):
    printed = base_table(base)
    assert "EXTRAPOLATED" in printed
    assert f"{base['ratios']['sweep_over_floor_wall']:5.2f} wall" in printed


@pytest.mark.slow
@pytest.mark.skipif(
    not (browser.CHROMIUM and browser.DRIVER), reason="apt-get install chromium chromium-driver"
)
def test_pages_are_opened_and_painted():
    pytest.importorskip("selenium", reason="pip install selenium")
    out = page.run(synthetic.llama_7b(1, 96, 160), repeat=2)
    assert {name: one["modules"] for name, one in out["pages"].items()} == {
        "word": 0, "real": 12, "pair": 7, "high": 7,
    }  # fmt: skip
    for name, one in out["pages"].items():
        assert one["opened"].keys() == {"1", "4"}
        for times in one["opened"].values():
            assert 0 < times["paint"]["least"] <= times["content"]["median"]
            assert (times["map"] is None) == (name == "word")
            assert times["moved"]["most"] >= 0
    assert out["pages"]["high"]["bytes"] > out["pages"]["pair"]["bytes"]
    printed = page_table(out).splitlines()
    assert sum("Llama 7B, r = 63 and 64: 7 modules" in line for line in printed) == 3
    json.dumps(out, allow_nan=False)


def test_pages_need_a_browser(monkeypatch):
    monkeypatch.setattr(page, "DRIVER", None)
    with pytest.raises(SystemExit, match="apt-get install chromium"):
        page.run(synthetic.llama_7b(1, 96, 160))


def test_no_error_of_phi_is_beyond_its_bound():
    """Against 60 digits; docs/calibration.md has more cases."""
    rows = calibration.measure_accuracy(4, seed=1)
    assert len(rows) == 8
    assert all(row["cells"] > 0 and row["ratio"] <= 1 for row in rows)
    assert any(row["error"] > 0 for row in rows)
    assert calibration.accuracy_table(rows).count("\n") == 9


def test_rates_are_those_of_the_levels():
    """Few draws: within five standard errors of 0.05 and of twice that."""
    rows = calibration.measure_rates(2000, seed=3)
    assert len(rows) == len(calibration.nulls())
    for row in rows:
        noise = 5 * (0.05 * 0.95 / row["draws"]) ** 0.5
        assert row["rates"][0] <= 0.07 + noise, row["name"]
        assert row["rates"][0] >= 0.03 - noise, row["name"]
    assert calibration.rates_table(rows).startswith("| p-value |")


def test_the_tables_of_the_docs_are_whole():
    text = (ROOT / "docs" / "calibration.md").read_text()
    for null in calibration.nulls():
        assert f"| {null.name} |" in text
    ratios = [float(line.split("|")[-2]) for line in text.splitlines() if ", float" in line]
    assert len(ratios) == 8
    assert max(ratios) <= 1


def test_a_table_is_pasted_as_markdown(tmp_path):
    file = tmp_path / "x.md"
    file.write_text("a\n<!-- rates -->\nold\n<!-- end rates -->\nb\n")
    command.paste("rates", "| a |\n|---|", file)
    assert file.read_text() == "a\n<!-- rates -->\n\n| a |\n|---|\n\n<!-- end rates -->\nb\n"
    command.main(["accuracy", "--cases", "1", "--json"])
