"""transformers' Trainer on one task: batches of like lengths, both splits evaluated, no noise."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from subspace.errors import AnalysisError
from subspace.training.completion import average_tokens, measure_exact_match, sum_tokens
from subspace.training.encoding import encode, make_collator

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from subspace.training.config import TrainConfig
    from subspace.training.progress import Progress
    from subspace.training.tasks.dataset import Dataset, TextSplit

Item = TypeVar("Item")

_POOL = 16  # batches that are sorted by length together


def order_batches(lengths: Sequence[int], *, batch: int, steps: int, seed: int) -> list[int]:
    """Return the index of every text of every batch, in order, for a whole run.

    Each epoch is a permutation. Within pools of 16 batches texts are sorted by length, cut into
    batches, and the batches shuffled: half the padding of plain shuffling on short texts. The
    order is a function of its arguments alone, so that a run can go on from any step.
    """
    rng = np.random.default_rng([seed, 1])
    order: list[int] = []
    while len(order) < batch * steps:
        epoch = rng.permutation(len(lengths)).tolist()
        for first in range(0, len(epoch), batch * _POOL):
            pool = sorted(epoch[first : first + batch * _POOL], key=lengths.__getitem__)
            batches = [pool[k : k + batch] for k in range(0, len(pool), batch)]
            # A short batch goes last, or every batch after it would straddle two lengths.
            whole = len(batches) - (len(batches[-1]) < batch)
            for k in [*rng.permutation(whole).tolist(), *range(whole, len(batches))]:
                order.extend(batches[k])
    return order[: batch * steps]


def shuffle(labels: Sequence[Item], seed: int) -> list[Item]:
    """Permute labels, or completions, over texts: the control that saw the texts but no task."""
    permutation = np.random.default_rng([seed, 2]).permutation(len(labels))
    return [labels[k] for k in permutation]


class Loop:
    """Trains an adapted model on a data set, and tests it."""

    def __init__(
        self,
        model: Any,  # noqa: ANN401 - a peft model
        tokenizer: Any,  # noqa: ANN401 - transformers' own
        data: Dataset,
        config: TrainConfig,
        folder: Path,
        checkpoint_every: int,
        progress: Callable[[Progress], None],
    ) -> None:
        from transformers import PrinterCallback, TrainingArguments

        self.config = config
        self._data = data
        self._tokenizer = tokenizer
        positions = getattr(model.config, "max_position_embeddings", None)
        self._limit = min(config.max_length, positions or config.max_length)
        completes = data.kind == "completion"
        train = self._encode(_permute(data.train, config) if config.shuffle_labels else data.train)
        lengths = [len(text["input_ids"]) for text in train]
        order = order_batches(
            lengths, batch=config.batch, steps=config.steps * config.accumulate, seed=config.seed
        )
        validation = self._encode(data.validation)
        self._test = _by_length(self._encode(data.test))
        evaluated = {"train": train, "validation": validation}
        log_every = min(10, config.steps)
        arguments = TrainingArguments(
            output_dir=str(folder),
            max_steps=config.steps,
            per_device_train_batch_size=config.batch,
            # A decoder's scores take a whole vocabulary at each token.
            per_device_eval_batch_size=config.batch if completes else max(64, config.batch),
            learning_rate=config.learning_rate,
            lr_scheduler_type=config.schedule,
            warmup_steps=config.warmup,
            weight_decay=0.0,
            optim="adamw_torch",
            seed=config.seed,
            logging_steps=log_every,
            eval_strategy="steps",
            eval_steps=config.eval_every or config.steps,
            save_strategy="steps" if checkpoint_every else "no",
            # A loss is logged as the mean since the last: a checkpoint in between would split it.
            save_steps=-(-(checkpoint_every or config.steps) // log_every) * log_every,
            save_total_limit=2,
            gradient_accumulation_steps=config.accumulate,
            bf16=config.bf16 and _has_bf16(),
            logging_nan_inf_filter=False,  # a loss that is no number must be seen
            report_to=[],
            disable_tqdm=True,
            remove_unused_columns=False,
            label_names=["labels"],
            dataloader_pin_memory=False,
        )
        if arguments.n_gpu > 1:
            arguments._n_gpu = 1  # several would each take a batch of their own
        self._trainer = _make_trainer_class()(
            model=model,
            args=arguments,
            train_dataset=[train[k] for k in order],
            eval_dataset={
                n: _by_length(_sample(t, config.eval_texts)) for n, t in evaluated.items()
            },
            data_collator=make_collator(tokenizer, data),
            compute_metrics=average_tokens if completes else _accuracy,
            preprocess_logits_for_metrics=sum_tokens if completes else None,
            callbacks=[_report_steps(progress, config)],
        )
        self._trainer.remove_callback(PrinterCallback)

    def _encode(self, split: TextSplit) -> list[dict[str, Any]]:
        return encode(self._tokenizer, self._data, split, self._limit)

    def test(self) -> dict[str, float]:
        """Loss and accuracy on all test texts.

        Of a completion task the accuracy is exact match, on `eval_texts` of them (``generated``
        says on how many): writing takes far longer than reading.
        """
        measured = self._trainer.evaluate(self._test, metric_key_prefix="eval")
        if self._data.kind == "classification":
            return {"loss": measured["eval_loss"], "accuracy": measured["eval_accuracy"]}
        asked = _sample(self._test, self.config.eval_texts)
        accuracy = measure_exact_match(
            self._trainer.model,
            self._tokenizer,
            asked,
            match=self._data.match,
            batch=max(16, self.config.batch),
        )
        return {
            "loss": measured["eval_nll"],
            "accuracy": accuracy,
            "token_accuracy": measured["eval_token_accuracy"],
            "generated": len(asked),
        }

    def train(
        self, checkpoint: Path | None = None
    ) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Train; return the evaluations, by step, and the training loss every few steps.

        A loss that is no number ends it with an `AnalysisError`: no later step would mend that.

        From a checkpoint it goes on as if it had never stopped: its weights, the optimiser's and
        the random numbers' state, what was logged, and the place in the order of texts.
        """
        self._trainer.state.log_history.clear()
        self._trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        evaluations: dict[int, dict[str, Any]] = {}
        losses = []
        for entry in self._trainer.state.log_history:
            step = entry["step"]
            if "loss" in entry:
                names = ("loss", "learning_rate", "grad_norm")
                losses.append({"step": step} | {n: entry[n] for n in names if n in entry})
            for name, value in entry.items():
                what = name.removeprefix("eval_")
                if what.endswith(("_loss", "_accuracy", "_nll")) and what != name:
                    evaluations.setdefault(step, {"step": step})[what] = value
        for evaluation in evaluations.values():
            for name in [name for name in evaluation if name.endswith("_nll")]:
                evaluation[name.replace("_nll", "_loss")] = evaluation.pop(name)
        return list(evaluations.values()), losses


