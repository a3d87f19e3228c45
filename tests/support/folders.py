"""Folders with an adapter, a base or checkpoints, written with safetensors alone."""

import json

import numpy as np
from safetensors.numpy import save_file

MODULES = ("enc.0.query", "enc.0.value")


def folder(path, *, r=2, modules=("enc.0.query", "enc.0.value"), d=(5, 7), seed=0, change=None):
    """A PEFT folder; `change(tensors)` spoils it."""
    rng = np.random.default_rng(seed)
    tensors = {}
    for name in modules:
        for which, shape in (("A", (r, d[1])), ("B", (d[0], r))):
            key = f"base_model.model.{name}.lora_{which}.weight"
            tensors[key] = rng.standard_normal(shape).astype("f4")
    if change:
        change(tensors)
    path.mkdir()
    save_file(tensors, path / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": r, "lora_alpha": 16, "target_modules": ["query", "value"]}
    (path / "adapter_config.json").write_text(json.dumps(config))
    return str(path)


def base(path, *, d=(5, 7), names=MODULES, change=None):
    """A base checkpoint in one safetensors file."""
    rng = np.random.default_rng(7)
    tensors = {f"{name}.weight": rng.standard_normal(d).astype("f4") for name in names}
    if change:
        change(tensors)
    path.mkdir()
    save_file(tensors, path / "model.safetensors")
    return str(path)


def agreeing_folder(path, *, r=3, modules=MODULES, d=(30, 40), seed=0, shared=1, change=None):
    """A PEFT folder whose updates have `shared` leading directions that no seed changes."""
    rng, common = np.random.default_rng(100 + seed), np.random.default_rng(0)
    tensors = {}
    for name in modules:
        sides = []
        for n in d:
            basis = np.hstack([common.standard_normal((n, shared)), rng.standard_normal((n, r))])
            sides.append(np.linalg.qr(basis)[0][:, :r] * np.linspace(2, 1, r))
        tensors[f"base_model.model.{name}.lora_A.weight"] = sides[1].T.astype("f4").copy()
        tensors[f"base_model.model.{name}.lora_B.weight"] = sides[0].astype("f4")
    if change:
        change(tensors)
    path.mkdir(parents=True)
    save_file(tensors, path / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": r, "lora_alpha": 16, "target_modules": ["query", "value"]}
    (path / "adapter_config.json").write_text(json.dumps(config))
    return str(path)


def two_models(place):
    """A base and a full fine-tune of it, in which something of every kind is undefined."""
    W = np.arange(20, dtype="f4").reshape(4, 5)
    before = {"q.weight": W, "k.weight": 0 * W, "equal.weight": W, "old.weight": W}
    after = {"q.weight": W + np.eye(4, 5, dtype="f4"), "k.weight": W, "equal.weight": W}
    before |= {"q.bias": np.zeros(4, "f4"), "norm.weight": np.ones(4, "f4")}
    after |= {"q.bias": np.ones(4, "f4"), "norm.weight": np.ones(4, "f4"), "new.weight": W}
    for name, tensors in (("before", before), ("after", after)):
        (place / name).mkdir()
        save_file(tensors, place / name / "model.safetensors")
    return str(place / "before"), str(place / "after")


def zero(tensors):
    for name in tensors:
        if "query.lora_B" in name:
            tensors[name] *= 0


def clustered(tensors):
    for name in tensors:
        if "lora_A" in name:
            tensors[name][:] = 0
            tensors[name][0, 0] = tensors[name][1, 1] = 1


def only_queries(tensors):
    """Make the zero module the only one."""
    for name in [n for n in tensors if "value" in n]:
        del tensors[name]


def odd_adapters(place):
    """An adapter that is zero in a module, one with equal singular values, a third, their base."""
    made = [
        folder(place / "zero", change=zero),
        folder(place / "equal", seed=1, change=clustered),
        folder(place / "third", r=3, seed=2),
        folder(place / "nothing", seed=3, change=lambda t: [zero(t), only_queries(t)]),
    ]
    return [*made, base(place / "model")]
