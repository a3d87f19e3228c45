"""``subspace reproduce``: the paper's chain of argument on a model of one's own, in one command."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from subspace.cli.printing import say, sweep_progress
from subspace.errors import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from subspace.training.sweep import Cell


class Size(NamedTuple):
    """How much is trained."""

    ranks: tuple[int, ...]  # 8 and 64 among them: they are compared
    seeds: tuple[int, ...]
    steps: int
    warmup: int
    eval_every: int


QUICK = Size((1, 8, 64), (0, 1), 120, 10, 60)
WHOLE = Size((1, 2, 4, 8, 64), (0, 1, 2), 300, 20, 100)


@click.command()
@click.option(
    "--out",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("reproduced"),
    show_default=True,
    help="Figures, tables and the page README.md go here, the runs to DIR/runs.",
)
@click.option("--quick", is_flag=True, help="Fewer ranks, seeds and steps: some minutes.")
@click.option("--model", default="minilm", show_default=True, help="As in train.")
@click.option("--base", metavar="MODEL", help="The checkpoint that --model names.  [default: it]")
@click.option("--data", default="icd10", show_default=True, help="As in train.")
@click.option(
    "--targets",
    default="query,value",
    show_default=True,
    help="The matrices whose directions are compared, as in train.",
)
@click.option("--lr", default=4e-3, show_default=True, help="Learning rate.")
@click.option("--max-length", default=32, show_default=True, help="Tokens a text is cut to.")
@click.option("--jobs", default=1, show_default=True, help="Runs at a time, sharing the cores.")
def command(
    out: Path,
    quick: bool,
    model: str,
    base: str | None,
    data: str,
    targets: str,
    lr: float,
    max_length: int,
    jobs: int,
) -> None:
    """Train a sweep of ranks and seeds, and retell the LoRA paper's argument with its numbers.

    Rank over accuracy (Table 6); which directions r = 8 and r = 64, and two seeds, share (Figures
    3, 4, 6, 7), beside runs on shuffled labels; where the update lies in W (Figure 8) and what it
    amplifies (Table 7). Run again it trains nothing twice: a finished run is used, a killed one
    goes on. README.md in --out says what was found, with every command.

    \b
        subspace reproduce --quick --jobs 2
        subspace reproduce --model ./my-bert --data texts.csv --targets q_lin,v_lin --out mine
    """  # noqa: D301 - click wants the real character
    from subspace.cli.amplification import open_base
    from subspace.cli.gallery import write_gallery
    from subspace.training.config import TrainConfig
    from subspace.training.grid import Sweep
    from subspace.training.sweep import run_sweep

    size = QUICK if quick else WHOLE
    named = targets if targets.startswith("re:") or targets == "all-linear" else None
    options = TrainConfig(
        model=model,
        data=data,
        targets=named or tuple(part.strip() for part in targets.split(",")),
        learning_rate=lr,
        max_length=max_length,
        steps=size.steps,
        warmup=size.warmup,
        eval_every=size.eval_every,
    )
    checkpoint = open_base(base or model)
    sweep = Sweep(options, (data,), (options.targets,), size.ranks, size.seeds, ("head",))
    control = replace(sweep, options=replace(options, shuffle_labels=True), ranks=(64,),
                      seeds=size.seeds[:2], references=())  # fmt: skip
    cells: list[Cell] = []
    for part in (sweep, control):
        with sweep_progress(part.runs, options.steps) as (tell, ended):
            cells += run_sweep(part, out / "runs", jobs=jobs, progress=tell, finished=ended)
    _refuse_failed(cells)
    trained, controls = cells[: sweep.runs], cells[sweep.runs :]
    for line in write_gallery(trained, controls, checkpoint, out, _command(quick, model, data)):
        say(line)
    click.echo(f"wrote {out / 'README.md'}", err=True)


def _command(quick: bool, model: str, data: str) -> str:
    """Return the command as the page repeats it, without any path of this machine."""
    words = ["subspace reproduce", *(["--quick"] if quick else [])]
    words += [f"--model {Path(model).name}"] if model != "minilm" else []
    words += [f"--data {Path(data).name}"] if data != "icd10" else []
    return " ".join(words)


def _refuse_failed(cells: Sequence[Cell]) -> None:
    failed = [cell for cell in cells if cell.record is None]
    if failed:
        raise ArgumentError(
            f"{len(failed)} of {len(cells)} runs failed, the first: {failed[0].folder}: "
            f"{failed[0].error}; run the command again when that is mended"
        )
