"""DoRA as a whole: with the base given, delta W is what the writer's own merge adds to it.

The other writers' magnitudes are held to their own merge beside their other tests.
"""

import json

import numpy as np
import peft
import pytest
import torch
from safetensors.torch import load_file, save_file

import subspace
from subspace.adapters import LowRankUpdate
from subspace.errors import FormatError, NonFiniteError, ShapeError
from subspace.measures.diff.adapted import adapted_weight
from tests.support.peft_adapters import (
    PREFIX,
    edited,
    made,
    merged_deltas,
    tiny_bert,
    tiny_gpt2,
    two_linears,
    written,
)
from tests.support.verbs import run


def mixed() -> torch.nn.Module:
    torch.manual_seed(1)
    return torch.nn.ModuleDict(
        {
            "wte": torch.nn.Embedding(11, 6),
            "conv": torch.nn.Conv2d(4, 6, (3, 2)),
            "lin": torch.nn.Linear(6, 10),
        }
    )


def base_of(model, path):
    save_file({name: W.detach().clone() for name, W in model.state_dict().items()}, path)
    return path


@pytest.mark.parametrize(
    ("model", "config"),
    [
        (two_linears, {"target_modules": ["0", "2"]}),
        (mixed, {"target_modules": ["wte", "conv", "lin"], "lora_alpha": 5}),
        (mixed, {"target_modules": ["conv", "lin"], "use_rslora": True}),
        (
            tiny_gpt2,
            {"target_modules": ["c_attn", "c_proj"], "fan_in_fan_out": True, "r": 2},
        ),
    ],
)
def test_the_whole_update_is_what_peft_merges(tmp_path, model, config):
    plain = model()
    base = base_of(plain, tmp_path / "base.safetensors")
    wrapped = made(plain, use_dora=True, **config)
    adapter = subspace.load(written(wrapped, tmp_path / "run"))
    assert str(adapter.method) == "DoRA (BA part)"
    wanted = merged_deltas(wrapped)
    result = subspace.diff(base, adapter, energy=1.0)
    assert set(result) == set(wanted)
    assert result.tuned == adapter.name
    for name, delta in wanted.items():
        found, update = result[name], result.adapter[name]
        # PEFT holds W in float32 while it merges.
        assert (update.delta() - delta).norm() <= 1e-6 * delta.norm()
        assert found.delta_norm == pytest.approx(float(delta.norm()), rel=1e-6)
        S = np.linalg.svd(delta.detach().numpy(), compute_uv=False)
        np.testing.assert_allclose(found.sigma, S[: found.rank], rtol=1e-5, atol=1e-6 * S[0])
        assert found.rank > adapter[name].rank  # no update of its rank
        assert adapter.updates[name].rank == adapter[name].rank
    assert str(result.adapter.method) == "DoRA (all), its leading directions"
    assert result.adapter.updates.keys() == adapter.updates.keys()
    # And it goes wherever an adapter does.
    assert set(subspace.similarity(adapter, result.adapter, side="in")) == set(wanted)


def test_without_a_magnitude_it_is_b_times_a(tmp_path):
    plain = two_linears()
    base = base_of(plain, tmp_path / "base.safetensors")
    adapter = subspace.load(written(made(plain, target_modules=["0", "2"]), tmp_path / "run"))
    result = subspace.diff(base, adapter, rank=3)
    for name, update in adapter.items():
        kept = result.adapter[name].delta()
        assert (kept - update.delta()).norm() <= 1e-7 * update.delta().norm()
        assert result[name].energy == pytest.approx(1)
    assert any("no magnitude, so that B A is all" in note for note in result.notes)


@pytest.mark.parametrize("start", ["pissa", "olora"])
def test_an_adapter_of_a_base_that_its_start_changed_is_refused(tmp_path, start):
    """W + B A is not what peft makes of the base: it takes the start's factors out of W first."""
    plain = two_linears()
    base = base_of(plain, tmp_path / "base.safetensors")
    before = plain[0].weight.detach().double().clone()
    wrapped = made(plain, target_modules=["0"], init_lora_weights=start)
    adapter = subspace.load(written(wrapped, tmp_path / "run"))
    merged = wrapped.merge_and_unload()[0].weight.detach().double()
    assert (merged - before - adapter["0"].delta()).norm() > 0.01 * (merged - before).norm()
    with pytest.raises(FormatError, match="changed the base weights before training") as refused:
        subspace.diff(base, adapter)
    assert "path_initial_model_for_weight_conversion=START" in str(refused.value)


def test_what_an_adapters_file_says_of_it_goes_with_the_difference(tmp_path):
    plain = two_linears()
    base = base_of(plain, tmp_path / "base.safetensors")
    folder = written(made(plain, target_modules=["0"]), tmp_path / "run")
    adapter = subspace.load(edited(folder, init_lora_weights="loftq"))
    assert adapter.notes[0].startswith("init_lora_weights = 'loftq': LoftQ: B @ A began")
    assert adapter.notes[0] in subspace.diff(base, adapter).notes


@pytest.mark.parametrize("columns", [1, 2, 6])
def test_columns_and_blocks_of_them(columns):
    """LyCORIS without wd_on_output: norms over outputs and kernel, an input at a time."""
    generator = torch.Generator().manual_seed(columns)
    W, A, B = (torch.randn(*s, generator=generator) for s in ((5, 6), (2, 6), (5, 2)))
    m = torch.rand(1, columns, generator=generator) + 1
    found = adapted_weight(W, LowRankUpdate("q", A, B, 0.5, magnitude=m)).numpy()
    wanted = (W.double() + 0.5 * B.double() @ A.double()).numpy()
    width = 6 // columns
    for k in range(columns):
        block = wanted[:, k * width : (k + 1) * width]
        block *= float(m[0, k]) / np.sqrt((block**2).sum())
    np.testing.assert_allclose(found, wanted, rtol=1e-12)


