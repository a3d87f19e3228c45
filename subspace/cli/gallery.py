"""The figures and the page that `subspace reproduce` writes from trained runs."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from subspace.cli.printing import markdown_table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from matplotlib.figure import Figure

    from subspace.adapters import Adapter
    from subspace.pretrained import Pretrained
    from subspace.results import Amplification, Rank, Side, Similarity, Table6
    from subspace.training.sweep import Cell

_COMPARED: tuple[Side, ...] = ("A", "delta-A", "in", "B", "out")


@dataclass(frozen=True)
class _Runs:
    """The runs that the figures compare, by what they stand for."""

    small: Adapter  # r = 8
    large: Adapter  # r = 64, another seed than `small`
    other: Adapter  # r = 64, a third start where there are three seeds
    twin: Adapter  # r = 64, the seed of `small`
    controls: Sequence[Adapter]  # r = 64 on shuffled labels, seeds as `large` and `twin`
    same_rank: Sequence[Adapter]  # r = 64, all seeds


def write_gallery(
    trained: Sequence[Cell],
    controls: Sequence[Cell],
    base: Pretrained,
    out: Path,
    command: str,
) -> list[str]:
    """Write every figure and README.md into `out`; return what was found, in sentences."""
    from subspace.findings import amplified, findings, ranked
    from subspace.measures.amplification import amplifications
    from subspace.measures.rank import rank
    from subspace.measures.similarity import similarity
    from subspace.plots.save import save
    from subspace.training.summary import table6

    runs = _runs(trained, controls)
    table = table6(trained)
    # A control of another seed than the run that it stands beside: one seed is one start.
    ranks = similarity(runs.small, runs.large, control=runs.controls[-1])
    seeds = similarity(runs.other, runs.twin, control=runs.controls[0])
    table7 = amplifications([runs.small, runs.large], base)
    real = rank(runs.same_rank, side="delta-A")
    drawn = list(_figures(runs, table, ranks, seeds, table7, real, base))
    for name, figure, _ in drawn:
        save(figure, out / name)
    from subspace.cli.sweep_table import enough, table6_cells

    found = [
        *map(enough, table.nearly_enough),
        *findings(ranks, seeds),
        amplified(table7),
        *ranked(real),
    ]
    record = trained[0].record or {}
    page = [
        "# The argument of the LoRA paper, retold on this model",
        f"Written by `{command}`: {record['model']['name']}, task {record['data']['name']}, "
        f"{trained[0].config.steps} steps, seeds "
        f"{', '.join(str(s) for s in dict.fromkeys(c.config.seed for c in trained))}, on "
        f"{record['device']} with {record['threads']} threads, torch "
        f"{record['versions']['torch']}.",
        "## What was found",
        "\n".join(f"- {sentence}" for sentence in found),
        "## Rank over accuracy (Table 6)",
        markdown_table(*table6_cells(table)),
        f"Alpha is {trained[0].config.alpha} at every rank. The paper's figures are of GPT-3 on "
        "other tasks: what can be compared is how little the rows depend on r.",
        "## Learned or inherited?",
        "Medians over modules of φ(1, 1) and of the leading directions that agree beyond chance. "
        "Two runs of one seed share their start; runs on shuffled labels saw the texts, not the "
        "task.",
        markdown_table(*_inherited(runs)),
        _moved(runs.large),
        "## What it amplifies (Table 7)",
        *(_table7(result) for result in table7),
        "## Figures",
        "The commands take the runs of this folder; `MODEL` is the base checkpoint.",
        *(
            f"### {name}\n\n{words}\n\n    {_drawn_by(name, runs, command)}\n\n![{name}]({name})"
            for name, _, words in drawn
        ),
    ]
    (out / "README.md").write_text("\n\n".join(page) + "\n", encoding="utf-8")
    return found


def _drawn_by(name: str, runs: _Runs, command: str) -> str:
    """Return the command that draws one figure again."""
    small, large, other, twin = (f"runs/{a.name}" for a in (runs.small, runs.large, runs.other,
                                                             runs.twin))  # fmt: skip
    base, last, first = "--base MODEL", runs.controls[-1].name, runs.controls[0].name
    every = " ".join(f"runs/{adapter.name}" for adapter in runs.same_rank)
    most = max(info.rank for info in runs.large.updates.values())
    called = {
        "figure3": f"similarity {small} {large} --control runs/{last}",
        "figure4": f"similarity {other} {twin} --control runs/{first} --figure 4",
        "figure6": f"similarity {small} {large} --figure layers",
        "figure7": f"similarity {other} {twin} --figure layers",
        "figure8": f"placement {small} {base}",
        "amplification-map": f"amplification {small} {base} --figure map",
        "amplification-curve": f"amplification {large} {base} --ranks 1-{most} --figure curve",
        "rank": f"rank {every} --side delta-A",
    }
    verb = called.get(name.removesuffix(".png"))
    return command if verb is None else f"subspace {verb} --out {name}"


def _runs(trained: Sequence[Cell], controls: Sequence[Cell]) -> _Runs:
    from subspace.adapters import load

    lora = {(c.config.rank, c.config.seed): c for c in trained if c.config.method == "lora"}
    seeds = list(dict.fromkeys(seed for _, seed in lora))
    same_rank = [load(lora[64, seed].folder) for seed in seeds]
    return _Runs(
        small=load(lora[8, seeds[0]].folder),
        large=same_rank[1],
        other=same_rank[-1],
        twin=same_rank[0],
        controls=[load(cell.folder) for cell in controls],
        same_rank=same_rank,
    )


def _figures(
    runs: _Runs,
    table: Table6,
    ranks: Similarity,
    seeds: Similarity,
    table7: Sequence[Amplification],
    real: Rank,
    base: Pretrained,
) -> Iterator[tuple[str, Figure, str]]:
    """Yield each figure's file name, the figure, and what it shows."""
    from subspace.measures.amplification import amplification
    from subspace.measures.placement import placement
    from subspace.measures.similarity import random_pair
    from subspace.plots.accuracy import accuracy_figure
    from subspace.plots.amplification_curve import curve_figure
    from subspace.plots.amplification_map import map_figure
    from subspace.plots.figure3 import figure3
    from subspace.plots.figure4 import figure4
    from subspace.plots.layers import layers_figure
    from subspace.plots.names import chosen
    from subspace.plots.rank import rank_figure

    def beside_random(result: Similarity) -> Figure:
        first = result[chosen(result, None)[0]]
        return figure4(result, random_pair(first.rank_a, first.rank_b, first.d))

    small, large = runs.small, runs.large
    pair = f"{small.name} and {large.name}"
    most = max(info.rank for info in large.updates.values())
    curve = amplification(large, base, ranks=range(1, most + 1), top=False)
    yield "table6.png", accuracy_figure(table), "Test and training accuracy over rank."
    yield (
        "figure3.png",
        figure3(ranks),
        f"φ(i, j) of {pair}, and below it of {small.name} against a run on shuffled labels.",
    )
    yield "figure4.png", beside_random(seeds), "Two seeds of r = 64, and two random matrices."
    yield "figure6.png", layers_figure(ranks), f"Figure 3 in every module: {pair}."
    yield "figure7.png", layers_figure(seeds), "Figure 4 in every module: two seeds of r = 64."
    yield (
        "figure8.png",
        beside_random(placement(small, base)),
        f"φ between W's top directions and those of {small.name}'s update.",
    )
    yield "amplification-map.png", map_figure(table7[0]), "Table 7 in every module, × chance."
    yield (
        "amplification-curve.png",
        curve_figure(curve),
        "The factor over the leading k directions.",
    )
    yield (
        "rank.png",
        rank_figure(real),
        "How many directions the runs of r = 64 find again, in A - A₀.",
    )


