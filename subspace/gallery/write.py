"""The figures that ``subspace reproduce`` draws from trained runs, and the command of each."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from subspace.gallery.inherited import inherited
from subspace.gallery.page import PAGE, write_page
from subspace.results import GalleryFigure, Reproduction

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from matplotlib.figure import Figure

    from subspace.adapters import Adapter
    from subspace.gallery.runs import Runs
    from subspace.pretrained import Pretrained
    from subspace.results import (
        Amplification,
        Claim,
        Profile,
        Rank,
        SharedByRuns,
        Similarity,
        Table6,
    )
    from subspace.training.sweep.run import SweepRun


@dataclass(frozen=True)
class Said:
    """What was found, in sentences by section of the page."""

    enough: tuple[str, ...]
    ranks: tuple[str, ...]
    seeds: tuple[str, ...]
    amplified: tuple[str, ...]
    shared: str


@dataclass(frozen=True)
class Numbers:
    """All that the gallery draws and says."""

    table: Table6
    ranks: Similarity  # two ranks, two seeds, and a control
    seeds: Similarity  # two seeds of the larger rank, and a control
    placed: tuple[Similarity, Similarity]  # of the smaller and of the larger rank
    table7: tuple[Amplification, Amplification]  # likewise
    curve: Amplification  # the larger rank, cut to each smaller one
    profile: Profile  # the smaller rank
    real: Rank  # all seeds of the larger rank, side delta-A
    shared: tuple[SharedByRuns, ...]
    claims: tuple[Claim, ...]
    said: Said


@dataclass(frozen=True)
class Typed:
    """What a reader types to have the gallery again, where its own command ran."""

    command: str  # that writes the gallery
    folder: str  # of the gallery
    base: str  # the checkpoint
    runs: Mapping[str, str]  # folder of each compared run, by the name of its adapter
    absent: Mapping[str, str]  # command that trains each run without weights, by its name


@dataclass(frozen=True)
class Drawn:
    """One figure: its file, what it shows, and the command that draws it."""

    name: str
    words: str
    command: str
    draw: Callable[[], Figure]


def write_gallery(
    trained: Sequence[SweepRun], runs: Runs, base: Pretrained, out: Path, typed: Typed
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
    typed
        The commands on its page, and the words in them.
    """
    from subspace.plots.save import save

    numbers = _numbers(trained, runs, base)
    drawn = {figure.name: figure for figure in _figures(numbers, runs, typed)}
    out.mkdir(parents=True, exist_ok=True)
    for figure in drawn.values():
        save(figure.draw(), out / figure.name)
    write_page(numbers, runs, drawn, trained, out, typed)
    said = numbers.said
    return Reproduction(
        command=typed.command,
        folder=str(out),
        page=PAGE,
        figures=tuple(GalleryFigure(d.name, d.words, d.command) for d in drawn.values()),
        adapters=tuple(str(adapter.path) for adapter in runs.adapters),
        table6=numbers.table,
        table7=numbers.table7,
        shared=numbers.shared,
        claims=numbers.claims,
        findings=(*said.enough, *said.ranks, *said.seeds, *said.amplified),
    )


def _numbers(trained: Sequence[SweepRun], runs: Runs, base: Pretrained) -> Numbers:
    from subspace.cli.sweep_table import enough
    from subspace.findings import (
        check_claims,
        describe_amplification,
        describe_rank,
        describe_similarity,
    )
    from subspace.measures.amplification.measure import amplification, amplifications
    from subspace.measures.placement.measure import placement
    from subspace.measures.placement.profile import profile
    from subspace.measures.rank.measure import rank
    from subspace.measures.similarity.measure import similarity
    from subspace.training.sweep.summary import table6

    small, large = runs.small, runs.large
    one, other = table7 = amplifications([small, large], base)
    table = table6(trained)
    ranks = similarity(small, large, control=runs.control_of_ranks)
    moved = similarity(small, large, side="delta-A")
    seeds = similarity(*runs.seeds, control=runs.control_of_seeds)
    placed = (placement(small, base), placement(large, base))
    real = rank(runs.same_rank, side="delta-A")
    shared, words = inherited(runs, (ranks, moved, seeds))
    of_ranks, rest, of_seeds = describe_similarity(ranks, seeds)
    return Numbers(
        table=table,
        ranks=ranks,
        seeds=seeds,
        placed=placed,
        table7=(one, other),
        # The curve has no use for W's own values.
        curve=amplification(large, base, ranks=range(1, _most(large) + 1), top=False),
        profile=profile(small, base),
        real=real,
        shared=shared,
        claims=check_claims(table, ranks, seeds, placed, table7, moved=moved),
        said=Said(
            enough=tuple(enough(each, table) for each in table.nearly_enough),
            ranks=(of_ranks, rest),
            seeds=(of_seeds, *describe_rank(real)),
            amplified=(describe_amplification(table7),),
            shared=words,
        ),
    )


