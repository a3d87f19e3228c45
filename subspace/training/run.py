"""One run: a pretrained model and a task in, a PEFT folder with its initial A and record out."""

from __future__ import annotations

import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from subspace.errors import AnalysisError, ArgumentError, FormatError
from subspace.results import SCHEMA_VERSION
from subspace.training import folder as folders
from subspace.training.models import BaseModel, find_model, load_classifier, quiet, require_train
from subspace.training.tasks import Dataset, load_data

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from subspace.training.config import TrainConfig


@dataclass(frozen=True)
class Progress:
    """Where a run stands: shown by whoever passed `progress` to `train`."""

    phase: Literal["loading", "testing before", "training", "testing after"]
    step: int
    steps: int
    loss: float | None = None  # mean training loss of the last steps
    accuracy: float | None = None  # on validation texts, where it was just measured


@dataclass(frozen=True)
class TrainResult:
    """A finished run. Accuracies are fractions of the test texts."""

    folder: Path
    before: float  # with the new head as drawn: what chance gives
    after: float
    record: Mapping[str, Any]  # training.json
    reused: bool  # the folder held this run already

    @property
    def history(self) -> list[dict[str, Any]]:
        """Loss and accuracy on training and validation texts, by step."""
        history: list[dict[str, Any]] = self.record["history"]
        return history

    def to_dict(self) -> dict[str, Any]:
        """Return the record, the folder's name and whether it was reused, as plain Python."""
        return {"folder": str(self.folder), "reused": self.reused, **self.record}


def train(
    config: TrainConfig,
    out: str | Path,
    *,
    overwrite: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> TrainResult:
    """Train one adapter into the folder `out`, or take it as it is if this run is there already.

    The folder is what peft writes, plus ``training.json`` (options, history, versions) and
    ``initial_A.safetensors`` (A of every module before training). It appears when all is done.

    Raises
    ------
    ArgumentError
        `out` holds something else, or no module matches the targets.
    AnalysisError
        The loss is no longer finite.
    FormatError
        The record of a finished run is damaged.
    MissingExtraError
        An extra is not installed; the message has the command.
    """
    out = Path(out)
    tell = progress or _silent
    tell(Progress("loading", 0, config.steps))
    base = find_model(config.model)
    data = load_data(config.data, text_column=config.text_column, label_column=config.label_column)
    identity = {
        "options": config.to_options(),
        "model": {"name": base.name, "sha256": base.sha256},
        "data": {"name": data.name, "sha256": data.digest},
    }
    record = folders.finished_record(out, identity, overwrite=overwrite)
    reused = record is not None
    if record is None:
        require_train()
        with folders.appearing(out) as work, quiet(), _own_randomness(config.seed):
            record = _run(config, base, data, identity, work, tell)
            folders.write_json(work / folders.RECORD, record)
    try:
        before, after = (float(record[when]["accuracy"]) for when in ("before", "after"))
    except (KeyError, TypeError, ValueError):
        raise FormatError(
            f"{out / folders.RECORD}: does not say the accuracies; train again with --overwrite"
        ) from None
    return TrainResult(out, before, after, record, reused)


def _silent(_: Progress) -> None:
    pass


def _run(
    config: TrainConfig,
    base: BaseModel,
    data: Dataset,
    identity: dict[str, Any],
    work: Path,
    tell: Callable[[Progress], None],
) -> dict[str, Any]:
    import torch
    from safetensors.torch import save_file

    from subspace.training.loop import Loop

    began = time.perf_counter()
    # From here all that is random comes in one order: the head, A, and then dropout.
    model, tokenizer = load_classifier(base, data.labels)
    adapted = _adapt(model, config)
    initial = initial_A(adapted)
    save_file(initial, work / folders.INITIAL_A, metadata={"format": "pt"})

    loop = Loop(adapted, tokenizer, data, config, work.with_name("trainer"), tell)
    tell(Progress("testing before", 0, config.steps))
    before = loop.test()
    history, losses = loop.train()
    tell(Progress("testing after", config.steps, config.steps))
    after = loop.test()
    for step, loss in ((entry["step"], entry["loss"]) for entry in losses):
        if not loss < float("inf"):
            raise AnalysisError(
                f"the loss is {loss} at step {step}; lower the learning rate, or look at the model"
            )
    if not all(bool(torch.isfinite(p).all()) for p in adapted.parameters() if p.requires_grad):
        raise AnalysisError("the trained weights are no longer finite; lower the learning rate")

    _save(adapted, base, work)
    packages = ("torch", "transformers", "peft", "accelerate", "safetensors", "lora-subspace")
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": "training",
        **identity,
        "model": {**identity["model"], "class": type(model).__name__},
        "data": {
            **identity["data"],
            "texts": {s: len(getattr(data, s)) for s in ("train", "validation", "test")},
            "labels": list(data.labels),
        },
        "modules": list(initial),
        "scale": config.lora_alpha / (config.rank**0.5 if config.rslora else config.rank),
        "trainable_parameters": sum(p.numel() for p in adapted.parameters() if p.requires_grad),
        "before": before,
        "after": after,
        "history": history,
        "losses": losses,
        "device": str(adapted.device),
        "threads": torch.get_num_threads(),
        "versions": {name: _version(name) for name in packages},
        "seconds": round(time.perf_counter() - began, 1),
    }


