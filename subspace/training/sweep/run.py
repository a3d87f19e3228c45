"""What a run of a sweep was, and how it ended."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from subspace.results import RunRow, strict
from subspace.training.config import with_defaults

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from subspace.training.config import TrainConfig


@dataclass(frozen=True, kw_only=True)
class SweepRun:
    """One run of a sweep: where it is, what it was, and how it ended."""

    folder: Path
    config: TrainConfig
    record: Mapping[str, Any] | None  # training.json; None if it failed
    reused: bool
    error: str = ""
    searched: bool = False  # trained for its learning rate, and not the best one

    def to_dict(self) -> dict[str, Any]:
        """Return the record, the folder's name and how it came to be, as plain Python for JSON.

        A failed run has its options and the reason, `error`, which is None for a finished one.
        """
        plain = {"folder": str(self.folder), "reused": self.reused, "searched": self.searched}
        if self.record is None:
            return plain | {"error": self.error, "options": self.config.to_options()}
        record = dict(self.record)  # its options may be of before one of them was there
        record["options"] = with_defaults(record.get("options", {}))
        entries: dict[str, Any] = strict(plain | {"error": None} | record)
        return entries

    def to_row(self) -> RunRow:
        """Return the run as one row; what the record does not have is None."""
        config, record = self.config, self.record or {}
        lora = config.method == "lora"
        targets = config.targets if isinstance(config.targets, str) else "+".join(config.targets)
        writes = writes_texts(self.record)
        last: Mapping[str, Any] = (record.get("history") or [{}])[-1]
        tests: dict[str, float | None] = {
            name: record.get(when, {}).get(what)
            for when in ("before", "after")
            for name, what in (
                (f"test_exact_match_{when}", "accuracy" if writes else ""),
                (f"test_accuracy_{when}", "" if writes else "accuracy"),
                (f"test_loss_{when}", "loss"),
            )
        }
        return RunRow(
            folder=str(self.folder),
            data=config.data,
            method=config.method,
            targets=targets if lora else "",
            rank=config.rank if lora else None,
            alpha=config.lora_alpha if lora else None,
            seed=config.seed,
            learning_rate=config.learning_rate,
            steps=config.steps,
            searched=self.searched,
            train_accuracy=last.get("train_accuracy"),
            validation_accuracy=last.get("validation_accuracy"),
            train_token_accuracy=last.get("train_token_accuracy"),
            validation_token_accuracy=last.get("validation_token_accuracy"),
            seconds=record.get("seconds"),
            reused=self.reused,
            error=self.error,
            **tests,
        )

    @property
    def validation(self) -> float:
        """Accuracy on the validation texts at the end; nan where it was not looked at."""
        return read_last_accuracy(self.record, "validation")


def read_last_accuracy(record: Mapping[str, Any] | None, split: str) -> float:
    """Return the last accuracy on the training or validation texts; nan where there is none.

    Of a completion task it is that of tokens: writing is for the test texts.
    """
    last = ((record or {}).get("history") or [{}])[-1]
    return float(last.get(f"{split}_accuracy", last.get(f"{split}_token_accuracy", math.nan)))


def writes_texts(record: Mapping[str, Any] | None) -> bool:
    """Tell whether a run's task is to write texts: its accuracy counts those written exactly."""
    return "token_accuracy" in (record or {}).get("after", {})


def search_key(run: SweepRun) -> tuple[float, float]:
    """Order the runs of a search for the learning rate; the largest is the one to go on with.

    It has the best last accuracy on validation texts; of equals, the smallest rate.
    """
    accuracy = run.validation
    return (accuracy if accuracy == accuracy else -1.0, -run.config.learning_rate)