def _most(adapter: Adapter) -> int:
    return max(info.rank for info in adapter.updates.values())


def _figures(numbers: Numbers, runs: Runs, typed: Typed) -> Iterator[Drawn]:
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
    at = {name: shlex.quote(folder) for name, folder in typed.runs.items()}
    base = shlex.quote(typed.base)

    def drawn(name: str, words: str, verb: str, draw: Callable[[], Figure]) -> Drawn:
        out = shlex.quote(f"{typed.folder}/{name}")
        return Drawn(name, words, f"subspace {verb} --out {out}", draw)

    def against(control: Adapter | None) -> tuple[str, str]:
        if control is None:
            return "", ""
        return f" --control {at[control.name]}", f"; below, the first against {control.name}"

    yield Drawn(
        "table6.png",
        "Accuracy over rank, on test texts, and on training texts where these are measured alike.",
        typed.command,
        lambda: accuracy_figure(numbers.table),
    )
    option, words = against(runs.control_of_ranks)
    yield drawn(
        "figure3.png",
        f"φ(i, j) of {pair}{words}.",
        f"similarity {at[small.name]} {at[large.name]}{option}",
        lambda: figure3(numbers.ranks),
    )
    yield drawn(
        "figure6.png",
        f"The same in every module: {pair}.",
        f"similarity {at[small.name]} {at[large.name]} --figure layers",
        lambda: layers_figure(numbers.ranks),
    )
    option, words = against(runs.control_of_seeds)
    yield drawn(
        "figure4.png",
        f"φ(i, j) of two seeds, {seeds}, and of two random matrices{words}.",
        f"similarity {at[other.name]} {at[another.name]}{option} --figure 4",
        lambda: _beside_random(numbers.seeds),
    )
    yield drawn(
        "figure7.png",
        f"The same in every module: {seeds}.",
        f"similarity {at[other.name]} {at[another.name]} --figure layers",
        lambda: layers_figure(numbers.seeds),
    )
    yield drawn(
        "rank.png",
        f"How many directions {len(runs.same_rank)} seeds find again, in A - A₀.",
        f"rank {' '.join(at[a.name] for a in runs.same_rank)} --side delta-A",
        lambda: rank_figure(numbers.real),
    )
    for placed, adapter, name in zip(
        numbers.placed, (small, large), ("figure8.png", f"figure8-r{_most(large)}.png"), strict=True
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
        lambda: profile_figure(numbers.profile),
    )
    yield drawn(
        "amplification-map.png",
        f"How much of W {small.name}'s update meets in every module, as many times as a random "
        "one meets.",
        f"amplification {at[small.name]} --base {base} --figure map",
        lambda: map_figure(numbers.table7[0]),
    )
    yield drawn(
        "amplification-curve.png",
        f"The factor over the leading k directions of {large.name}, with its chance level.",
        f"amplification {at[large.name]} --base {base} --ranks 1-{_most(large)} --figure curve",
        lambda: curve_figure(numbers.curve),
    )
    yield drawn(
        "gains.png",
        f"What {small.name}'s update does to W along each of its directions, in one module.",
        f"amplification {at[small.name]} --base {base}",
        lambda: gains_figure(numbers.table7[0]),
    )


def _beside_random(result: Similarity) -> Figure:
    from subspace.measures.similarity.measure import random_pair
    from subspace.plots.figure4 import figure4
    from subspace.plots.parts.names import chosen

    first = result[chosen(result, None)[0]]
    return figure4(result, random_pair(first.rank_a, first.rank_b, first.d))
