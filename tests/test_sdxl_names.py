"""SDXL's UNet in kohya's naming and in diffusers', as diffusers itself converts the one."""

from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

import subspace
from subspace.modules.sdxl import in_diffusers

conversion = pytest.importorskip("diffusers.loaders.lora_conversion_utils")

R = 2
ATTENTION = ("proj_in", "transformer_blocks_0_attn1_to_q", "transformer_blocks_1_attn2_to_out_0",
             "transformer_blocks_0_ff_net_0_proj", "transformer_blocks_0_ff_net_2")  # fmt: skip
RESNET = ("in_layers_2", "out_layers_3", "emb_layers_1")
MODULES = [
    *(f"input_blocks_{n}_1_{what}" for n in (4, 5, 7, 8) for what in ATTENTION),
    *(f"input_blocks_{n}_0_{what}" for n in (1, 2, 4, 8) for what in RESNET),
    *("input_blocks_3_0_op", "input_blocks_6_0_op", "input_blocks_4_0_skip_connection"),
    *(f"middle_block_1_{what}" for what in ATTENTION),
    *(f"middle_block_{n}_{what}" for n in (0, 2) for what in RESNET),
    *(f"output_blocks_{n}_1_{what}" for n in (0, 2, 5) for what in ATTENTION),
    *(f"output_blocks_{n}_0_{what}" for n in (0, 5, 8) for what in (*RESNET, "skip_connection")),
    *("output_blocks_2_2_conv", "output_blocks_5_2_conv"),
]


def is_convolution(name):
    return not any(word in name for word in ("proj", "attn", "ff_net", "emb_layers"))


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """One adapter in kohya's file and in the one that diffusers makes of it."""
    folder = tmp_path_factory.mktemp("sdxl")
    generator = torch.Generator().manual_seed(0)
    kohya = {}
    for name in MODULES:
        kernel = ((3, 3), (1, 1)) if is_convolution(name) else ((), ())
        for factor, shape, k in (("down", (R, 5), kernel[0]), ("up", (7, R), kernel[1])):
            stored = torch.randn(*shape, *k, generator=generator)
            kohya[f"lora_unet_{name}.lora_{factor}.weight"] = stored
        kohya[f"lora_unet_{name}.alpha"] = torch.tensor(float(R))
    save_file(kohya, folder / "kohya.safetensors")
    mapped = conversion._maybe_map_sgm_blocks_to_diffusers(
        dict(kohya), SimpleNamespace(layers_per_block=2)
    )
    converted, _ = conversion._convert_non_diffusers_lora_to_diffusers(mapped)
    save_file({k: v.contiguous().clone() for k, v in converted.items()},
              folder / "pytorch_lora_weights.safetensors")  # fmt: skip
    return subspace.load(folder / "kohya.safetensors"), subspace.load(folder)


@pytest.mark.parametrize("diffusers_first", [True, False])
def test_one_adapter_in_both_namings_is_one(both, diffusers_first):
    kohya, diffusers = both
    assert (kohya.format, diffusers.format) == ("kohya / LyCORIS", "diffusers")
    assert len(kohya) == len(diffusers) == len(MODULES)
    assert not set(kohya) & set(diffusers)
    one, other = subspace.align((diffusers, kohya) if diffusers_first else (kohya, diffusers))
    assert set(one) == set(other)
    for name, update in one.items():
        assert torch.equal(update.delta(), other[name].delta()), name


def test_what_is_no_block_of_this_model_is_left_alone():
    for name in ("lora_unet_middle_block_3_in_layers_2", "lora_unet_input_blocks_1_2_conv",
                 "lora_unet_output_blocks_1_3_conv", "lora_unet_input_blocks_1_proj_in",
                 "lora_unet_input_blocks_0_1_proj_in",
                 "lora_unet_down_blocks_0_resnets_0_conv1", "blocks_0_attn",
                 "encoder.out.2"):  # fmt: skip
        assert in_diffusers(name) == (), name
    assert in_diffusers("diffusion_model.input_blocks.4.1.proj_in") == in_diffusers(
        "lora_unet_input_blocks_4_1_proj_in"
    )
    assert in_diffusers("lora_unet_input_blocks_0_0") == ("conv_in",)
    assert in_diffusers("lora_unet_label_emb_0_2") == ("add_embedding_linear_2",)


def test_a_name_that_somebody_made_up_takes_no_time_and_no_number_of_any_length():
    assert in_diffusers("lora_unet_input_blocks_4_1_" + 5000 * "a_" + "!") == ()
    assert in_diffusers("input_blocks_" + 5000 * "9" + "_1_proj_in") == ()
