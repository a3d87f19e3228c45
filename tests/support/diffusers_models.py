"""Tiny models of a diffusers pipeline with adapters, and what their own layers merge."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import peft
import pytest
import torch
from peft.tuners.lora import LoraLayer
from transformers import CLIPTextConfig, CLIPTextModel

import subspace

if TYPE_CHECKING:
    from pathlib import Path


UNET = {
    "r": 3,
    "lora_alpha": 7,
    "target_modules": ["to_q", "to_k", "to_v", "to_out.0", "conv1", "conv_shortcut"],
    "rank_pattern": {"to_q": 2},
    "alpha_pattern": {"to_k": 5},
}


def unet() -> Any:
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    return diffusers.UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(4, 8),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=6,
        attention_head_dim=2,
        norm_num_groups=2,
    )


def text_encoder() -> Any:
    torch.manual_seed(1)
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=30,
            hidden_size=8,
            intermediate_size=12,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=9,
            bos_token_id=0,
            eos_token_id=1,
        )
    )


def adapted(model: Any, **config: Any) -> Any:
    """Add a LoRA whose factors are all random."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.add_adapter(peft.LoraConfig(**config))
    generator = torch.Generator().manual_seed(5)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.data.copy_(noise.abs() + 0.1 if "magnitude" in name else noise)
    return model


def state(model: Any) -> dict[str, torch.Tensor]:
    return {name: t.contiguous() for name, t in peft.get_peft_model_state_dict(model).items()}


def deltas(model: Any, prefix: str) -> dict[str, torch.Tensor]:
    """What the model's own layers merge, (d_out, d_in) of the map, in float64."""
    model.double()
    out = {}
    for name, layer in model.named_modules():
        if isinstance(layer, LoraLayer):
            (adapter,) = layer.lora_A
            delta = layer.get_delta_weight(adapter).detach()
            out[f"{prefix}{name}"] = delta.reshape(delta.shape[0], -1)
    return out


def pipelines_file(tmp_path: Path) -> Any:
    """A UNet's and a text encoder's adapters in one file, as diffusers saves them."""
    theirs = pytest.importorskip("diffusers")
    from diffusers.loaders import StableDiffusionLoraLoaderMixin as Loader
    from diffusers.training_utils import _collate_lora_metadata

    text = {
        "r": 2,
        "lora_alpha": 5,
        "target_modules": ["q_proj", "fc1"],
        "rank_pattern": {"fc1": 3},
    }
    models = {"unet": adapted(unet(), **UNET), "text_encoder": adapted(text_encoder(), **text)}
    Loader.save_lora_weights(
        tmp_path / "run",
        unet_lora_layers=state(models["unet"]),
        text_encoder_lora_layers=state(models["text_encoder"]),
        **_collate_lora_metadata(models),
    )
    assert theirs.__version__
    return subspace.load(tmp_path / "run")
