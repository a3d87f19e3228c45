"""Models' own names and diffusers': each table against diffusers' own conversion of such a file."""

import pytest
import torch
from safetensors.torch import save_file

import subspace
from subspace.modules.fused import list_in_diffusers

conversion = pytest.importorskip("diffusers.loaders.lora_conversion_utils")

R = 2
FLUX2 = {
    **{f"double_blocks.1.{side}_{what}": shape
       for side in ("img", "txt")
       for what, shape in {"attn.qkv": (18, 5), "attn.proj": (7, 6), "mlp.0": (9, 4),
                           "mlp.2": (4, 9)}.items()},
    "single_blocks.0.linear1": (40, 4), "single_blocks.0.linear2": (6, 8),
    "img_in": (5, 3), "txt_in": (6, 3), "time_in.in_layer": (7, 3), "time_in.out_layer": (7, 7),
    "guidance_in.in_layer": (8, 3), "guidance_in.out_layer": (8, 8), "final_layer.linear": (4, 11),
    "single_stream_modulation.lin": (9, 2), "double_stream_modulation_img.lin": (12, 2),
    "double_stream_modulation_txt.lin": (13, 2),
}  # fmt: skip
HUNYUAN = {
    **{f"double_blocks.0.{side}_{what}": shape
       for side in ("img", "txt")
       for what, shape in {"attn_qkv": (18, 5), "attn_proj": (7, 6), "mlp.fc1": (9, 4),
                           "mlp.fc2": (4, 9), "mod.linear": (12, 3)}.items()},
    "single_blocks.2.linear1": (3 * 3072 + 5, 4), "single_blocks.2.linear2": (6, 8),
    "single_blocks.2.modulation.linear": (9, 3), "img_in.proj": (5, 3), "time_in.mlp.0": (7, 3),
    "time_in.mlp.2": (7, 7), "guidance_in.mlp.0": (8, 3), "vector_in.in_layer": (6, 3),
    "vector_in.out_layer": (6, 6), "final_layer.linear": (4, 11),
    "txt_in.input_embedder": (9, 2), "txt_in.t_embedder.mlp.0": (10, 2),
    "txt_in.c_embedder.linear_1": (11, 2),
    "txt_in.individual_token_refiner.blocks.1.self_attn_proj": (6, 6),
    "txt_in.individual_token_refiner.blocks.1.mlp.fc1": (9, 6),
    "txt_in.individual_token_refiner.blocks.1.adaLN_modulation.1": (12, 6),
}  # fmt: skip
LUMINA = {
    f"{row}.0.{what}": shape
    for row in ("layers", "noise_refiner", "context_refiner")
    for what, shape in {"attention.qkv": (2304 + 2 * 768, 4), "attention.out": (6, 5),
                        "feed_forward.w1": (9, 4), "feed_forward.w2": (4, 9),
                        "feed_forward.w3": (9, 3), "adaLN_modulation.1": (8, 2)}.items()
    if (row, what) != ("context_refiner", "adaLN_modulation.1")
}  # fmt: skip
WAN = {
    **{f"blocks.0.{kind}_attn.{part}": shape
       for kind in ("self", "cross")
       for part, shape in {"q": (8, 3), "k": (8, 4), "v": (8, 5), "o": (3, 8)}.items()},
    "blocks.0.cross_attn.k_img": (8, 6), "blocks.0.cross_attn.v_img": (8, 7),
    "blocks.0.ffn.0": (9, 3), "blocks.0.ffn.2": (3, 9), "time_projection.1": (5, 2),
    "head.head": (4, 3),
}  # fmt: skip
MODELS = {
    "flux2": (FLUX2, conversion._convert_non_diffusers_flux2_lora_to_diffusers),
    "hunyuan-video": (HUNYUAN, conversion._convert_hunyuan_video_lora_to_diffusers),
    "lumina2": (LUMINA, conversion._convert_non_diffusers_lumina2_lora_to_diffusers),
    "wan": (WAN, conversion._convert_non_diffusers_wan_lora_to_diffusers),
}


