"""Kinds of files that programs for images and videos write, each held to a dense update."""

import json
import math

import pytest
import torch
from safetensors.torch import load_file, save_file

import subspace
from subspace.adapters.save import save
from subspace.errors import FormatError
from subspace.spectra import spectrum
from tests.support.verbs import run

R = 3


def factors(d_out=7, d_in=5, seed=0, kernel=()):
    generator = torch.Generator().manual_seed(seed)
    A = torch.randn(R, d_in, *kernel, generator=generator)
    B = torch.randn(d_out, R, *(1 for _ in kernel), generator=generator)
    return A, B


def dense(A, B, scale):
    return scale * (B.flatten(1).double() @ A.flatten(1).double())


def opened(path, tensors, metadata=None, **options):
    save_file({name: t.contiguous() for name, t in tensors.items()}, path, metadata)
    return subspace.load(path, **options)


@pytest.fixture
def file(tmp_path):
    return tmp_path / "x.safetensors"


# Scales


@pytest.mark.parametrize("kernel", [(), (3, 3)])
@pytest.mark.parametrize("alpha", [None, 12.0, 0.0])
def test_a_scale_of_its_own_stands_before_alpha(file, kernel, alpha):
    """extensions-builtin/Lora/network.py of A1111's web UI, `calc_scale`."""
    A, B = factors(kernel=kernel)
    name = "lora_unet_down_blocks_1_resnets_0_conv1"
    tensors = {f"{name}.lora_down.weight": A, f"{name}.lora_up.weight": B,
               f"{name}.scale": torch.tensor(0.25)}  # fmt: skip
    if alpha is not None:
        tensors[f"{name}.alpha"] = torch.tensor(alpha)
    adapter = opened(file, tensors, strict=True)
    assert torch.equal(adapter[name].delta(), dense(A, B, 0.25))
    (note,) = adapter.notes
    assert note.startswith(f"{name}: a .scale of its own")
    tensors[f"{name}.scale"] = torch.ones(2)
    with pytest.raises(FormatError, match="should hold one number"):
        opened(file, tensors)


@pytest.mark.parametrize("name", ["blocks.3.ffn.0", "double_blocks.0.img_attn.proj"])
def test_what_lacks_an_alpha_in_comfyuis_file_has_scale_one(file, name):
    tensors = {}
    for n in range(4):
        A, B = factors(seed=n)
        tensors[f"diffusion_model.{name}{n}.lora_A.weight"] = A
        tensors[f"diffusion_model.{name}{n}.lora_B.weight"] = B
        if n:
            tensors[f"diffusion_model.{name}{n}.alpha"] = torch.tensor(6.0)
    adapter = opened(file, tensors)
    assert [u.scale for u in dict(adapter).values()] == [1.0, 2.0, 2.0, 2.0]
    assert any(note.startswith(f"{name}0: no alpha is stored") for note in adapter.notes)


@pytest.mark.parametrize("part", ["", "transformer."])
@pytest.mark.parametrize(("stored", "scale"), [(6.0, 2.0), (1.5, 0.5)])
def test_alpha_in_tensors_and_in_the_metadata(file, part, stored, scale):
    A, B = factors()
    path = "transformer_blocks.0.attn.to_q"
    front = part or "diffusion_model."
    config = {f"{part}r": R, f"{part}lora_alpha": 6, f"{part}target_modules": [path]}
    tensors = {f"{front}{path}.lora_A.weight": A, f"{front}{path}.lora_B.weight": B,
               f"{front}{path}.alpha": torch.tensor(stored)}  # fmt: skip
    adapter = opened(file, tensors, {"lora_adapter_metadata": json.dumps(config)})
    assert torch.equal(adapter[f"{part}{path}"].delta(), dense(A, B, scale))
    assert any("differs" in note for note in adapter.notes) == (scale != 2.0)


@pytest.mark.parametrize(
    "module",
    ["blocks.0.self_attn.q", "transformer.blocks.0.attn.to_q", "unet.mid_block.attentions.0.to_k",
     "diffusion_model.blocks.1.ffn.0", "single_transformer_blocks.2.proj_mlp"],
)  # fmt: skip
@pytest.mark.parametrize("adapter_name", ["default", "default_0", "style"])
def test_a_live_models_names_have_scale_one(file, module, adapter_name):
    A, B = factors()
    tensors = {f"{module}.lora_A.{adapter_name}.weight": A,
               f"{module}.lora_B.{adapter_name}.weight": B}  # fmt: skip
    adapter = opened(file, tensors, strict=True)
    assert torch.equal(adapter[module.removeprefix("diffusion_model.")].delta(), dense(A, B, 1.0))
    assert any("no alpha is stored" in note for note in adapter.notes)


