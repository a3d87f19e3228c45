"""``subspace demo`` on the real model and some of the real texts, with fewer steps."""

import csv
import io
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from subspace import training
from subspace.results import Demo, DemoRun
from tests.support.documents import held
from tests.support.tiny_world import write_world
from tests.support.verbs import run


@pytest.fixture
def short(tmp_path, monkeypatch):
    """The demo's runs, cut to what a test has time for: 3 steps, 126 texts."""
    whole = training.load_data("icd10")
    folder = tmp_path / "texts"
    folder.mkdir()
    for name in ("train", "validation", "test"):
        split = getattr(whole, name)
        rows = zip(split.texts, split.labels, strict=True)
        seen: dict[int, list[str]] = {}
        for text, label in rows:
            seen.setdefault(label, []).append(text)
        lines = [
            json.dumps({"text": text, "label": whole.labels[label]})
            for label, texts in sorted(seen.items())
            for text in texts[:2]
        ]
        (folder / f"{name}.jsonl").write_text("\n".join(lines))
    runs = {
        name: replace(config, steps=3, warmup=1, batch=8, data=str(folder))
        for name, config in training.DEMO.items()
    }
    monkeypatch.setattr(training, "DEMO", runs)


@pytest.mark.slow
@pytest.mark.usefixtures("short")
def test_demo_trains_compares_draws_and_reuses(tmp_path):
    first = run("demo", "--out", tmp_path / "demo")
    for name in ("r8", "r64", "r64-seed1"):
        assert (tmp_path / "demo" / "adapters" / name / "adapter_model.safetensors").exists()
    for figure in ("figure3.png", "figure4.png"):
        assert (tmp_path / "demo" / figure).read_bytes().startswith(b"\x89PNG")
    assert first.output.count("% before, ") == 3
    assert "phi of r8 (i) and r64 (j)" in first.output
    assert "phi of r64 (i) and r64-seed1 (j)" in first.output
    assert "amplification by r8 of" in first.output
    assert "Of W's directions, 'r8' meets" in first.output

    record = tmp_path / "demo" / "adapters" / "r8" / "training.json"
    written = record.stat().st_mtime_ns
    again = run("demo", "--out", tmp_path / "demo")
    assert again.output.count("used again") == 3
    assert record.stat().st_mtime_ns == written
    # All but the words on reuse is the same: the demo is deterministic.
    assert again.output.replace(" (trained before, used again)", "") == first.output


def test_demo_writes_json_and_csv_alone_to_stdout(tmp_path, monkeypatch):
    """The whole verb, on a model of two small layers."""
    world = write_world(tmp_path)
    runs = {
        name: replace(
            config, rank=min(config.rank, 4), steps=2, warmup=1, batch=4, eval_texts=4,
            model=str(world / "tiny-bert"), data=str(world / "texts.jsonl"),
        )
        for name, config in training.DEMO.items()
    }  # fmt: skip
    monkeypatch.setattr(training, "DEMO", runs)
    words = ["demo", "--out", str(tmp_path / "demo")]
    done = run(*words, "--json")
    plain = held(json.loads(done.stdout))
    assert [run["reused"] for run in plain["runs"]] == [False] * 3
    assert [pair["adapters"] for pair in plain["pairs"]] == [["r8", "r64"], ["r64", "r64-seed1"]]
    assert [table["adapter"] for table in plain["amplifications"]] == ["r8", "r64"]
    assert done.stderr.count("% before, ") == 3
    assert "wrote " in done.stderr
    for figure in plain["figures"]:
        assert Path(figure).read_bytes().startswith(b"\x89PNG")
    done = run(*words, "--csv")
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert [row["name"] for row in rows] == list(runs)
    assert [float(row["after"]) for row in rows] == [run["after"] for run in plain["runs"]]
    text = run(*words)
    for sentence in plain["findings"]:
        assert sentence in text.stdout
    done = run(*words, "--csv", "--json", code=2)
    assert "choose one" in done.stderr


def test_demo_without_its_extra_says_how_to_get_it(tmp_path, monkeypatch):
    """As on a core install: the task's package cannot be found."""
    from subspace.training.tasks.icd10 import icd10_texts

    monkeypatch.setitem(sys.modules, "simple_icd_10_cm", None)
    icd10_texts.cache_clear()
    done = run("demo", "--out", tmp_path / "demo", code=2)
    assert "pip install '.[demo]' in a clone, else pip install 'lora-subspace[demo]'" in done.output
    assert not (tmp_path / "demo").exists()


def test_the_result_of_a_demo_in_a_notebook():
    run = DemoRun(
        name="r8", rank=8, seed=2, before=0.05, after=0.5, reused=True, folder="demo/adapters/r8"
    )
    shown = Demo((run,), (), (), ("It <is> so.",), ())
    assert shown.to_frame()["after"].tolist() == [0.5]
    assert "<td>r8</td><td>8</td><td>2</td><td>5.0%</td><td>50.0%</td>" in shown._repr_html_()
    assert "It &lt;is&gt; so." in shown._repr_html_()
    assert repr(shown) == "Demo('r8')"
