"""The options that say how adapters are read: the same in every verb that takes adapters."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.support.samples import R8
from tests.support.verbs import run


@pytest.fixture
def loralib(tmp_path):
    """Write r8's factors as loralib does: no alpha, no config, names of its own prefix."""
    held = load_file(f"{R8}/adapter_model.safetensors")
    factors = {
        name.removeprefix("base_model.model.bert.").removesuffix(".weight"): tensor
        for name, tensor in held.items()
        if "lora_" in name
    }
    save_file(factors, tmp_path / "weights.safetensors")
    return tmp_path / "weights.safetensors"


@pytest.mark.parametrize("verb", ["similarity", "interference"])
def test_alpha_for_a_format_that_does_not_store_it(verb, loralib):
    asked = run(verb, R8, loralib, code=2)
    assert "--alpha" in asked.stderr
    done = run(verb, R8, loralib, "--alpha", "16", "--json")
    assert len(json.loads(done.stdout)["modules"]) == 12  # matched without bert.


def test_the_same_update_in_two_formats_is_the_same(loralib):
    done = run("similarity", R8, loralib, "--alpha", "16", "--side", "in", "--json")
    for module in json.loads(done.stdout)["modules"]:
        phi = torch.tensor([[x if x is not None else 1.0 for x in row] for row in module["phi"]])
        assert phi.diagonal().sub(1).abs().max() < 1e-9
    merged = json.loads(run("interference", R8, loralib, "--alpha", "16", "--json").stdout)
    assert merged["modules"][0]["pairs"][0]["cosine"] == pytest.approx(1)


def test_a_module_of_another_name_is_matched_by_map(tmp_path, loralib):
    held = load_file(loralib)
    one = "encoder.layer.0.attention.self.query"
    save_file(
        {name.replace(one, "something"): t for name, t in held.items() if one in name},
        tmp_path / "b.safetensors",
    )
    b = tmp_path / "b.safetensors"
    full = "bert." + one
    alone = run("similarity", R8, b, "--alpha", "16", code=2)
    assert "no module in common" in alone.stderr
    mapped = run("similarity", R8, b, "--alpha", "16", "--rename", f"something={full}", "--json")
    assert [m["module"] for m in json.loads(mapped.stdout)["modules"]] == [full]
    assert (
        "write OLD=NEW" in run("similarity", R8, b, "--alpha", "16", "--rename", "a", code=2).stderr
    )


@pytest.mark.parametrize("verb", ["inspect", "rank"])
def test_strict_refuses_what_is_not_understood(verb, tmp_path):
    held = load_file(f"{R8}/adapter_model.safetensors")
    save_file({**held, "mystery": torch.ones(2)}, tmp_path / "adapter_model.safetensors")
    shutil.copy(f"{R8}/adapter_config.json", tmp_path)
    run(verb, tmp_path)
    refused = run(verb, tmp_path, "--strict", code=2)
    assert "1 tensors are not understood: mystery" in refused.stderr


def test_explain_says_why(loralib):
    line = next(x for x in run("inspect", R8, "--explain").stdout.splitlines() if "why" in x)
    assert "peft_type" in line
    assert ".lora_A" in run("inspect", loralib, "--alpha", "16", "--explain").stdout


def test_the_report_repeats_how_the_adapters_were_read(loralib, tmp_path):
    out = tmp_path / "r.json"
    run("report", R8, loralib, "--alpha", "16", "--strict", "--json", "--out", out)
    assert "--alpha 16 " in json.loads(out.read_text())["command"]
    assert "--strict" in json.loads(out.read_text())["command"]


def test_a_pattern_reads_names_of_ones_own(loralib, tmp_path):
    own = "A={m*}.lora_A, B={m*}.lora_B, alpha=16"
    for pattern in (own, tmp_path / "own.toml"):
        if pattern is not own:
            pattern.write_text('A = "{m*}.lora_A"\nB = "{m*}.lora_B"\nalpha = 16\n')
        done = run("inspect", loralib, "--pattern", pattern, "--explain")
        assert "own pattern" in done.stdout.split("method")[0]
        assert "12 modules" in done.stdout
    run("inspect", loralib, "--pattern", "A=x.{n}, B=y.{n}, alpha=1", code=2)


def test_one_adapter_of_a_file_that_holds_several(tmp_path):
    """As a live model's state dict has them: their names are in those of the tensors."""
    held = load_file(f"{R8}/adapter_model.safetensors")
    folder = tmp_path / "run"
    folder.mkdir()
    shutil.copy(f"{R8}/adapter_config.json", folder)
    factors = {name: tensor for name, tensor in held.items() if "lora_" in name}
    both = {
        name.replace(".weight", f".{called}.weight"): factor * tensor
        for name, tensor in factors.items()
        for called, factor in (("one", 1.0), ("two", 2.0))
    }
    save_file(both, folder / "adapter_model.safetensors")
    asked = run("similarity", R8, folder, code=2)
    assert "or --adapter-name" in asked.stderr
    shown = run("inspect", folder, "--explain", "--adapter-name", "two")
    assert "updates    12 modules" in shown.stdout
    out = tmp_path / "out"
    options = ("--to", "peft", "--adapter-name", "two", "--updates-only")
    run("convert", folder, out, *options)
    written = load_file(out / "adapter_model.safetensors")
    assert written.keys() == factors.keys()
    assert all(torch.equal(written[name], 2 * factors[name]) for name in factors)
    assert "no adapter 'three'" in run("inspect", folder, "--adapter-name", "three", code=2).stderr


def test_a_name_that_is_not_used_is_told(loralib):
    shown = run("inspect", loralib, "--alpha", "16", "--adapter-name", "two")
    assert "'two' was given and is not used: a file of loralib holds one adapter" in shown.stdout