def test_a_row_of_zeros_is_named(tmp_path):
    plain = two_linears()
    wrapped = made(plain, target_modules=["0"], use_dora=True)
    run = written(wrapped, tmp_path / "run")
    path = run / "adapter_model.safetensors"
    tensors = load_file(path)
    tensors[f"{PREFIX}0.lora_B.weight"][2] = 0
    save_file(tensors, path)
    W = torch.ones(10, 6)
    W[2] = 0
    base = tmp_path / "base.safetensors"
    save_file({"0.weight": W}, base)
    with pytest.raises(NonFiniteError, match="module '0' holds NaN or infinity"):
        subspace.diff(base, subspace.load(run))


def test_another_base_and_a_magnitude_that_fits_nowhere(tmp_path):
    wrapped = made(two_linears(), target_modules=["0"], use_dora=True)
    run = written(wrapped, tmp_path / "run")
    save_file({"0.weight": torch.ones(9, 6)}, tmp_path / "base.safetensors")
    with pytest.raises(ShapeError, match="is this the adapter's base model"):
        subspace.diff(tmp_path / "base.safetensors", subspace.load(run))
    tensors = load_file(run / "adapter_model.safetensors")
    tensors[f"{PREFIX}0.lora_magnitude_vector"] = torch.ones(7)
    save_file(tensors, run / "adapter_model.safetensors")
    with pytest.raises(FormatError, match=r"\(7,\) is no magnitude of module '0', 10 x 6"):
        subspace.load(run)


def test_on_the_command_line(tmp_path):
    plain = two_linears()
    base = base_of(plain, tmp_path / "base.safetensors")
    wrapped = made(plain, target_modules=["0", "2"], use_dora=True)
    written(wrapped, tmp_path / "run")
    done = run("diff", base, tmp_path / "run", "--rank", 4, "--out", tmp_path / "whole")
    assert done.stdout.startswith("run - base.safetensors: 2 of 2 modules changed")
    assert "note: run is an adapter" in done.stdout
    whole = subspace.load(tmp_path / "whole")
    expected = subspace.diff(base, subspace.load(tmp_path / "run"), rank=4).adapter
    for name, update in expected.items():
        torch.testing.assert_close(whole[name].delta(), update.delta(), rtol=1e-5, atol=1e-6)
    file = tmp_path / "run" / "adapter_model.safetensors"
    a, b = (json.loads(run("diff", base, t, "--json").stdout) for t in (tmp_path / "run", file))
    assert [m["sigma"] for m in a["modules"]] == [m["sigma"] for m in b["modules"]]
    assert isinstance(peft.PeftModel.from_pretrained(two_linears(), tmp_path / "whole"), object)


def test_what_is_neither_a_checkpoint_nor_an_adapter_is_told_as_a_checkpoint(tmp_path):
    base = base_of(two_linears(), tmp_path / "base.safetensors")
    (tmp_path / "empty").mkdir()
    assert "empty" in run("diff", base, tmp_path / "empty", code=2).stderr
    save_file({"blocks.0.lora_A": torch.ones(2, 6), "blocks.0.lora_B": torch.ones(10, 2)},
              tmp_path / "x.safetensors")  # fmt: skip
    # An adapter, of which alpha is missing: not taken for a checkpoint.
    assert "--alpha 16" in run("diff", base, tmp_path / "x.safetensors", code=2).stderr


def test_tokens_that_were_trained_beside(tmp_path):
    """Of k tokens the embedding's update has rank k, in the columns of these alone."""
    plain = tiny_bert(1)
    base = base_of(plain, tmp_path / "base.safetensors")
    indices = {"word_embeddings": [3, 5, 9]}
    wrapped = made(plain, target_modules=["query"], trainable_token_indices=indices)
    folder = written(wrapped, tmp_path / "run")
    adapter = subspace.load(folder)
    result = subspace.diff(base, adapter, energy=1.0)
    name = "bert.embeddings.word_embeddings"
    assert set(result) == {*adapter, name}
    layer = wrapped.get_submodule(f"base_model.model.{name}")
    with torch.no_grad():
        wanted = (layer(torch.arange(31)) - load_file(base)[f"{name}.weight"]).T.double()
    assert set(wanted.abs().sum(0).nonzero().flatten().tolist()) == {3, 5, 9}
    update = result.adapter[name]
    torch.testing.assert_close(update.delta(), wanted, rtol=1e-5, atol=1e-6)
    assert (update.rank, result[name].kind) == (3, "embedding")
    assert not any("no matrix's update" in note for note in result.notes)
    assert list(subspace.diff(base, adapter, modules="*embeddings")) == [name]
    for field in ({"word_embeddings": [3]}, [1, 2], None, {"other": [3, 5, 9]}):
        with pytest.raises(FormatError, match="does not say which tokens the 3 of"):
            subspace.diff(base, subspace.load(edited(folder, trainable_token_indices=field)))
    edited(folder, trainable_token_indices={"word_embeddings": [3, 5, 40]})
    with pytest.raises(ShapeError, match="tokens 3, 5, 40 of 12 numbers are not of"):
        subspace.diff(base, subspace.load(folder))