def test_a_live_language_model_still_needs_its_alpha(file):
    A, B = factors()
    name = "base_model.model.model.layers.0.q_proj"
    tensors = {f"{name}.lora_A.default.weight": A, f"{name}.lora_B.default.weight": B}
    with pytest.raises(subspace.SubspaceError, match="alpha"):
        opened(file, tensors)


@pytest.mark.parametrize("front", ["", "base_model.model."])
def test_fluxs_own_files_have_scale_one_and_norms_beside(file, front):
    """Flux control LoRAs of Black Forest Labs, and files in PEFT's prefix of the same blocks."""
    A, B = factors()
    name = f"{front}single_blocks.7.linear2"
    tensors = {
        f"{name}.lora_A.weight": A,
        f"{name}.lora_B.weight": B,
        f"{name}.lora_B.bias": torch.ones(7),
        f"{front}single_blocks.7.norm.query_norm.scale": torch.ones(4),
    }
    adapter = opened(file, tensors, strict=True)
    assert torch.equal(adapter["single_blocks.7.linear2"].delta(), dense(A, B, 1.0))
    assert len(adapter.set_aside) == 2


# One factor, two names; what is beside


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("transformer.blocks.0.ff.lora_{A}.weight", "transformer.blocks.0.ff.lora.{down}.weight"),
        ("unet.mid.attn1.to_q.lora_{A}.weight", "unet.mid.attn1.processor.to_q_lora.{down}.weight"),
        ("diffusion_model.blocks.0.q.lora_{down}.weight", "blocks.0.q.lora_{down}.weight"),
    ],
)  # fmt: skip
def test_a_factor_that_is_stored_twice_is_one(file, one, other):
    A, B = factors()
    slots = ({"A": "A", "down": "down"}, A), ({"A": "B", "down": "up"}, B)
    tensors = {name.format(**words): t.clone() for name in (one, other) for words, t in slots}
    adapter = opened(file, tensors, strict=True)
    (update,) = dict(adapter).values()
    assert torch.equal(update.delta(), dense(A, B, 1.0))
    assert len(adapter.set_aside) == 2
    tensors[other.format(A="A", down="down")] = A + 1
    with pytest.raises(FormatError, match=r"are the same factor of .* not equal"):
        opened(file, tensors)


@pytest.mark.parametrize("pair", [("lora_A", "lora_B"), ("lora_down", "lora_up")])
def test_full_differences_are_set_aside_beside_either_naming(file, pair):
    A, B = factors()
    name = "diffusion_model.blocks.0.cross_attn.v"
    tensors = {
        f"{name}.{pair[0]}.weight": A,
        f"{name}.{pair[1]}.weight": B,
        f"{name}.diff_b": torch.ones(7),
        "diffusion_model.patch_embedding.diff": torch.ones(4, 4),
        "diffusion_model.blocks.0.norm3.diff": torch.ones(4),
    }
    adapter = opened(file, tensors, strict=True)
    assert list(adapter) == ["blocks.0.cross_attn.v"]
    assert len(adapter.set_aside) == 3


def test_learned_words_beside_comfyuis_names(file):
    A, B = factors()
    name = "text_encoders.clip_l.transformer.text_model.encoder.layers.0.mlp.fc1"
    tensors = {f"{name}.lora_A.weight": A, f"{name}.lora_B.weight": B,
               "bundle_emb.cat.clip_l": torch.ones(2, 4)}  # fmt: skip
    adapter = opened(file, tensors, strict=True)
    assert torch.equal(adapter[name].delta(), dense(A, B, 1.0))


@pytest.mark.parametrize("part", ["unet", "text_encoder"])
def test_a_part_that_is_named_twice_is_one(file, part):
    A, B = factors()
    tensors = {f"{part}.{part}.mid_block.q.lora.down.weight": A,
               f"{part}.{part}.mid_block.q.lora.up.weight": B}  # fmt: skip
    adapter = opened(file, tensors)
    assert list(adapter) == [f"{part}.mid_block.q"]
    assert any("twice" in note for note in adapter.notes)


# Shapes and dtypes


