"""The options of ``subspace train`` that say what is trained, from the command line or a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from subspace.cli.shared.options import group

if TYPE_CHECKING:
    from subspace.training.sweep.grid import Sweep


def read_numbers(_ctx: click.Context, _param: click.Parameter, given: tuple[str, ...]) -> list[int]:
    """Flatten ``--ranks 1,8 --rank 64`` to numbers, each once, in the order given."""
    try:
        return list(dict.fromkeys(int(part) for text in given for part in text.split(",")))
    except ValueError as error:
        raise click.BadParameter("write a whole number, or a list such as 1,8,64") from error


def read_rates(
    _ctx: click.Context, _param: click.Parameter, given: tuple[str, ...]
) -> dict[str, tuple[float, ...]]:
    """Read ``--lr 2e-3,4e-3 --lr full:1e-4`` by method."""
    rates: dict[str, tuple[float, ...]] = {}
    try:
        for text in given:
            method, colon, numbers = text.rpartition(":")
            key = method if colon else "lora"
            rates[key] = tuple(dict.fromkeys(float(part) for part in numbers.split(",")))
    except ValueError as error:
        raise click.BadParameter("write numbers, as in 2e-3,4e-3 or full:1e-4,3e-4") from error
    if wrong := sorted(set(rates) - {"lora", "full", "head"}):
        raise click.BadParameter(f"no method {wrong[0]!r}; there are lora, full and head")
    return rates


def read_file(ctx: click.Context, _param: click.Parameter, path: Path | None) -> None:
    """Let a TOML file say what the command line does not."""
    if path is None:
        return
    from subspace.training.sweep.file import read_sweep
    from subspace.training.targets import typed

    given = read_sweep(path)
    for axis in ("ranks", "seeds"):
        if axis in given:
            given[axis] = [",".join(map(str, _listed(given[axis])))]
    if "targets" in given:
        sets = _listed(given["targets"])
        sets = sets if any(isinstance(each, list) for each in sets) else [sets]
        given["targets"] = [typed([str(one) for one in _listed(each)]) for each in sets]
    if "lr" in given:
        rates = given["lr"] if isinstance(given["lr"], dict) else {"lora": given["lr"]}
        given["lr"] = [f"{m}:{','.join(map(str, _listed(each)))}" for m, each in rates.items()]
    for axis in ("data", "references"):
        if axis in given:
            given[axis] = _listed(given[axis])
    ctx.default_map = {**(ctx.default_map or {}), **given}


def _listed(value: Any) -> list[Any]:  # noqa: ANN401 - as TOML has it
    return value if isinstance(value, list) else [value]


class SweepOptions(NamedTuple):
    """What is trained: the axes of a grid, and what all its runs have in common."""

    ranks: list[int]
    seeds: list[int]
    targets: tuple[str, ...]
    data: tuple[str, ...]
    references: tuple[str, ...]
    lr: dict[str, tuple[float, ...]]
    shared: dict[str, Any]  # fields of `TrainConfig`

    @classmethod
    def split(cls, **given: Any) -> SweepOptions:  # noqa: ANN401 - click's values
        """Part the axes from what is common."""
        axes = {name: given.pop(name) for name in cls._fields if name != "shared"}
        return cls(**axes, shared=given)

    def sweep(self) -> Sweep:
        """Return the grid."""
        from subspace.training.config import TrainConfig
        from subspace.training.sweep.grid import Sweep
        from subspace.training.targets import default_targets, read_targets

        rates = {"lora": (4e-3,), "full": (1e-4,), "head": (4e-3,)} | self.lr
        sets = tuple(map(read_targets, self.targets))
        if not sets:
            sets = (default_targets(self.shared.get("model", "minilm")),)
        first = TrainConfig(
            data=self.data[0], targets=sets[0], learning_rate=rates["lora"][0], **self.shared
        )
        return Sweep(
            options=first,
            data=tuple(self.data),
            targets=sets,
            ranks=tuple(self.ranks),
            seeds=tuple(self.seeds),
            references=tuple(self.references),
            rates=rates,
        )


class RunOptions(NamedTuple):
    """How the runs are trained."""

    out: Path
    jobs: int
    checkpoint_every: int
    records_only: bool
    overwrite: bool


SWEEP = group(
    "asked",
    SweepOptions.split,
    click.option(
        "--rank",
        "--ranks",
        "ranks",
        multiple=True,
        callback=read_numbers,
        metavar="N[,N…]",
        default=("8",),
        show_default=True,
        help="Rank r of the update, the columns of B and rows of A; a list trains each.",
    ),
    click.option(
        "--seed",
        "--seeds",
        "seeds",
        multiple=True,
        callback=read_numbers,
        metavar="N[,N…]",
        default=("0",),
        show_default=True,
        help="Seed of all that is random: the head's and A's initial values, the order of texts; a "
        "list trains each rank with every seed.",
    ),
    click.option(
        "--targets",
        multiple=True,
        help="Modules to adapt, by the ends of their names, with commas; all-linear; or "
        "re:PATTERN for whole names, also behind a comma. Repeat it for several sets.  [default: "
        "the model's query and value projections]",
    ),
    click.option(
        "--data",
        multiple=True,
        default=("icd10",),
        show_default=True,
        help="What to learn: a bundled task (icd10, icd10-pairs, wikisql-agg, wikisql-sql, snli), "
        "TASK:FILE, a .jsonl or .csv file, a folder of train, validation and test files, or a "
        "Hugging Face data set OWNER/NAME. Repeat it for several.",
    ),
    click.option(
        "--reference",
        "--references",
        "references",
        multiple=True,
        type=click.Choice(("full", "head")),
        help="Train this too, to compare with: all weights (full), or the new head alone. "
        "Repeatable.",
    ),
    click.option(
        "--lr",
        "--learning-rate",
        "lr",
        multiple=True,
        callback=read_rates,
        metavar="[METHOD:]X[,X…]",
        default=("4e-3", "full:1e-4", "head:4e-3"),
        show_default=True,
        help="Learning rate at its peak, of LoRA or of a METHOD (lora, full, head). Of several, "
        "each rank and target set goes on with the one that is best on validation texts.",
    ),
    click.option(
        "--config",
        metavar="TOML",
        type=click.Path(path_type=Path),
        callback=read_file,
        is_eager=True,
        expose_value=False,
        help="Read these options from a file, by their names without dashes before; options typed "
        "here stand before it.",
    ),
    click.option(
        "--model",
        default="minilm",
        show_default=True,
        help="Pretrained model: the embedded MiniLM, a local folder (config.json and weights), or "
        "a Hugging Face name.",
    ),
    click.option(
        "--text-column",
        default="text",
        show_default=True,
        help="Column of a --data file with the text, or the prompt.",
    ),
    click.option(
        "--pair-column",
        default="",
        help="Column with a second text, where pairs of texts are classified.",
    ),
    click.option(
        "--label-column", default="label", show_default=True, help="Column with the text's class."
    ),
    click.option(
        "--completion-column",
        default="",
        help="Column with what a language model is to write after the text; the task is then to "
        "write.",
    ),
    click.option(
        "--alpha",
        default="16",
        show_default=True,
        help="LoRA's alpha; the update is B A times alpha / r. A number for every rank (the "
        "paper's way), or a multiple of the rank, such as 2r.",
    ),
    click.option(
        "--rslora", is_flag=True, help="Take alpha / sqrt(r) in place of alpha / r (rsLoRA)."
    ),
    click.option(
        "--schedule",
        type=click.Choice(("linear", "cosine", "constant_with_warmup")),
        default="linear",
        show_default=True,
        help="The learning rate after the warm-up: down to 0 in a line or a cosine, or as it is.",
    ),
    click.option("--steps", default=300, show_default=True, help="Optimiser steps of a run."),
    click.option(
        "--warmup",
        default=20,
        show_default=True,
        help="Of these, steps in which the learning rate rises to its peak.",
    ),
    click.option("--batch", default=32, show_default=True, help="Texts in a batch."),
    click.option(
        "--accumulate",
        default=1,
        show_default=True,
        help="Batches whose gradients are added up to one optimiser step.",
    ),
    click.option(
        "--bf16", is_flag=True, help="Compute in bfloat16 if a GPU has it; weights stay in float32."
    ),
    click.option(
        "--max-length", default=32, show_default=True, help="Tokens that a longer text is cut to."
    ),
    click.option(
        "--eval-every",
        default=50,
        show_default=True,
        help="Steps between two evaluations on training and validation texts; 0: at the end alone.",
    ),
    click.option(
        "--eval-texts",
        default=420,
        show_default=True,
        help="Texts of each split in an evaluation; of a task of writing also the test texts that "
        "are written.",
    ),
    click.option(
        "--shuffle-labels",
        is_flag=True,
        help="Train a control: the same texts with their labels permuted, so that there is no "
        "task.",
    ),
)
RUNS = group(
    "runs",
    RunOptions,
    click.option(
        "--out",
        metavar="DIR",
        type=click.Path(path_type=Path),
        default=Path("runs"),
        show_default=True,
        help="Folder of the run; of several runs, the folder that holds one for each.",
    ),
    click.option(
        "--jobs",
        default=1,
        show_default=True,
        help="Runs at a time; above 1 in processes of their own that share the cores.",
    ),
    click.option(
        "--checkpoint-every",
        default=100,
        show_default=True,
        help="Steps between checkpoints, from the last of which a killed run goes on; 0: none.",
    ),
    click.option(
        "--records-only",
        is_flag=True,
        help="Take a run as done if its training.json is there, even without the weights.",
    ),
    click.option(
        "--overwrite", is_flag=True, help="Train again, and replace the runs that are there."
    ),
)
