"""What ``subspace train`` writes: the record of a run, and all runs of a sweep with Table 6.

The training writes these documents as plain mappings; the classes say what is in them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Literal

from subspace.results.base import SCHEMA_VERSION, Part, Result
from subspace.results.fields import Field, described
from subspace.results.sweep import Table6

_OLDER = "of records that are older than it"


@dataclass(frozen=True, kw_only=True)
class RecordedOptions(Part):
    """Options as a record has them: what came later than the record is not in it."""

    model: Annotated[
        str, Field("minilm, the name of a local folder, or a name on the Hugging Face hub")
    ]
    data: Annotated[str, Field("Name of a task, or of a file or folder of texts")]
    rank: Annotated[int, Field("Rank r; of no meaning where the method is not lora", low=1)]
    seed: Annotated[int, Field("Seed of all that is random", low=0)]
    targets: Annotated[
        tuple[str, ...] | str, Field("Ends of module names, or all-linear, or re:PATTERN")
    ]
    alpha: Annotated[float | str, Field("A number, or a multiple of the rank such as 2r")]
    rslora: Annotated[bool, Field("Whether the scale is alpha / sqrt(r) in place of alpha / r")]
    learning_rate: Annotated[float, Field("Learning rate at its peak", above=0)]
    schedule: Annotated[
        Literal["linear", "cosine", "constant_with_warmup"],
        Field("How the learning rate goes on after the warm-up"),
    ]
    steps: Annotated[int, Field("Optimiser steps", low=1)]
    warmup: Annotated[int, Field("Steps of rising learning rate", low=0)]
    batch: Annotated[int, Field("Texts at a time", low=1)]
    max_length: Annotated[int, Field("Tokens that a text is cut to", low=2)]
    shuffle_labels: Annotated[bool, Field("Whether the training labels were permuted: the control")]
    eval_every: Annotated[
        int,
        Field(
            "Steps between evaluations on training and validation texts; 0: at the end only", low=0
        ),
    ]
    eval_texts: Annotated[int, Field("Texts of a split in an evaluation", low=1)]
    text_column: Annotated[str, Field("Of a file: the column of the text")]
    label_column: Annotated[str, Field("Of a file: the column of the class")]
    method: Annotated[
        Literal["lora", "full", "head"],
        Field("lora, or for comparison full fine-tuning, or the head alone", missing=_OLDER),
    ]
    accumulate: Annotated[int, Field("Batches per step", low=1, missing=_OLDER)]
    bf16: Annotated[
        bool, Field("Whether to compute in bfloat16 where the device has it", missing=_OLDER)
    ]
    pair_column: Annotated[
        str,
        Field(
            "Of a file: the column of a second text; empty where there is none",
            missing=_OLDER,
        ),
    ]
    completion_column: Annotated[
        str,
        Field(
            "Of a file: the column of what is to be written; empty where there is none",
            missing=_OLDER,
        ),
    ]


def _complete(name: str) -> Field:
    return replace(described(RecordedOptions)[name].field, missing="")


@dataclass(frozen=True, kw_only=True)
class RunOptions(RecordedOptions):
    """All options of a run; two runs with equal ones give the same adapter."""

    method: Annotated[Literal["lora", "full", "head"], _complete("method")]
    accumulate: Annotated[int, _complete("accumulate")]
    bf16: Annotated[bool, _complete("bf16")]
    pair_column: Annotated[str, _complete("pair_column")]
    completion_column: Annotated[str, _complete("completion_column")]


@dataclass(frozen=True, kw_only=True)
class Accuracy(Part):
    """Loss and accuracy on the test texts."""

    loss: Annotated[
        float | None,
        Field(
            "Mean cross-entropy, in nats, of a text's class or of a completion's tokens",
            undefined="where not finite",
        ),
    ]
    accuracy: Annotated[
        float, Field("Fraction of texts whose class or whole completion is right", low=0, high=1)
    ]
    token_accuracy: Annotated[
        float | None,
        Field(
            "Fraction of tokens that are right",
            low=0,
            high=1,
            undefined="without any",
            missing="but of a completion task",
        ),
    ]
    generated: Annotated[
        int,
        Field(
            "Texts for which a completion was written", low=0, missing="but of a completion task"
        ),
    ]


@dataclass(frozen=True, kw_only=True)
class Evaluation(Part):
    """One evaluation on training and validation texts."""

    step: Annotated[int, Field("Optimiser step", low=0)]
    train_loss: Annotated[
        float | None,
        Field("Mean cross-entropy on training texts, in nats", undefined="where not finite"),
    ]
    train_accuracy: Annotated[
        float,
        Field(
            "Fraction of training texts whose class is right",
            low=0,
            high=1,
            missing="of a completion task",
        ),
    ]
    train_token_accuracy: Annotated[
        float | None,
        Field(
            "Fraction of tokens that are right in training texts",
            low=0,
            high=1,
            undefined="without any",
            missing="but of a completion task",
        ),
    ]
    validation_loss: Annotated[
        float | None,
        Field("Mean cross-entropy on validation texts, in nats", undefined="where not finite"),
    ]
    validation_accuracy: Annotated[
        float,
        Field(
            "Fraction of validation texts whose class is right",
            low=0,
            high=1,
            missing="of a completion task",
        ),
    ]
    validation_token_accuracy: Annotated[
        float | None,
        Field(
            "Fraction of tokens that are right in validation texts",
            low=0,
            high=1,
            undefined="without any",
            missing="but of a completion task",
        ),
    ]


@dataclass(frozen=True, kw_only=True)
class LoggedLoss(Part):
    """Training loss as it was logged."""

    step: Annotated[int, Field("Optimiser step", low=0)]
    loss: Annotated[
        float | None,
        Field(
            "Mean training loss of the steps since the last entry, in nats",
            undefined="where not finite",
        ),
    ]
    learning_rate: Annotated[
        float, Field("Learning rate at this step", low=0, missing="of the last entry")
    ]
    grad_norm: Annotated[
        float | None,
        Field(
            "Norm of the gradient at this step",
            undefined="where not finite",
            missing="of the last entry",
        ),
    ]


@dataclass(frozen=True, kw_only=True)
class TrainedModel(Part):
    """The pretrained model of a run."""

    name: Annotated[str, Field("Its name")]
    sha256: Annotated[
        str | None, Field("SHA-256 of its weights in hex", undefined="where it is not known")
    ]
    class_name: Annotated[str, Field("Its class in transformers", key="class")]


@dataclass(frozen=True, kw_only=True)
class TextCounts(Part):
    """Texts of each split."""

    train: Annotated[int, Field("Texts that were trained on", low=0)]
    validation: Annotated[int, Field("Texts that rates are chosen by", low=0)]
    test: Annotated[int, Field("Texts that accuracies are of", low=0)]


@dataclass(frozen=True, kw_only=True)
class TrainedData(Part):
    """The texts of a run."""

    name: Annotated[str, Field("Name of the task, file or folder")]
    sha256: Annotated[str, Field("SHA-256 of every text and label, in hex")]
    texts: Annotated[TextCounts, Field("How many texts each split has")]
    labels: Annotated[tuple[str, ...], Field("Classes in their order; empty of a completion task")]


@dataclass(frozen=True, kw_only=True)
class Training(Result):
    """What a finished run says of itself: its training.json."""

    kind = "training"
    schema_versions = ("1", SCHEMA_VERSION)

    options: Annotated[RecordedOptions, Field("All that decides the adapter")]
    model: Annotated[TrainedModel, Field("The pretrained model")]
    data: Annotated[TrainedData, Field("The texts")]
    modules: Annotated[
        tuple[str, ...],
        Field("Paths of the modules that were adapted; empty where the method is not lora"),
    ]
    scale: Annotated[
        float | None, Field("What B A is multiplied by", undefined="where the method is not lora")
    ]
    trainable_parameters: Annotated[
        int, Field("Values that were trained, the head's among them", low=0)
    ]
    before: Annotated[Accuracy, Field("On the test texts before training, under the head as drawn")]
    after: Annotated[Accuracy, Field("On the test texts after training")]
    history: Annotated[tuple[Evaluation, ...], Field("One entry per evaluation, by step")]
    losses: Annotated[tuple[LoggedLoss, ...], Field("One entry per few steps")]
    device: Annotated[str, Field("Torch device of the run")]
    threads: Annotated[int, Field("CPU threads of the run", low=1)]
    versions: Annotated[
        Mapping[str, str | None],
        Field(
            "Version of every package that had a part", undefined="where it is not installed as one"
        ),
    ]
    seconds: Annotated[float, Field("How long the run took", low=0)]


@dataclass(frozen=True, kw_only=True)
class FinishedRun(Training):
    """A run that ended well: its record, and how it came to be."""

    options: Annotated[RunOptions, Field("All that decides the adapter, complete")]
    folder: Annotated[str, Field("Folder of the run, as it was given")]
    reused: Annotated[bool, Field("Whether the run was there already")]
    searched: Annotated[
        bool, Field("Whether it was trained for its learning rate alone, and another was better")
    ]
    error: Annotated[None, Field("Null: nothing failed")]


@dataclass(frozen=True, kw_only=True)
class FailedRun(Part):
    """A run that failed."""

    folder: Annotated[str, Field("Folder of the run, as it was given")]
    reused: Annotated[bool, Field("Whether the run was there already")]
    searched: Annotated[
        bool, Field("Whether it was trained for its learning rate alone, and another was better")
    ]
    error: Annotated[str, Field("Why it failed", at_least=1)]
    options: Annotated[RunOptions, Field("What it was to be")]


_OF_CLASSES, _OF_WRITING = "but of a task of classes", "but of a task of writing"


@dataclass(frozen=True, kw_only=True)
class RunRow(Part):
    """One run of a sweep as a row; numbers of the other kind of task are undefined."""

    folder: Annotated[str, Field("Folder of the run, as it was given", title="run")]
    data: Annotated[str, Field("Name of the data set")]
    method: Annotated[
        Literal["lora", "full", "head"],
        Field("lora, or a reference: full fine-tuning, or the head alone"),
    ]
    targets: Annotated[str, Field("Target matrices, joined by +; empty for a reference")]
    rank: Annotated[int | None, Field("Rank r", low=1, undefined="for a reference")]
    alpha: Annotated[float | None, Field("Alpha", digits=6, undefined="for a reference")]
    seed: Annotated[int, Field("Seed of all that is random", low=0)]
    learning_rate: Annotated[
        float, Field("Learning rate at its peak", title="lr", digits=6, above=0)
    ]
    steps: Annotated[int, Field("Optimiser steps", low=1)]
    searched: Annotated[
        bool, Field("Whether it was trained for its learning rate alone, and another was better")
    ]
    train_accuracy: Annotated[
        float | None,
        Field(
            "Last accuracy on training texts",
            title="train",
            form="percent",
            undefined=_OF_CLASSES,
        ),
    ]
    validation_accuracy: Annotated[
        float | None,
        Field(
            "Last accuracy on validation texts",
            title="validation",
            form="percent",
            undefined=_OF_CLASSES,
        ),
    ]
    train_token_accuracy: Annotated[
        float | None,
        Field(
            "Last share of right tokens on training texts",
            title="train tokens",
            form="percent",
            undefined=_OF_WRITING,
        ),
    ]
    validation_token_accuracy: Annotated[
        float | None,
        Field(
            "Last share of right tokens on validation texts",
            title="validation tokens",
            form="percent",
            undefined=_OF_WRITING,
        ),
    ]
    test_accuracy_before: Annotated[
        float | None,
        Field(
            "Accuracy on test texts before training",
            title="test before",
            form="percent",
            undefined=_OF_CLASSES,
        ),
    ]
    test_accuracy_after: Annotated[
        float | None,
        Field(
            "Accuracy on test texts after training",
            title="after",
            form="percent",
            undefined=_OF_CLASSES,
        ),
    ]
    test_exact_match_before: Annotated[
        float | None,
        Field(
            "Share of test texts written exactly before training",
            title="exact before",
            form="percent",
            undefined=_OF_WRITING,
        ),
    ]
    test_exact_match_after: Annotated[
        float | None,
        Field(
            "Share of test texts written exactly after training",
            title="exact after",
            form="percent",
            undefined=_OF_WRITING,
        ),
    ]
    test_loss_before: Annotated[
        float | None,
        Field(
            "Mean cross-entropy on test texts before training, in nats",
            title="loss before",
            decimals=3,
            undefined="where not finite",
        ),
    ]
    test_loss_after: Annotated[
        float | None,
        Field(
            "Mean cross-entropy on test texts after training, in nats",
            title="loss after",
            decimals=3,
            undefined="where not finite",
        ),
    ]
    seconds: Annotated[
        float | None,
        Field("How long the run took", decimals=0, unit="s", undefined="for a run that failed"),
    ]
    reused: Annotated[bool, Field("Whether the run was there already")]
    error: Annotated[str, Field("Why it failed; empty for a finished run")]


@dataclass(frozen=True, kw_only=True)
class TrainingRuns(Result):
    """`subspace train`: every run of a sweep, and Table 6."""

    kind = "training-runs"

    runs: Annotated[
        tuple[FinishedRun | FailedRun, ...],
        Field("One entry per run, in the order of the grid", at_least=1),
    ]
    table6: Annotated[Table6, Field("Accuracy over rank and target matrices", key="table")]
