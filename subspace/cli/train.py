"""``subspace train``: LoRA adapters of a text classifier, each with its initial A and record."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from subspace.cli.printing import echo_json, echo_table, training_progress
from subspace.errors import ArgumentError

if TYPE_CHECKING:
    from subspace.training import TrainConfig, TrainResult


def _numbers(_ctx: click.Context, _param: click.Parameter, given: tuple[str, ...]) -> list[int]:
    """Flatten ``--ranks 1,8 --rank 64`` to numbers, each once, in the order given."""
    try:
        return list(dict.fromkeys(int(part) for text in given for part in text.split(",")))
    except ValueError as error:
        raise click.BadParameter("write a whole number, or a list such as 1,8,64") from error


@click.command()
@click.option(
    "--rank",
    "--ranks",
    multiple=True,
    callback=_numbers,
    metavar="N[,N…]",
    default=("8",),
    show_default=True,
    help="Rank r; repeat it or give a list for several runs.",
)
@click.option(
    "--seed",
    "--seeds",
    multiple=True,
    callback=_numbers,
    metavar="N[,N…]",
    default=("0",),
    show_default=True,
    help="Seed of all that is random; likewise.",
)
@click.option(
    "--out",
    metavar="DIR",
    type=click.Path(path_type=Path),
    default=Path("runs"),
    show_default=True,
    help="The folder of the run; of several runs, the folder that holds theirs.",
)
@click.option(
    "--model",
    default="minilm",
    show_default=True,
    help="The embedded MiniLM, a local folder, or a Hugging Face name.",
)
@click.option(
    "--data",
    default="icd10",
    show_default=True,
    help="A bundled task, a .jsonl or .csv file, or a folder of train, validation, test files.",
)
@click.option("--text-column", default="text", show_default=True, help="Of the file: the text.")
@click.option("--label-column", default="label", show_default=True, help="Of the file: its class.")
@click.option(
    "--targets",
    default="query,value",
    show_default=True,
    help="Ends of module names, or all-linear, or re:PATTERN matching whole names.",
)
@click.option(
    "--alpha",
    default="16",
    show_default=True,
    help="A number for every rank (the paper's way), or a multiple of it, such as 2r.",
)
@click.option("--rslora", is_flag=True, help="Scale by alpha / sqrt(r) in place of alpha / r.")
@click.option("--lr", "learning_rate", default=4e-3, show_default=True, help="Learning rate.")
@click.option(
    "--schedule",
    type=click.Choice(("linear", "cosine", "constant_with_warmup")),
    default="linear",
    show_default=True,
    help="How the learning rate goes on after the warm-up.",
)
@click.option("--steps", default=300, show_default=True, help="Optimiser steps.")
@click.option("--warmup", default=20, show_default=True, help="Steps of rising learning rate.")
@click.option("--batch", default=32, show_default=True, help="Texts a step.")
@click.option("--max-length", default=32, show_default=True, help="Tokens a text is cut to.")
@click.option("--eval-every", default=50, show_default=True, help="Steps between looks; 0: last.")
@click.option("--eval-texts", default=420, show_default=True, help="Texts of a split in a look.")
@click.option("--shuffle-labels", is_flag=True, help="The control: same texts, labels permuted.")
@click.option("--overwrite", is_flag=True, help="Train again over a run that is there.")
@click.option("--json", "as_json", is_flag=True, help="Write every run's whole record as JSON.")
def command(
    rank: list[int],
    seed: list[int],
    out: Path,
    overwrite: bool,
    as_json: bool,
    **options: Any,  # noqa: ANN401 - click's values, checked by TrainConfig
) -> None:
    """Train LoRA adapters that any PEFT user can load, and print accuracy before and after.

    One rank and one seed write to --out itself. Several write to folders in it, named like
    r8-seed0. A run that is there already, with the same options, model and data, is used as it is;
    a different one is refused.

    \b
        subspace train --rank 8 --out runs/r8                    runs/r8
        subspace train --ranks 8,64 --seeds 0,1 --out runs       runs/r8-seed0 … runs/r64-seed1
        subspace train --data texts.csv --model ./my-bert --targets all-linear --out runs/mine
        subspace train --rank 8 --shuffle-labels --out runs/control
    """  # noqa: D301 - click wants the real character
    from subspace.training import TrainConfig, train

    targets = str(options.pop("targets"))
    named = targets if targets.startswith("re:") or targets == "all-linear" else None
    options["targets"] = named or tuple(part.strip() for part in targets.split(","))
    configs = [TrainConfig(rank=r, seed=s, **options) for r in rank for s in seed]
    if len(configs) > 1 and (out / "training.json").exists():
        raise ArgumentError(f"{out}: is a run itself; several runs need a folder to hold them")
    results = []
    for config in configs:
        folder = out if len(configs) == 1 else out / config.cell
        with training_progress(config.cell) as tell:
            results.append(train(config, folder, overwrite=overwrite, progress=tell))
    if as_json:
        runs = [result.to_dict() for result in results]
        echo_json({"schema_version": "1", "kind": "training-runs", "runs": runs})
    else:
        show(configs, results)


def show(configs: list[TrainConfig], results: list[TrainResult]) -> None:
    """Write a table of the runs, one a line."""
    header = ("run", "rank", "alpha", "seed", "steps", "train", "validation", "test before")
    rows = []
    for config, result in zip(configs, results, strict=True):
        last = result.history[-1]
        accuracies = (
            last["train_accuracy"],
            last["validation_accuracy"],
            result.before,
            result.after,
        )
        numbers = (config.rank, f"{config.lora_alpha:g}", config.seed, config.steps)
        seconds = "reused" if result.reused else f"{result.record['seconds']:.0f}"
        shown = [*map(str, numbers), *(f"{a:.1%}" for a in accuracies), seconds]
        rows.append((str(result.folder), *shown))
    echo_table((*header, "after", "seconds"), rows)