def dotted(modules, seed=0):
    """ComfyUI's file of one adapter, its scale 1."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, (d_out, d_in) in modules.items():
        tensors[f"diffusion_model.{name}.lora_A.weight"] = torch.randn(R, d_in, generator=generator)
        tensors[f"diffusion_model.{name}.lora_B.weight"] = torch.randn(
            d_out, R, generator=generator
        )
    return tensors


def flat(tensors):
    """The same file as kohya's and musubi-tuner's programs name it."""
    out = {}
    for name, tensor in tensors.items():
        path, _, end = name.removeprefix("diffusion_model.").rpartition(".lora_")
        slot = {"A.weight": "lora_down", "B.weight": "lora_up"}[end]
        out[f"lora_unet_{path.replace('.', '_')}.{slot}.weight"] = tensor
        out[f"lora_unet_{path.replace('.', '_')}.alpha"] = torch.tensor(float(R))
    return out


def written(path, tensors):
    save_file({name: t.contiguous().clone() for name, t in tensors.items()}, path)
    return subspace.load(path)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("namer", [dict, flat], ids=["dotted", "flat"])
@pytest.mark.parametrize("diffusers_first", [True, False])
def test_one_adapter_in_both_namings_is_one(tmp_path, model, namer, diffusers_first):
    modules, convert = MODELS[model]
    tensors = dotted(modules)
    native = written(tmp_path / "native.safetensors", namer(tensors))
    theirs = written(tmp_path / "diffusers.safetensors", convert(dict(tensors)))
    pair = (theirs, native) if diffusers_first else (native, theirs)
    one, other = subspace.align(pair)
    assert set(one) == set(other)
    assert len(one) == len(theirs) > len(native) - 1
    for name, update in one.items():
        assert torch.equal(update.delta(), other[name].delta()), name
    result = subspace.interference(pair)
    assert result.pairs[0].cosine == pytest.approx(1, abs=1e-12)
    assert not any(result.alone)


@pytest.mark.parametrize("model", MODELS)
def test_every_name_of_the_table_is_one_of_diffusers(model):
    modules, convert = MODELS[model]
    theirs = {name.split(".lora_")[0].removeprefix("transformer.")
              for name in convert(dotted(modules))}  # fmt: skip
    for name in modules:
        readings = list_in_diffusers(name)
        assert any(set(paths) <= theirs for paths in readings), name


def test_musubis_split_z_image_meets_comfyuis_fused(tmp_path):
    """networks/convert_z_image_lora_to_comfy.py: ranks side by side, B block-diagonal."""
    generator = torch.Generator().manual_seed(1)
    rows = {"q": 6, "k": 6, "v": 6}
    A = {part: torch.randn(R, 5, generator=generator) for part in rows}
    B = {part: torch.randn(n, R, generator=generator) for part, n in rows.items()}
    split = {}
    for part in rows:
        split[f"lora_unet_context_refiner_0_attention_to_{part}.lora_down.weight"] = A[part]
        split[f"lora_unet_context_refiner_0_attention_to_{part}.lora_up.weight"] = B[part]
        split[f"lora_unet_context_refiner_0_attention_to_{part}.alpha"] = torch.tensor(1.0)
    fused = "diffusion_model.context_refiner.0.attention.qkv"
    whole = {
        f"{fused}.lora_down.weight": torch.cat(list(A.values())),
        f"{fused}.lora_up.weight": torch.block_diag(*B.values()),
        f"{fused}.alpha": torch.tensor(3.0),
    }
    pair = (
        written(tmp_path / "split.safetensors", split),
        written(tmp_path / "whole.safetensors", whole),
    )
    for both in (pair, pair[::-1]):
        for side in ("A", "B", "in", "out"):
            result = subspace.similarity(*both, side=side)
            assert len(result) == 3
            for module in result.values():
                assert module.phi.shape == (R, R)
                assert module.phi[0, 0] == pytest.approx(1, abs=1e-9)
    # The other part's columns are no directions of A that this one reads.
    assert {len(u.A) for u in subspace.align(pair)[1].values()} == {R}


def test_a_part_whose_rows_are_zero_keeps_what_it_has(tmp_path):
    A, B = torch.randn(R, 5), torch.randn(18, R)
    B[6:12] = 0
    whole = written(tmp_path / "whole.safetensors", {
        "lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight": A,
        "lora_unet_double_blocks_0_img_attn_qkv.lora_up.weight": B})  # fmt: skip
    part = "transformer.transformer_blocks.0.attn.to_{}"
    split = written(tmp_path / "split.safetensors", {
        f"{part.format(p)}.lora_{slot}.weight": t
        for n, p in enumerate("qkv") for slot, t in (("A", A), ("B", B[6 * n : 6 * n + 6]))
    })  # fmt: skip
    for name, update in subspace.align([split, whole])[1].items():
        assert torch.equal(update.B, split[name].B), name


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("lora_te3_encoder_block_0_layer_0_SelfAttention_q",
         "text_encoder_2.encoder.block.0.layer.0.SelfAttention.q"),
        ("text_encoders.t5xxl.transformer.encoder.block.1.layer.1.DenseReluDense.wo",
         "text_encoder_3.encoder.block.1.layer.1.DenseReluDense.wo"),
        ("text_encoders.clip_l.transformer.text_model.encoder.layers.0.mlp.fc1",
         "text_encoder.text_model.encoder.layers.0.mlp.fc1"),
        ("text_encoders.clip_g.transformer.text_model.encoder.layers.3.mlp.fc2",
         "lora_te2_text_model_encoder_layers_3_mlp_fc2"),
        ("text_encoders.llama.transformer.model.layers.0.self_attn.q_proj",
         "text_encoder.layers.0.self_attn.q_proj"),
        ("lora_unet_mid_block_attentions_0_proj_in_", "unet.mid_block.attentions.0.proj_in"),
        ("lora_unet_unet_mid_block_resnets_0_conv1", "unet.mid_block.resnets.0.conv1"),
    ],
)  # fmt: skip
def test_one_module_under_two_programs_names(name, other):
    def made(module):
        update = subspace.LowRankUpdate(module, torch.ones(1, 3), torch.ones(4, 1), 1.0)
        return subspace.Adapter.from_updates({module: update})

    for pair in ((name, other), (other, name)):
        one, two = subspace.align([made(module) for module in pair])
        assert set(one) == set(two) == {pair[0]}


def test_two_text_encoders_stay_apart():
    path = "encoder.layers.0.mlp.fc1"

    def made(*modules):
        return subspace.Adapter.from_updates({
            module: subspace.LowRankUpdate(module, torch.ones(1, 3), torch.ones(4, 1), 1.0)
            for module in modules
        })  # fmt: skip

    comfy = [
        f"text_encoders.{which}.transformer.text_model.{path}" for which in ("clip_l", "clip_g")
    ]
    theirs = [f"text_encoder{n}.text_model.{path}" for n in ("", "_2")]
    one, two = subspace.align([made(*theirs), made(*comfy[::-1])])
    assert list(two) == list(one) == theirs
    assert any(f"{comfy[0]} is {theirs[0]}" in note for note in two.notes)
