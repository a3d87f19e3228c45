"""kohya's and LyCORIS's names, which have ``_`` for every dot, become the base's own."""

from __future__ import annotations

import json
import warnings
from copy import deepcopy

import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file

import subspace
from subspace.errors import UnknownModuleError
from subspace.pretrained import open_pretrained
from tests.support.diffusers_models import UNET, deltas, pipelines_file, text_encoder, unet
from tests.support.memory import the_same
from tests.support.peft_adapters import made, written
from tests.support.verbs import run

pytestmark = pytest.mark.filterwarnings("ignore:::peft", "ignore:::transformers")


def tiny_llama():
    torch.manual_seed(1)
    return transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            hidden_size=8, intermediate_size=12, num_hidden_layers=2, vocab_size=31,
            num_attention_heads=2, num_key_value_heads=1,
        )
    )  # fmt: skip


@pytest.fixture
def base(tmp_path):
    tiny_llama().save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def merged(folder):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # missing and unexpected keys
        wrapped = peft.PeftModel.from_pretrained(tiny_llama(), str(folder))
    return wrapped.double().merge_and_unload().state_dict()


def test_from_peft_to_kohya_and_back_no_bit_changes(base, tmp_path):
    wrapped = made(tiny_llama(), target_modules=["q_proj", "up_proj"], rank_pattern={"up_proj": 2})
    source, flat, back = (tmp_path / name for name in ("run", "flat.safetensors", "back"))
    written(wrapped, source)
    run("convert", source, flat, "--to", "kohya")
    assert (
        "only the base tells (subspace convert --base MODEL"
        in run("convert", flat, back, "--to", "peft", code=2).output
    )
    said = run("convert", flat, back, "--to", "peft", "--base", base).output
    assert "lora_unet_model_layers_0_self_attn_q_proj is model.layers.0.self_attn.q_proj" in said
    before, after = (load_file(place / "adapter_model.safetensors") for place in (source, back))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    wanted, found = merged(source), merged(back)
    assert all(torch.equal(wanted[name], found[name]) for name in wanted)


@pytest.mark.parametrize("side", ["in", "out", "A", "B"])
def test_one_adapter_in_all_formats_is_one_whatever_its_names(tmp_path, side):
    wrapped = made(tiny_llama(), target_modules=["q_proj", "up_proj"], r=3)
    source = written(wrapped, tmp_path / "run")
    places = {"peft": "p", "mlx": "m", "kohya": "k.safetensors", "loralib": "l.pt"}
    for format, place in places.items():
        run("convert", source, tmp_path / place, "--to", format)
    adapters = [subspace.load(source)] + [
        subspace.load(tmp_path / place, alpha=7 if format == "loralib" else None)
        for format, place in places.items()
    ]
    first = adapters[0]
    for other in adapters[1:]:
        compared = subspace.similarity(first, other, side=side)
        assert set(compared) == set(first)
        for module in compared.values():
            assert abs(module.phi[-1, -1] - 1) < 1e-12
        (again,) = subspace.align([first, other])[1:]
        for name, update in first.items():
            assert again[name].delta().norm() == update.delta().norm()


@pytest.mark.parametrize("format", ["peft", "mlx", "loralib"])
def test_what_lycoris_trained_on_a_language_model(base, tmp_path, format, monkeypatch):
    lycoris = pytest.importorskip("lycoris")
    model = deepcopy(tiny_llama())
    # Its preset is global, and other tests train other modules.
    monkeypatch.setattr(lycoris.LycorisNetwork, "TARGET_REPLACE_MODULE", ["LlamaAttention"])
    made_here = lycoris.create_lycoris(model, 1.0, linear_dim=3, linear_alpha=5, algo="lora")
    made_here.apply_to()
    for parameter in made_here.parameters():
        torch.nn.init.normal_(parameter)
    made_here.save_weights(str(tmp_path / "x.safetensors"), None, {"by": "lycoris"})
    place = tmp_path / ("out.pt" if format == "loralib" else "out")
    run("convert", tmp_path / "x.safetensors", place, "--to", format, "--base", base)
    flat = subspace.load(tmp_path / "x.safetensors")
    adapter = subspace.load(place, alpha=5 if format == "loralib" else None)
    names = {name for name, _ in tiny_llama().named_modules() if name.endswith("_proj")}
    assert set(adapter) == {name for name in names if "self_attn" in name}
    for name, update in adapter.items():
        theirs = flat["lycoris_" + name.replace(".", "_")]
        assert torch.equal(update.A, theirs.A)
        assert torch.equal(update.delta(), theirs.delta())


def test_a_measure_against_the_base_finds_them_too(base, tmp_path):
    wrapped = made(tiny_llama(), target_modules=["q_proj", "lm_head"])
    adapter = subspace.load(written(wrapped, tmp_path / "run"))
    out = subspace.save(adapter, tmp_path / "k.safetensors", "kohya", updates_only=True)
    flat = subspace.load(out.path)
    one, other = (subspace.amplification(x, base) for x in (adapter, flat))
    found = {row.module: (row.delta_norm, row.w_norm, row.factor) for row in other}
    for row in one:
        name = "lora_unet_" + row.module.replace(".", "_")
        assert found.pop(name) == (row.delta_norm, row.w_norm, row.factor)
    assert not found
    assert set(subspace.diff(base, flat).adapter) == set(adapter)


