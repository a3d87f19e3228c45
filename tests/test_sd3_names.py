"""Stable Diffusion 3's modules in its own naming, as diffusers itself converts the model."""

import pytest
import torch
from safetensors.torch import save_file

import subspace
from subspace import Adapter, LowRankUpdate
from subspace.modules.sd3 import in_diffusers

conversion = pytest.importorskip("diffusers.loaders.single_file_utils")

D, R, LAST = 6, 2, 1
SHAPES = {
    "attn.qkv": (3 * D, D),
    "attn.proj": (D, D),
    "mlp.fc1": (4 * D, D),
    "mlp.fc2": (D, 4 * D),
    "adaLN_modulation.1": (6 * D, D),
}
BLOCKS = {
    f"joint_blocks.{n}.{stream}_block.{module}": shape
    for n in range(LAST + 1)
    for stream in ("x", "context")
    for module, shape in SHAPES.items()
    # The last block's context goes nowhere, so that it has its projections alone.
    if (n, stream) != (LAST, "context") or module == "attn.qkv"
} | {"joint_blocks.0.x_block.attn2.qkv": (3 * D, D), "joint_blocks.0.x_block.attn2.proj": (D, D)}
# What the conversion wants to be there besides.
OTHERS = {
    f"joint_blocks.{LAST}.context_block.adaLN_modulation.1": (2 * D, D),
    "final_layer.adaLN_modulation.1": (2 * D, D),
    **dict.fromkeys(("x_embedder.proj", "context_embedder", "final_layer.linear"), (D, D)),
    **{f"{name}_embedder.mlp.{n}": (D, D) for name in "ty" for n in (0, 2)},
}

# Of these one is called alike, and of the other the halves of the rows are exchanged.
SAME = {"context_embedder", "final_layer.adaLN_modulation.1"}


def factors():
    generator = torch.Generator().manual_seed(0)
    return {
        name: (
            torch.randn(d_out, R, generator=generator),
            torch.randn(R, d_in, generator=generator),
        )
        for name, (d_out, d_in) in (BLOCKS | OTHERS).items()
    }


@pytest.fixture(scope="module")
def converted():
    """What diffusers makes of a model whose weights are these products."""
    model = {f"{name}.weight": B @ A for name, (B, A) in factors().items()}
    model |= {f"{name}.bias": torch.zeros(len(B)) for name, (B, A) in factors().items()}
    return conversion.convert_sd3_transformer_checkpoint_to_diffusers(
        model | {"pos_embed": torch.zeros(1, 4, D)}
    )


def test_every_module_is_what_diffusers_makes_of_it(converted):
    met = set()
    for name, (B, A) in factors().items():
        parts = in_diffusers(name)
        if name in SAME or "context_block.adaLN" in name:
            assert parts == (), name
            continue
        rows = torch.cat([converted[f"{part}.weight"] for part in parts])
        assert torch.equal(rows, B @ A), name
        assert in_diffusers(f"lora_unet_{name.replace('.', '_')}") == parts
        assert in_diffusers(f"diffusion_model.{name}") == parts
        met.update(f"{part}.weight" for part in parts)
    left = {name for name in converted if "transformer_blocks" in name and name.endswith("weight")}
    assert left - met == {f"transformer_blocks.{n}.norm1_context.linear.weight" for n in (0, 1)}


@pytest.mark.parametrize("diffusers_first", [True, False])
def test_one_adapter_in_both_namings_is_one(converted, diffusers_first, tmp_path):
    kohya, updates = {}, {}
    for name in BLOCKS:
        if "context_block.adaLN" in name:
            continue
        B, A = factors()[name]
        stored = f"lora_unet_{name.replace('.', '_')}"
        kohya |= {f"{stored}.lora_up.weight": B, f"{stored}.lora_down.weight": A}
        kohya[f"{stored}.alpha"] = torch.tensor(float(R))
        for part in in_diffusers(name):
            W = converted[f"{part}.weight"]
            updates[part] = LowRankUpdate(part, torch.eye(W.shape[1]), W, 1.0)
    save_file(kohya, tmp_path / "sd3.safetensors")
    pair = [
        Adapter.from_updates(updates, name="diffusers"),
        subspace.load(tmp_path / "sd3.safetensors"),
    ]
    one, other = subspace.align(pair if diffusers_first else pair[::-1])
    assert set(one) == set(other)
    assert len(one) == len(updates)
    for name, update in one.items():
        torch.testing.assert_close(update.delta(), other[name].delta(), rtol=1e-6, atol=1e-6)
