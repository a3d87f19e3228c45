"""One run: a pretrained model and a task in, a PEFT folder with its initial A and record out."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from subspace.errors import AnalysisError, ArgumentError, FormatError
from subspace.results import SCHEMA_VERSION
from subspace.training import folder as folders
from subspace.training.models import (
    BaseModel,
    find_model,
    load_model,
    name_task_type,
    require_train,
    silence,
)
from subspace.training.progress import Progress
from subspace.training.saving import copy_initial_A, list_versions, save
from subspace.training.sweep.grid import name_targets
from subspace.training.targets import check_found, for_peft, suggestion
from subspace.training.tasks.load import load_data

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from subspace.training.config import TrainConfig
    from subspace.training.tasks.dataset import Dataset


@dataclass(frozen=True)
class TrainResult:
    """A finished run. Accuracies are fractions of the test texts."""

    folder: Path
    before: float  # with the new head as drawn
    after: float
    record: Mapping[str, Any]  # training.json
    reused: bool  # the folder had this run already

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
    records_only: bool = False,
    checkpoint_every: int = 100,
    progress: Callable[[Progress], None] | None = None,
) -> TrainResult:
    """Train one adapter into the folder `out`, or take it as it is if this run is there already.

    The folder is what peft writes, plus ``training.json`` (options, history, versions) and
    ``initial_A.safetensors`` (A of every module before training). It appears when all is done. A
    run that was killed goes on from its last checkpoint, to the adapter that it would have had.

    Parameters
    ----------
    config
        All that decides the adapter.
    out
        The run's folder.
    overwrite
        Train over a different run that is there.
    records_only
        A finished run may be its record alone, without weights, as the project's own ones are kept.
    checkpoint_every
        Steps between checkpoints, rounded up to tens, in a hidden folder beside `out` until the
        run is done; 0: none.
    progress
        Called with a `Progress` at every step.

    Raises
    ------
    ArgumentError
        `out` holds something else, no module matches the targets, or another process is at it.
    AnalysisError
        The loss is no longer finite.
    FormatError
        The record of a finished run is damaged.
    MissingExtraError
        An extra is not installed; the message has the command.
    """
    out = Path(out)
    report = progress or _ignore
    report(Progress("loading", 0, config.steps))
    base = find_model(config.model)
    data = load_data(config.data, **select_columns(config))
    identity = {
        "options": config.to_options(),
        "model": {"name": base.name, "sha256": base.sha256},
        "data": {"name": data.name, "sha256": data.digest},
    }
    record = folders.find_record(out, identity, overwrite=overwrite, records_only=records_only)
    reused = record is not None
    if record is None:
        require_train()
        with folders.fill_folder(out, identity) as work, silence(), _own_randomness(config.seed):
            record = _run(config, base, data, identity, work, checkpoint_every, report)
            folders.write_json(work / "new" / folders.RECORD, record)
    try:
        before, after = (float(record[when]["accuracy"]) for when in ("before", "after"))
    except (KeyError, TypeError, ValueError):
        raise FormatError(
            f"{out / folders.RECORD}: does not say the accuracies; train again with --overwrite"
        ) from None
    return TrainResult(out, before, after, record, reused)


def select_columns(config: TrainConfig) -> dict[str, str]:
    """Return what `load_data` has to know of a user's file."""
    names = ("text_column", "label_column", "pair_column", "completion_column")
    return {name: getattr(config, name) for name in names}


def _ignore(_: Progress) -> None:
    pass


def _run(
    config: TrainConfig,
    base: BaseModel,
    data: Dataset,
    identity: dict[str, Any],
    work: Path,
    checkpoint_every: int,
    report: Callable[[Progress], None],
) -> dict[str, Any]:
    import torch

    from subspace.training.loop import Loop

    started_at = time.perf_counter()
    new, trainer = work / "new", work / folders.TRAINER
    # From here all that is random comes in one order: the head, A, and then dropout.
    model, tokenizer = load_model(base, data)
    adapted = _adapt(model, config, data)
    initial = copy_initial_A(adapted)

    loop = Loop(adapted, tokenizer, data, config, trainer, checkpoint_every, report)
    checkpoint = folders.find_last_checkpoint(trainer)
    before = None if checkpoint is None else folders.read_json(work / "before.json")
    if before is None:
        checkpoint = None
        report(Progress("testing before", 0, config.steps))
        before = loop.test()
        folders.write_json(work / "before.json", before)
    history, losses = loop.train(checkpoint)
    report(Progress("testing after", config.steps, config.steps))
    after = loop.test()
    if not all(bool(torch.isfinite(p).all()) for p in adapted.parameters() if p.requires_grad):
        raise AnalysisError("the trained weights are no longer finite; lower the learning rate")

    save(adapted, initial, base, config, new)
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
        "scale": config.scale if config.method == "lora" else None,
        "trainable_parameters": sum(p.numel() for p in adapted.parameters() if p.requires_grad),
        "before": before,
        "after": after,
        "history": history,
        "losses": losses,
        "device": str(adapted.device),
        "threads": torch.get_num_threads(),
        "versions": list_versions(),
        "seconds": round(time.perf_counter() - started_at, 1),
    }


def _adapt(model: Any, config: TrainConfig, data: Dataset) -> Any:  # noqa: ANN401 - transformers' and peft's
    """Make the parameters trainable that the method trains."""
    from peft import LoraConfig, get_peft_model

    if config.method == "full":
        return model
    if config.method == "head":
        if data.kind != "classification":
            raise ArgumentError("method 'head' trains a new head; a language model has none")
        for parameter in model.base_model.parameters():
            parameter.requires_grad_(False)
        return model
    check_found(config.targets, model)
    lora = LoraConfig(
        r=config.rank,
        lora_alpha=config.lora_alpha,  # type: ignore[arg-type,unused-ignore]
        use_rslora=config.rslora,
        target_modules=for_peft(config.targets),
        lora_dropout=0.0,
        bias="none",
        task_type=name_task_type(data),  # of a classifier: adds the new head to modules_to_save
    )
    try:
        return get_peft_model(model, lora)
    except Exception as error:  # a module of another kind, such as a norm
        reason = (str(error).strip().splitlines() or [""])[0]
        raise ArgumentError(
            f"targets {name_targets(config.targets)!r} cannot be adapted in "
            f"{type(model).__name__} ({type(error).__name__}: {reason[:200]}): {suggestion(model)}"
        ) from error


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
