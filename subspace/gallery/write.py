"""Write a gallery: measure the runs, draw every figure, and write the page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from subspace.gallery.figures import list_figures
from subspace.gallery.measure import measure_runs
from subspace.gallery.page import PAGE, write_page
from subspace.results import GalleryFigure, Reproduction

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from subspace.gallery.figures import Commands
    from subspace.gallery.runs import ComparedAdapters
    from subspace.pretrained import Pretrained
    from subspace.training.sweep.run import SweepRun


def write_gallery(
    trained: Sequence[SweepRun],
    runs: ComparedAdapters,
    base: Pretrained,
    out: Path,
    commands: Commands,
) -> Reproduction:
    """Write every figure and the page into `out`; return what was written.

    Parameters
    ----------
    trained
        The runs of Table 6, finished ones.
    runs
        Those that are compared.
    base
        The checkpoint that all were trained on.
    out
        The folder of the gallery.
    commands
        Those on its page, and the words in them.
    """
    from subspace.plots.save import save

    results = measure_runs(trained, runs, base)
    figures = {each.name: each for each in list_figures(results, runs, commands)}
    out.mkdir(parents=True, exist_ok=True)
    for figure in figures.values():
        save(figure.draw(), out / figure.name)
    write_page(results, runs, figures, trained, out, commands)
    findings = results.findings
    return Reproduction(
        command=commands.command,
        folder=str(out),
        page=PAGE,
        figures=tuple(GalleryFigure(d.name, d.words, d.command) for d in figures.values()),
        adapters=tuple(str(adapter.path) for adapter in runs.adapters),
        table6=results.table,
        table7=results.table7,
        shared=results.shared,
        claims=results.claims,
        findings=(*findings.enough, *findings.ranks, *findings.seeds, *findings.amplified),
    )
