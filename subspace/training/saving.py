"""What a run leaves: the adapter or weights that it trained, its initial A, what wrote them."""

from __future__ import annotations

import json
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from subspace.training import folder as folders

if TYPE_CHECKING:
    from pathlib import Path

    from subspace.training.config import TrainConfig
    from subspace.training.models import BaseModel

_PACKAGES = ("torch", "transformers", "peft", "accelerate", "safetensors", "lora-subspace")


def copy_initial_A(model: Any) -> dict[str, Any]:  # noqa: ANN401 - a peft model
    """Return each module's A, (r, d_in) float32, by the module's path in the base model."""
    import torch

    initial = {}
    for path, module in model.named_modules():
        for factors in (getattr(module, "lora_A", {}), getattr(module, "lora_embedding_A", {})):
            if "default" not in factors:
                continue
            factor = factors["default"]
            A = factor if isinstance(factor, torch.Tensor) else factor.weight
            initial[path.removeprefix("base_model.model.")] = (
                A.detach().flatten(1).to("cpu", torch.float32, copy=True).contiguous()
            )
    return initial


def save(
    model: Any,  # noqa: ANN401 - transformers' or peft's
    initial: dict[str, Any],
    base: BaseModel,
    config: TrainConfig,
    new: Path,
) -> None:
    """Write what was trained into the folder `new`; of an adapter, its `initial` A beside it."""
    if config.method == "lora":
        _save_adapter(model, initial, base, new)
    else:
        _save_plain(model, config, new)


def _save_adapter(
    adapted: Any,  # noqa: ANN401 - a peft model
    initial: dict[str, Any],
    base: BaseModel,
    new: Path,
) -> None:
    from safetensors.torch import save_file

    save_file(initial, new / folders.INITIAL_A, metadata={"format": "pt"})
    adapted.peft_config["default"].base_model_name_or_path = base.name
    adapted.save_pretrained(new, safe_serialization=True, save_embedding_layers=False)
    (new / "README.md").unlink(missing_ok=True)  # a template of a model card, nothing filled in
    # peft writes sets in an order that changes from process to process.
    written = json.loads((new / folders.CONFIG).read_text(encoding="utf-8"))
    for key in ("target_modules", "modules_to_save"):
        if isinstance(written.get(key), list):
            written[key] = sorted(written[key])
    folders.write_json(new / folders.CONFIG, written)
    for name in (folders.WEIGHTS, folders.INITIAL_A):  # safetensors shuts others out
        (new / name).chmod((new / folders.CONFIG).stat().st_mode & 0o777)


def _save_plain(model: Any, config: TrainConfig, new: Path) -> None:  # noqa: ANN401 - transformers' own
    """Write a whole model, or what was trained of it."""
    from safetensors.torch import save_file

    if config.method == "full":
        model.save_pretrained(new, safe_serialization=True)
        return
    trained = {n: p.detach().contiguous() for n, p in model.named_parameters() if p.requires_grad}
    save_file(trained, new / folders.HEAD, metadata={"format": "pt"})


def list_versions() -> dict[str, str | None]:
    """Return the version of every package that has a part in a run; None where it has none."""
    return {name: _version(name) for name in _PACKAGES}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except ImportError:  # importlib's PackageNotFoundError: run from a checkout
        return None