def _inherited(runs: _Runs) -> tuple[list[str], list[list[str]]]:
    """Compare on every side runs of one seed, of two, and one on shuffled labels."""
    from subspace.measures.similarity import similarity

    pairs = {
        "r = 8 and 64, two seeds": (runs.small, runs.large),
        "r = 8 and 64, one seed": (runs.small, runs.twin),
        "r = 64, two seeds": (runs.large, runs.twin),
        "r = 64, shuffled labels, two seeds": (runs.large, runs.controls[0]),
        "both on shuffled labels, two seeds": (runs.controls[0], runs.controls[-1]),
    }
    header = ["runs", *(f"side {side}" for side in _COMPARED), "initial A"]
    rows = []
    for name, (a, b) in pairs.items():
        cells, start = [], "-"
        for side in _COMPARED:
            result = similarity(a, b, side=side)
            cells.append(_medians(result))
            if result.initial is not None:
                start = _medians(result.initial)
        rows.append([name, *cells, start])
    return header, rows


def _medians(result: Similarity) -> str:
    phi = [m.phi[0, 0] for m in result.values() if m.phi[0, 0] == m.phi[0, 0]]
    agree = [m.agreeing for m in result.values() if m.agreeing is not None]
    if not phi:
        return "undefined"
    return f"{median(phi):.3f}" + (f"; {median(agree):g}" if agree else "")


def _moved(adapter: Adapter) -> str:
    """Say how far A went from where it started."""
    from subspace.adapters import Adapter, LowRankUpdate
    from subspace.measures.similarity import similarity

    started = {
        name: LowRankUpdate(name, adapter.initial[name], update.B, update.scale)
        for name, update in adapter.items()
    }
    far = [
        float((u.A - adapter.initial[name]).norm() / adapter.initial[name].norm())
        for name, u in adapter.items()
    ]
    phi = similarity(adapter, Adapter.from_updates(started, name="start"), side="A")
    whole = median(float(m.phi[-1, -1]) for m in phi.values())
    first = median(float(m.phi[0, 0]) for m in phi.values())
    return (
        f"A of {adapter.name} moved by a median of {median(far):.2f} of its own size; between it "
        f"and its start φ(1, 1) is {first:.2f} and φ(r, r) {whole:.2f} (median over modules)."
    )


def _table7(result: Amplification) -> str:
    from subspace.cli.amplification_table import HEADER, rows_of

    return f"{result.adapter} of {result.base}:\n\n{markdown_table(HEADER, rows_of(result))}"
