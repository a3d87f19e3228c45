"""Flux's modules in kohya's naming and in diffusers', as diffusers itself converts the one."""

import pytest
import torch
from safetensors.torch import save_file

import subspace
from subspace.modules.flux import in_diffusers

conversion = pytest.importorskip("diffusers.loaders.lora_conversion_utils")

D, MLP, R = 3072, 12288, 2  # diffusers' conversion has the model's own sizes
BLOCKS = {
    **{f"double_blocks_{n}_{side}_{what}": shape
       for n in (0, 18) for side in ("img", "txt")
       for what, shape in {"attn_qkv": (3 * D, 5), "attn_proj": (7, 6), "mlp_0": (9, 4),
                           "mlp_2": (4, 9), "mod_lin": (12, 3)}.items()},
    **{f"single_blocks_{n}_{what}": shape
       for n in (0, 37)
       for what, shape in {"linear1": (3 * D + MLP, 4), "linear2": (6, 8),
                           "modulation_lin": (9, 3)}.items()},
}  # fmt: skip


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """One adapter in kohya's file and in the one that diffusers makes of it."""
    folder = tmp_path_factory.mktemp("flux")
    generator = torch.Generator().manual_seed(0)
    kohya = {}
    for name, (d_out, d_in) in BLOCKS.items():
        kohya[f"lora_unet_{name}.lora_down.weight"] = torch.randn(R, d_in, generator=generator)
        kohya[f"lora_unet_{name}.lora_up.weight"] = torch.randn(d_out, R, generator=generator)
        kohya[f"lora_unet_{name}.alpha"] = torch.tensor(3.0)
    save_file(kohya, folder / "kohya.safetensors")
    converted = conversion._convert_kohya_flux_lora_to_diffusers(dict(kohya))
    save_file({k: v.contiguous().clone() for k, v in converted.items()},
              folder / "pytorch_lora_weights.safetensors")  # fmt: skip
    return subspace.load(folder / "kohya.safetensors"), subspace.load(folder)


@pytest.mark.parametrize("diffusers_first", [True, False])
def test_one_adapter_in_both_namings_is_one(both, diffusers_first):
    kohya, diffusers = both
    assert (kohya.format, diffusers.format) == ("kohya / LyCORIS", "diffusers")
    assert not set(kohya) & set(diffusers)
    pair = (diffusers, kohya) if diffusers_first else (kohya, diffusers)
    one, other = subspace.align(pair)
    assert set(one) == set(other)
    assert len(one) == len(diffusers) == len(BLOCKS) + 4 * 2 + 2 * 3
    for name, update in one.items():
        # The conversion multiplies the scale into A.
        assert torch.equal(update.A * update.scale, other[name].A * other[name].scale)
        assert torch.equal(update.B, other[name].B)
    small = "*single*37*"
    result = subspace.similarity(*(x.select(small) for x in (one, other)), side="in")
    assert all(module.phi[-1, -1] == pytest.approx(1, abs=1e-12) for module in result.values())


def test_comfyuis_dotted_names_are_the_same_modules():
    for name in BLOCKS:
        kind, n, rest = name.split("_", 3)[0], name.split("_")[2], name.split("_", 3)[3]
        dotted = rest.replace("attn_", "attn.").replace("mlp_", "mlp.").replace("_lin", ".lin")
        assert in_diffusers(f"diffusion_model.{kind}_blocks.{n}.{dotted}") == in_diffusers(
            f"lora_unet_{name}"
        )
        assert in_diffusers(f"lora_unet_{name}")
    assert in_diffusers("lora_unet_double_blocks_0_img_other") == ()