def _has_bf16() -> bool:
    import torch

    return torch.cuda.is_available() and torch.cuda.is_bf16_supported()


def _permute(split: TextSplit, config: TrainConfig) -> TextSplit:
    return replace(
        split,
        labels=tuple(shuffle(split.labels, config.seed)),
        completions=tuple(shuffle(split.completions, config.seed)),
    )


def _sample(texts: list[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    # The same texts for every seed, so that runs can be compared pair by pair.
    chosen = np.random.default_rng(0).permutation(len(texts))[:count]
    return [texts[k] for k in sorted(chosen.tolist())]


def _by_length(texts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(texts, key=lambda text: len(text["input_ids"]))


def _accuracy(predicted: Any) -> dict[str, float]:  # noqa: ANN401 - transformers' EvalPrediction
    scores = predicted.predictions
    scores = scores[0] if isinstance(scores, tuple) else scores
    return {"accuracy": float(np.mean(np.argmax(scores, axis=-1) == predicted.label_ids))}


def _make_trainer_class() -> Any:  # noqa: ANN401 - a subclass of a class imported here
    from torch.utils.data import SequentialSampler
    from transformers import Trainer

    class InOrder(Trainer):  # type: ignore[misc,unused-ignore]
        """Takes the training texts in the order given; `order_batches` has chosen it."""

        def _get_train_sampler(self, train_dataset: Any = None) -> SequentialSampler:  # noqa: ANN401
            return SequentialSampler(train_dataset or self.train_dataset)

    return InOrder


def _report_steps(progress: Callable[[Progress], None], config: TrainConfig) -> Any:  # noqa: ANN401 - a TrainerCallback
    from transformers import TrainerCallback

    from subspace.training.progress import Progress

    class StepReporter(TrainerCallback):  # type: ignore[misc,unused-ignore]
        """Passes each step on, with the last loss and validation accuracy."""

        loss: float | None = None
        accuracy: float | None = None

        def on_log(self, _args: Any, state: Any, _control: Any, **more: Any) -> None:  # noqa: ANN401
            logs: dict[str, float] = more["logs"]
            self.loss = logs.get("loss", self.loss)
            if self.loss is not None and not self.loss < float("inf"):
                raise AnalysisError(
                    f"the loss is {self.loss} at step {state.global_step} with learning rate "
                    f"{config.learning_rate:g}; lower it, or check the model"
                )
            for name in ("eval_validation_accuracy", "eval_validation_token_accuracy"):
                self.accuracy = logs.get(name, self.accuracy)

        def on_step_end(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:  # noqa: ANN401
            progress(
                Progress("training", state.global_step, config.steps, self.loss, self.accuracy)
            )

    return StepReporter()
