"""Adapters that peft itself writes, with random factors, and the update that peft itself merges."""

from __future__ import annotations

import json
import warnings
from typing import TYPE_CHECKING, Any

import peft
import torch
import transformers
from peft.tuners.lora import LoraLayer

if TYPE_CHECKING:
    from pathlib import Path

PREFIX = "base_model.model."


def made(model: torch.nn.Module, adapter: str = "default", seed: int = 0, **config: Any) -> Any:
    """Wrap a model with a LoRA whose factors are all random (peft starts B at zero)."""
    config = {"r": 3, "lora_alpha": 7} | config
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wrapped = peft.get_peft_model(model, peft.LoraConfig(**config), adapter_name=adapter)
    return scrambled(wrapped, seed)


def scrambled(wrapped: Any, seed: int = 0) -> Any:
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in wrapped.named_parameters():
        if "lora_" in name or "trainable_tokens_delta" in name:
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.data.copy_(noise.abs() + 0.1 if "magnitude" in name else noise)
    return wrapped


def written(wrapped: Any, folder: Path, **options: Any) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wrapped.save_pretrained(str(folder), **options)
    return folder


def merged_deltas(wrapped: Any, kind: type = LoraLayer) -> dict[str, torch.Tensor]:
    """Merge as peft merges, in float64; return (d_out, d_in) of the map for each module."""
    wrapped.double()
    layers = {
        name.removeprefix(PREFIX): module
        for name, module in wrapped.named_modules()
        if isinstance(module, kind)
    }
    before = {name: layer.get_base_layer().weight.clone() for name, layer in layers.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wrapped.merge_adapter()
    out = {}
    for name, layer in layers.items():
        base = layer.get_base_layer()
        delta = (base.weight - before[name]).detach()
        if isinstance(base, (torch.nn.Embedding, transformers.pytorch_utils.Conv1D)):
            delta = delta.T  # stored as (d_in, d_out)
        out[name] = delta.reshape(delta.shape[0], -1)
    return out


def assert_same_update(adapter: Any, deltas: dict[str, torch.Tensor], rtol: float = 1e-6) -> None:
    assert set(adapter) == set(deltas)
    for name, update in adapter.items():
        wanted = deltas[name]
        assert update.shape == tuple(wanted.shape) == adapter.updates[name].shape
        assert update.rank == adapter.updates[name].rank
        assert wanted.norm() > 0
        error = (update.delta() - wanted).norm() / wanted.norm()
        assert error <= rtol, f"{name}: {error:.2e}"


def edited(folder: Path, **fields: Any) -> Path:
    """Change fields of the config that peft wrote."""
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
    return folder


def safetensors_bytes(header: Any, data: bytes = b"") -> bytes:
    """Lay a safetensors file out by hand; `header` is an object or the JSON itself."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def two_linears() -> torch.nn.Module:
    torch.manual_seed(1)
    return torch.nn.Sequential(torch.nn.Linear(6, 10), torch.nn.ReLU(), torch.nn.Linear(10, 4))


def tiny_bert(layers: int = 3) -> torch.nn.Module:
    torch.manual_seed(1)
    return transformers.BertForSequenceClassification(
        transformers.BertConfig(
            hidden_size=12,
            intermediate_size=20,
            num_hidden_layers=layers,
            num_attention_heads=2,
            vocab_size=31,
            max_position_embeddings=8,
        )
    )


def tiny_gpt2() -> torch.nn.Module:
    torch.manual_seed(1)
    return transformers.GPT2LMHeadModel(
        transformers.GPT2Config(n_embd=12, n_layer=2, n_head=2, vocab_size=31, n_positions=8)
    )
