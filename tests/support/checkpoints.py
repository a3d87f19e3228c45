"""Two checkpoints of one tiny model, before and after tuning."""

import json

import numpy as np
import torch
from safetensors.torch import save_file

CHANGED = ["model.embed_tokens", "model.layers.0.q_proj", "model.layers.0.up_proj"]
"""Modules that `pair` changes."""


def normal(*shape, seed=0, size=0.02):
    g = torch.Generator().manual_seed(seed)
    return size * torch.randn(*shape, generator=g, dtype=torch.float64)


def low_rank(m, n, k, *, seed=0, size=1.0):
    """A matrix of rank k whose singular values are size * (k, ..., 1) / k."""
    U, V = (torch.linalg.qr(normal(d, k, seed=seed + s))[0] for s, d in ((1, m), (2, n)))
    return size * (U * torch.arange(k, 0, -1, dtype=torch.float64) / k) @ V.mT


def write(place, tensors, *, dtype=torch.float32, config=None):
    """A model folder; dtype None: as they are."""
    place.mkdir(parents=True)
    held = {n: (t if dtype is None else t.to(dtype)).contiguous() for n, t in tensors.items()}
    save_file(held, place / "model.safetensors")
    if config is not None:
        (place / "config.json").write_text(json.dumps(config))
    return place


def pair(place, *, dtype=torch.float32, base_dtype=None, seed=0):
    """A base and a tuned model of four modules, a norm and a bias; one module is left as it is."""
    before = {
        "model.embed_tokens.weight": normal(30, 24, seed=seed),
        "model.layers.0.q_proj.weight": normal(24, 24, seed=seed + 1),
        "model.layers.0.up_proj.weight": normal(40, 24, seed=seed + 2),
        "model.layers.0.down_proj.weight": normal(24, 40, seed=seed + 3),
        "model.layers.0.q_proj.bias": normal(24, seed=seed + 4),
        "model.norm.weight": torch.ones(24, dtype=torch.float64),
    }
    after = {name: tensor.clone() for name, tensor in before.items()}
    for at, name in enumerate(("embed_tokens", "layers.0.q_proj", "layers.0.up_proj")):
        tensor = after[f"model.{name}.weight"]
        tensor += low_rank(*tensor.shape, 4, seed=seed + 10 * at, size=0.4)
        tensor += normal(*tensor.shape, seed=seed + 10 * at + 5, size=0.002)
    after["model.norm.weight"] += 0.25
    base = write(place / "base", before, dtype=base_dtype or dtype)
    return base, write(place / "tuned", after, dtype=dtype)


def dense(base, tuned, name, *, turned=False):
    """The exact difference of what two folders store, by numpy alone."""
    from safetensors.torch import load_file

    before, after = (
        load_file(place / "model.safetensors")[name].double().numpy() for place in (base, tuned)
    )
    exact = after - before
    return exact.T if turned else exact


def svd(exact):
    return np.linalg.svd(exact, full_matrices=False)
