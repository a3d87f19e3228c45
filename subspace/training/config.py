"""All options of one run, checked once, and those of the demo's runs."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from subspace.errors import ArgumentError
from subspace.training.targets import check_patterns
from subspace.training.tasks.load import strip_folder

if TYPE_CHECKING:
    from collections.abc import Mapping

Schedule = Literal["linear", "cosine", "constant_with_warmup"]
Method = Literal["lora", "full", "head"]


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Options of one training run. Two runs with equal options give the same adapter.

    Attributes
    ----------
    model
        ``"minilm"`` (the embedded one), a local folder, or a Hugging Face name.
    data
        A name in `subspace.training.tasks.load.TASKS`, a .jsonl or .csv file, or a folder of
        train, validation and test files.
    rank
        r of Eq. 3 (Hu et al. 2021).
    seed
        Everything random follows from it: the head's and A's first values, the order of the data,
        dropout, and the permutation of `shuffle_labels`.
    targets
        Ends of module names, or ``"all-linear"``, or ``"re:PATTERN"`` for a full match; of a tuple
        each entry is an end of a name or a pattern.
    alpha
        A number, or a multiple of the rank such as ``"2r"``. The paper holds it fixed.
    rslora
        Scale by alpha / sqrt(r) in place of alpha / r (Kalajdzievski 2023, arXiv:2312.03732).
    shuffle_labels
        Permute the training labels once: the control that has the texts but not the task.
    method
        ``"lora"``; or, for comparison, ``"full"`` fine-tuning, or the ``"head"`` alone. Of these
        rank, alpha, rslora and targets mean nothing.
    accumulate
        Batches whose gradients are added up to one step.
    bf16
        Compute in bfloat16 where the device has it (weights stay float32).
    pair_column, completion_column
        Of a file: the second text of a pair, or what is to be written after the text (a language
        model's task); empty where there is none.
    eval_every
        Steps between two evaluations on training and validation texts; 0: at the end alone.
    eval_texts
        Texts of each split in such an evaluation; test texts are always all used.
    """

    model: str = "minilm"
    data: str = "icd10"
    rank: int = 8
    seed: int = 0
    targets: tuple[str, ...] | str = ("query", "value")
    alpha: float | str = 16.0
    rslora: bool = False
    learning_rate: float = 4e-3  # of 2e-3, 4e-3, 8e-3 the best on icd10's validation texts
    schedule: Schedule = "linear"
    steps: int = 300
    warmup: int = 20
    batch: int = 32
    max_length: int = 32
    shuffle_labels: bool = False
    eval_every: int = 50
    eval_texts: int = 420
    text_column: str = "text"
    label_column: str = "label"
    method: Method = "lora"
    accumulate: int = 1
    bf16: bool = False
    pair_column: str = ""
    completion_column: str = ""

    def __post_init__(self) -> None:
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ArgumentError(f"{name} is {value!r}; it must be a whole number >= {least}")
        if not 0 < self.learning_rate <= 100:
            raise ArgumentError(
                f"learning rate is {self.learning_rate!r}; it must be above 0 and at most 100"
            )
        if self.schedule not in get_args(Schedule):
            choices = ", ".join(get_args(Schedule))
            raise ArgumentError(f"schedule is {self.schedule!r}; choose one of {choices}")
        if self.method not in get_args(Method):
            raise ArgumentError(
                f"method is {self.method!r}; choose one of {', '.join(get_args(Method))}"
            )
        if self.method != "lora":  # one run, however it is asked for
            for name in ("rank", "alpha", "rslora", "targets"):
                default = next(f.default for f in fields(self) if f.name == name)
                object.__setattr__(self, name, default)
        if self.seed >= 1 << 32:
            raise ArgumentError(f"seed is {self.seed}; it must be below 2**32")
        if isinstance(self.targets, list):  # type: ignore[unreachable]
            object.__setattr__(self, "targets", tuple(self.targets))  # type: ignore[unreachable]
        if not self.targets or not all(self.targets):
            raise ArgumentError("no target modules; name some, such as --targets query,value")
        check_patterns(self.targets)
        if not str(self.alpha).strip().lower().endswith("r"):
            object.__setattr__(self, "alpha", self.lora_alpha)  # "16" and 16 are one option
        _ = self.lora_alpha

    @property
    def lora_alpha(self) -> float:
        """Alpha as a number at this rank.

        >>> TrainConfig(rank=8, alpha="2r").lora_alpha
        16.0
        """
        text = str(self.alpha).strip().lower()
        try:
            alpha = float(text.removesuffix("r") or "1") * (self.rank if text.endswith("r") else 1)
        except ValueError:
            alpha = math.nan
        if not math.isfinite(alpha) or alpha <= 0:
            raise ArgumentError(
                f"alpha is {self.alpha!r}; write a number above 0, or 2r for 2 x rank"
            )
        return alpha

    @property
    def scale(self) -> float:
        """What B A is multiplied by: alpha / r, or alpha / sqrt(r)."""
        return self.lora_alpha / (self.rank**0.5 if self.rslora else self.rank)

    @property
    def run_name(self) -> str:
        """Name of this run's folder among several.

        >>> TrainConfig(rank=8, seed=2, shuffle_labels=True).run_name
        'r8-seed2-shuffled'
        >>> TrainConfig(method="head").run_name
        'head-seed0'
        """
        what = f"r{self.rank}" if self.method == "lora" else self.method
        return f"{what}-seed{self.seed}" + ("-shuffled" if self.shuffle_labels else "")

    def to_options(self) -> dict[str, Any]:
        """Return the options as plain JSON values, without any folder of this machine."""
        options = asdict(self)
        options["model"] = Path(self.model).name if Path(self.model).is_dir() else self.model
        options["data"] = strip_folder(self.data)
        if not isinstance(self.targets, str):
            options["targets"] = list(self.targets)
        return options


# The least value that makes sense, of every option that is a whole number.
_LEAST = {
    "rank": 1,
    "seed": 0,
    "steps": 1,
    "warmup": 0,
    "batch": 1,
    "max_length": 2,
    "eval_every": 0,
    "eval_texts": 1,
    "accumulate": 1,
}


def with_defaults(options: Mapping[str, Any]) -> dict[str, Any]:
    """Complete stored options by the default of every option that is newer than they are."""
    return {f.name: f.default for f in fields(TrainConfig)} | dict(options)


# Each run has a seed of its own: two of one rank and one seed have the same initial A, and share
# the initial head and the order of the texts; similarity would show that too.
DEMO: Mapping[str, TrainConfig] = {
    name: TrainConfig(rank=rank, seed=seed, steps=200, eval_every=0)
    for name, rank, seed in (("r8", 8, 2), ("r64", 64, 0), ("r64-seed1", 64, 1))
}
"""What `subspace demo` trains: folder name to options."""
