"""The figures of a gallery: what each shows, and the command that draws it again."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from subspace.gallery.measure import highest_rank

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from matplotlib.figure import Figure

    from subspace.adapters import Adapter
    from subspace.gallery.measure import GalleryResults
    from subspace.gallery.runs import ComparedAdapters
    from subspace.results import Amplification, Similarity


@dataclass(frozen=True)
class Commands:
    """What a reader types to have the gallery again, where its own command ran."""

    command: str  # that writes the gallery
    folder: str  # of the gallery
    base: str  # the checkpoint
    runs: Mapping[str, str]  # folder of each compared run, by the name of its adapter
    absent: Mapping[str, str]  # command that trains each run without weights, by its name


@dataclass(frozen=True)
class Drawing:
    """One figure: its file, what it shows, and the command that draws it."""

    name: str
    words: str
    command: str
    draw: Callable[[], Figure]


def list_figures(
    results: GalleryResults, runs: ComparedAdapters, commands: Commands
) -> Iterator[Drawing]:
    """Yield each figure in the order of the page, drawn from the results of the runs."""
    from subspace.plots.accuracy.figure import accuracy_figure
    from subspace.plots.amplification_curve import curve_figure
    from subspace.plots.amplification_map import map_figure
    from subspace.plots.figure3 import figure3
    from subspace.plots.gains import gains_figure
    from subspace.plots.layers import layers_figure
    from subspace.plots.profile import profile_figure
    from subspace.plots.rank import rank_figure

    small, large, (other, another) = runs.small, runs.large, runs.seeds
    pair, seeds = f"{small.name} and {large.name}", f"{other.name} and {another.name}"
    most = highest_rank(large)
    at = {name: shlex.quote(folder) for name, folder in commands.runs.items()}
    base = shlex.quote(commands.base)

    def drawn(name: str, words: str, verb: str, draw: Callable[[], Figure]) -> Drawing:
        out = shlex.quote(f"{commands.folder}/{name}")
        return Drawing(name, words, f"subspace {verb} --out {out}", draw)

    def against(control: Adapter | None) -> tuple[str, str]:
        if control is None:
            return "", ""
        return f" --control {at[control.name]}", f"; below, the first against {control.name}"

    yield Drawing(
        "table6.png",
        "Accuracy over rank, on test texts, and on training texts where these are measured alike.",
        commands.command,
        lambda: accuracy_figure(results.table),
    )
    option, words = against(runs.control_of_ranks)
    yield drawn(
        "figure3.png",
        f"φ(i, j) of {pair}{words}.",
        f"similarity {at[small.name]} {at[large.name]}{option}",
        lambda: figure3(results.ranks),
    )
    yield drawn(
        "figure6.png",
        f"The same in every module: {pair}.",
        f"similarity {at[small.name]} {at[large.name]} --figure layers",
        lambda: layers_figure(results.ranks),
    )
    option, words = against(runs.control_of_seeds)
    yield drawn(
        "figure4.png",
        f"φ(i, j) of two seeds, {seeds}, and of two random matrices{words}.",
        f"similarity {at[other.name]} {at[another.name]}{option} --figure 4",
        lambda: _beside_random(results.seeds),
    )
    yield drawn(
        "figure7.png",
        f"The same in every module: {seeds}.",
        f"similarity {at[other.name]} {at[another.name]} --figure layers",
        lambda: layers_figure(results.seeds),
    )
    yield drawn(
        "rank.png",
        f"How many directions {len(runs.same_rank)} seeds find again, in A - A₀.",
        f"rank {' '.join(at[a.name] for a in runs.same_rank)} --side delta-A",
        lambda: rank_figure(results.real),
    )
    for placed, adapter, name in zip(
        results.placed, (small, large), ("figure8.png", f"figure8-r{most}.png"), strict=True
    ):
        yield drawn(
            name,
            f"φ between W's top directions and those of {adapter.name}'s update.",
            f"placement {at[adapter.name]} --base {base}",
            lambda placed=placed: _beside_random(placed),  # type: ignore[misc]
        )
    yield drawn(
        "profile.png",
        f"The energy of {small.name}'s update over all of W's directions.",
        f"placement {at[small.name]} --base {base} --profile",
        lambda: profile_figure(results.profile),
    )
    yield drawn(
        "amplification-map.png",
        f"How much of W {small.name}'s update meets in every module, as many times as a random "
        "one meets.",
        f"amplification {at[small.name]} --base {base} --figure map",
        lambda: map_figure(results.table7[0]),
    )
    yield drawn(
        "amplification-curve.png",
        " ".join(
            [
                f"The factor over the leading k directions of {large.name}, with its null.",
                *_describe_crossings(results.curve),
            ]
        ),
        f"amplification {at[large.name]} --base {base} --ranks 1-{most} --figure curve",
        lambda: curve_figure(results.curve),
    )
    yield drawn(
        "gains.png",
        f"What {small.name}'s update does to W along each of its directions, in one module.",
        f"amplification {at[small.name]} --base {base}",
        lambda: gains_figure(results.table7[0]),
    )


def _describe_crossings(curve: Amplification) -> list[str]:
    """Say of each module that is drawn where its curve crosses chance for good."""
    from subspace.findings.amplification import describe_crossing
    from subspace.plots.amplification_curve import list_drawn

    have = list_drawn(curve)
    return [said for rows in have.values() if (said := describe_crossing(rows))]


def _beside_random(result: Similarity) -> Figure:
    from subspace.measures.similarity.measure import random_pair
    from subspace.plots.figure4 import figure4
    from subspace.plots.parts.names import chosen

    first = result[chosen(result, None)[0]]
    return figure4(result, random_pair(first.rank_a, first.rank_b, first.d))