@pytest.mark.parametrize(
    ("flat", "own"),
    [
        ("lora_unet_model_layers_0_self_attn_q_proj", "model.layers.0.self_attn.q_proj"),
        ("lycoris_layers_1_mlp_up_proj", "model.layers.1.mlp.up_proj"),
        ("lora_te1_transformer_model_layers_1_mlp_up_proj", "model.layers.1.mlp.up_proj"),
        ("lycoris_lm_head", "lm_head"),
        ("model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.q_proj"),
        ("whatever", "whatever"),
    ],
)
def test_the_bases_own_name(base, flat, own):
    assert open_pretrained(base).named(flat) == own


def test_a_name_that_could_be_two_or_none(base, tmp_path):
    with pytest.raises(
        UnknownModuleError, match=r"no weight .*'lycoris_layers_9_mlp_up_proj'; the"
    ):
        open_pretrained(base).named("lycoris_layers_9_mlp_up_proj")
    torch.save(
        {"a.b_c.weight": torch.ones(2, 3), "a_b.c.weight": torch.ones(2, 3)}, tmp_path / "x.pt"
    )
    with pytest.raises(UnknownModuleError, match=r"could be 'a.b_c' or 'a_b.c'"):
        open_pretrained(tmp_path / "x.pt").named("lora_unet_a_b_c")


def test_another_base_and_names_of_ones_own(tmp_path):
    adapter = subspace.load(
        written(made(tiny_llama(), target_modules=["q_proj"]), tmp_path / "run")
    )
    flat = subspace.save(adapter.select("*.0.*"), tmp_path / "k.safetensors", "kohya").path
    name = next(iter(subspace.load(flat)))
    run("convert", flat, tmp_path / "own", "--to", "peft", "--rename", f"{name}=h.0.q")
    assert list(subspace.load(tmp_path / "own")) == ["h.0.q"]
    wide = transformers.LlamaConfig(
        hidden_size=16, intermediate_size=12, num_hidden_layers=1, vocab_size=31,
        num_attention_heads=2, num_key_value_heads=1,
    )  # fmt: skip
    transformers.LlamaForCausalLM(wide).save_pretrained(tmp_path / "other")
    said = run(
        "convert", flat, tmp_path / "no", "--to", "peft", "--base", tmp_path / "other", code=2
    ).output
    assert "the update is 8 x 8, W is 16 x 16" in said
    assert not (tmp_path / "no").exists()


@pytest.mark.filterwarnings("ignore:::diffusers")
def test_a_pipelines_adapter_gets_its_parts(tmp_path):
    pytest.importorskip("diffusers")

    source = pipelines_file(tmp_path)
    flat = subspace.save(source, tmp_path / "k.safetensors", "kohya").path
    pipeline = tmp_path / "pipeline"
    unet().save_pretrained(pipeline / "unet")
    (pipeline / "model_index.json").write_text(json.dumps({}))
    out = tmp_path / "out.safetensors"
    options = ("--to", "diffusers", "--base", pipeline)
    assert (
        "has no text_encoder, of which module 'lora_te_"
        in run("convert", flat, out, *options, code=2).output
    )
    text_encoder().save_pretrained(pipeline / "text_encoder")
    run("convert", flat, out, *options)
    the_same(source, subspace.load(out, strict=True))
    assert (
        "is a pipeline of several models, for --to diffusers"
        in run("convert", flat, tmp_path / "p", "--to", "peft", "--base", pipeline, code=2).output
    )


@pytest.mark.filterwarnings("ignore:::diffusers")
def test_pefts_adapter_of_one_model_of_a_pipeline_gets_its_part(tmp_path):
    pytest.importorskip("diffusers")

    source = written(made(unet(), **UNET), tmp_path / "run")
    pipeline, out = tmp_path / "pipeline", tmp_path / "out.safetensors"
    unet().save_pretrained(pipeline / "unet")
    text_encoder().save_pretrained(pipeline / "text_encoder")
    (pipeline / "model_index.json").write_text(json.dumps({}))
    assert (
        "wants the pipeline's part"
        in run("convert", source, out, "--to", "diffusers", code=2).output
    )
    run("convert", source, out, "--to", "diffusers", "--base", pipeline)
    adapter = subspace.load(source)
    assert set(subspace.load(out)) == {f"unet.{name}" for name in adapter}
    model = unet()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.load_lora_adapter(str(tmp_path), weight_name=out.name, prefix="unet")
    for name, delta in deltas(model, "").items():
        wanted = adapter[name].delta()
        assert (delta - wanted).norm() <= 1e-6 * wanted.norm(), name