def _adapt(model: Any, config: TrainConfig) -> Any:  # noqa: ANN401 - transformers' and peft's
    import torch
    from peft import LoraConfig, TaskType, get_peft_model

    targets: str | list[str]
    if isinstance(config.targets, str):
        targets = config.targets.removeprefix("re:")
    else:
        targets = list(config.targets)
    lora = LoraConfig(
        r=config.rank,
        lora_alpha=config.lora_alpha,  # type: ignore[arg-type,unused-ignore]
        use_rslora=config.rslora,
        target_modules=targets,
        lora_dropout=0.0,
        bias="none",
        task_type=TaskType.SEQ_CLS,  # adds the new head to modules_to_save
    )
    try:
        return get_peft_model(model, lora)
    except Exception as error:  # a pattern that is no regex, a module of another kind, no match
        linear = {
            n.split(".")[-1] for n, m in model.named_modules() if isinstance(m, torch.nn.Linear)
        }
        raise ArgumentError(
            f"targets {config.targets!r} cannot be adapted in {type(model).__name__}: "
            f"its linear modules end in {', '.join(sorted(linear))}"
        ) from error


def initial_A(model: Any) -> dict[str, Any]:  # noqa: ANN401 - a peft model
    """Return each module's A, (r, d_in) float32, by the module's path in the base model."""
    import torch

    found = {}
    for path, module in model.named_modules():
        for factors in (getattr(module, "lora_A", {}), getattr(module, "lora_embedding_A", {})):
            if "default" not in factors:
                continue
            factor = factors["default"]
            A = factor if isinstance(factor, torch.Tensor) else factor.weight
            found[path.removeprefix("base_model.model.")] = (
                A.detach().flatten(1).to("cpu", torch.float32, copy=True).contiguous()
            )
    return found


def _save(adapted: Any, base: BaseModel, work: Path) -> None:  # noqa: ANN401 - a peft model
    import json

    adapted.peft_config["default"].base_model_name_or_path = base.name
    adapted.save_pretrained(work, safe_serialization=True, save_embedding_layers=False)
    (work / "README.md").unlink(missing_ok=True)  # a template of a model card, nothing filled in
    # peft writes sets in an order that changes from process to process.
    written = json.loads((work / folders.CONFIG).read_text(encoding="utf-8"))
    for key in ("target_modules", "modules_to_save"):
        if isinstance(written.get(key), list):
            written[key] = sorted(written[key])
    folders.write_json(work / folders.CONFIG, written)
    for name in (folders.WEIGHTS, folders.INITIAL_A):  # safetensors shuts others out
        (work / name).chmod((work / folders.CONFIG).stat().st_mode & 0o777)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except ImportError:  # importlib's PackageNotFoundError: run from a checkout
        return None


class _own_randomness:  # noqa: N801 - used as a statement
    """Seed every generator for a run, and give the caller's back after it."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def __enter__(self) -> None:
        import random

        import numpy as np
        import torch
        from transformers import set_seed

        self.states = (random.getstate(), np.random.get_state(), torch.get_rng_state())  # noqa: NPY002
        set_seed(self.seed)

    def __exit__(self, *_: object) -> None:
        import random

        import numpy as np
        import torch

        python, numpy, torch_state = self.states
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
        torch.set_rng_state(torch_state)
