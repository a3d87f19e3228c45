"""``subspace demo`` on the real model and data, with fewer steps than a user's."""

import os
from dataclasses import replace

import pytest
from click.testing import CliRunner

from subspace.cli import main


@pytest.mark.slow
def test_demo_trains_compares_draws_and_reuses(tmp_path, monkeypatch):
    import subspace.training as training

    short = {name: replace(c, steps=3, warmup=1) for name, c in training.DEMO.items()}
    monkeypatch.setattr(training, "DEMO", short)
    first = CliRunner().invoke(main, ["demo", "--out", str(tmp_path / "demo")])
    assert first.exit_code == 0, first.output
    for name in ("r8", "r64", "r64-seed1"):
        assert (tmp_path / "demo" / "adapters" / name / "adapter_model.safetensors").exists()
    for figure in ("figure3.png", "figure4.png"):
        assert (tmp_path / "demo" / figure).read_bytes().startswith(b"\x89PNG")
    assert first.output.count("% before, ") == 3
    assert "phi of r8 (i) and r64 (j)" in first.output
    assert "phi of r64 (i) and r64-seed1 (j)" in first.output

    written = os.stat(tmp_path / "demo" / "adapters" / "r8" / "training.json").st_mtime_ns
    again = CliRunner().invoke(main, ["demo", "--out", str(tmp_path / "demo")])
    assert again.exit_code == 0, again.output
    assert again.output.count("used again") == 3
    assert os.stat(tmp_path / "demo" / "adapters" / "r8" / "training.json").st_mtime_ns == written
    # All but the words on reuse is the same: the demo is deterministic.
    assert again.output.replace(" (trained before, used again)", "") == first.output


def test_demo_without_its_extra_says_how_to_get_it(tmp_path, monkeypatch):
    """As on a core install: the task's package cannot be found."""
    import sys

    monkeypatch.setitem(sys.modules, "simple_icd_10_cm", None)
    from subspace.training.icd10 import icd10_texts

    getattr(icd10_texts, "cache_clear", lambda: None)()
    done = CliRunner().invoke(main, ["demo", "--out", str(tmp_path / "demo")])
    assert done.exit_code == 2
    assert "lora-subspace[demo]" in done.output
    assert not (tmp_path / "demo").exists()