@pytest.mark.parametrize("kernel", [(3,), (3, 3), (1, 2, 2)])
def test_loha_of_a_convolution_with_its_dimensions(file, kernel):
    """modules/module/LoRAModule.py of OneTrainer, `make_weight`: the product of both, laid flat."""
    A1, B1 = factors(seed=1, kernel=kernel)
    A2, B2 = factors(seed=2, kernel=kernel)
    name = "lora_unet_input_blocks_1_0_in_layers_2"
    tensors = {f"{name}.hada_w1_a": B1, f"{name}.hada_w1_b": A1, f"{name}.hada_w2_a": B2,
               f"{name}.hada_w2_b": A2, f"{name}.alpha": torch.tensor(1.0)}  # fmt: skip
    adapter = opened(file, tensors, strict=True)
    wanted = dense(A1, B1, 1.0) * dense(A2, B2, 1.0) / R
    assert torch.allclose(adapter[name].delta(), wanted, rtol=1e-12)
    assert adapter.updates[name].kernel == kernel
    assert adapter.updates[name].kind == f"conv{len(kernel)}d"


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
@pytest.mark.parametrize("names", [("lora_unet_q.lora_down.weight", "lora_unet_q.lora_up.weight"),
                                   ("unet.q.lora_A.weight", "unet.q.lora_B.weight")])  # fmt: skip
def test_float8_factors_are_read_as_they_are_stored(tmp_path, dtype, names):
    exact = factors(40, 30)
    A, B = (t.to(dtype) for t in exact)
    adapter = opened(tmp_path / "x.safetensors", dict(zip(names, (A, B), strict=True)))
    (module,) = adapter
    update = adapter[module]
    assert torch.equal(update.delta(), dense(A.float(), B.float(), 1.0))
    # Rounding the exact factors to float8 is within what the level states.
    moved = torch.linalg.matrix_norm(update.delta() - dense(*exact, 1.0), 2)
    assert float(moved) <= spectrum(update).level
    assert math.isclose(subspace.similarity(adapter, adapter)[module].phi[0, 0], 1)
    out = tmp_path / "out.safetensors"
    save(adapter, out, "kohya")
    assert {t.dtype for t in load_file(out).values()} == {torch.float32}
    again = subspace.load(out)
    assert torch.equal(next(iter(dict(again).values())).delta(), update.delta())


def test_float8_in_pefts_folder(tmp_path):
    A, B = (t.to(torch.float8_e4m3fn) for t in factors())
    config = {"peft_type": "LORA", "r": R, "lora_alpha": 6, "target_modules": ["q"]}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    prefix = "base_model.model.layers.0.q"
    save_file({f"{prefix}.lora_A.weight": A, f"{prefix}.lora_B.weight": B},
              tmp_path / "adapter_model.safetensors")  # fmt: skip
    update = subspace.load(tmp_path)["layers.0.q"]
    assert torch.equal(update.delta(), dense(A.float(), B.float(), 2.0))


# What is not read is called by its name


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("lora_controlnet", "Control-LoRA"),
        ("ip_adapter.1.to_k_ip.weight", "IP-Adapter"),
        ("controlnet_cond_embedding.conv_in.weight", "a ControlNet"),
        ("transformer_blocks.0.mlp_fc1.proj_down", "nunchaku"),
        ("transformer_blocks.0.mlp_context_fc1.lora_down", "nunchaku"),
    ],
)
def test_a_layout_that_is_known_and_not_read_is_named(file, name, what):
    with pytest.raises(FormatError, match=what):
        opened(file, {name: torch.ones(2, 2), "other": torch.ones(2)})


@pytest.mark.parametrize("name", ["x.safetensors", "adapter_model.bin", "x.gguf"])
def test_a_pointer_of_git_lfs_is_called_one(tmp_path, name):
    digest = "0" * 64
    text = f"version https://git-lfs.github.com/spec/v1\noid sha256:{digest}\nsize 12\n"
    (tmp_path / name).write_text(text)
    shown = run("inspect", tmp_path / name, code=2).stderr
    assert f"{name}: a Git LFS pointer" in shown
    assert "git lfs pull" in shown


def test_a_config_that_is_a_pointer_of_git_lfs(tmp_path):
    A, B = factors()
    save_file({"base_model.model.q.lora_A.weight": A, "base_model.model.q.lora_B.weight": B},
              tmp_path / "adapter_model.safetensors")  # fmt: skip
    (tmp_path / "adapter_config.json").write_text("version https://git-lfs.github.com/spec/v1\n")
    assert "git lfs pull" in run("inspect", tmp_path, code=2).stderr
