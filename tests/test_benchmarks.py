"""The benchmarks run and say what they measured. No test here looks at how long anything took."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import __main__ as command
from benchmarks import rivals, synthetic
from benchmarks.printing import ROWS

TINY = ["pair-7b", "--layers", "1", "--hidden", "96", "--inner", "160", "--repeat", "1"]


@pytest.fixture(scope="module")
def out():
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *TINY, "--json"],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parent.parent,
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
