"""What is written on Table 6's figure: its title, its notes and its legend."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from matplotlib.lines import Line2D

from subspace.plots.accuracy.curves import (
    BAND,
    CROWD,
    LINE,
    RING,
    SEED,
    TRAIN,
    curve_style,
    in_percent,
    level_style,
    levels_inside,
    reference_levels,
    target_curves,
)
from subspace.plots.parts.names import literal
from subspace.plots.parts.page import wrap

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from subspace.results import SweepRow, Table6

_NOTES = 8  # lines
_WORDS = {
    "full": "full: all weights trained",
    "head": "head: the classifier alone trained",
    "untrained": "untrained: under the first, random head",
}
_ENOUGH = (
    "nearly enough: the smallest rank whose mean is within one standard error of the best, "
    "paired over seeds"
)


def title_words(rows: Sequence[SweepRow], fits: int) -> str:
    """Say what is drawn, alpha, and what the bars are."""
    counts = [len(row.test) for row in rows if row.test]
    seen = any(math.isfinite(in_percent(row.train)[0]) for row in rows)
    which = "test against training texts" if seen else "test texts"
    counted = counted_words(rows)
    first = f"{counted[0].upper()}{counted[1:]} over rank: {which}; {_alpha(rows)}"
    least, most = min(counts, default=0), max(counts, default=0)
    if most > 1:
        over = f"{most}" if least == most else f"{least} to {most}"
        second = f"mean ± one standard deviation over {over}_seeds".replace(
            "_", "\N{NO-BREAK SPACE}"
        )
    else:
        second = "one seed" if most else "no run ended"
    return f"{wrap(first, fits)}\n{wrap(second, fits)}"


def counted_words(rows: Iterable[SweepRow]) -> str:
    """Say what is counted: texts that are told right, or that are written exactly.

    >>> from subspace.results import SweepRow
    >>> shares = dict.fromkeys(("test", "validation", "train", "before"), (0.5,))
    >>> row = SweepRow(
    ...     data="d", method="lora", targets="q", rank=1, alpha=1.0, learning_rate=1e-3, seeds=(0,),
    ...     parameters=9, metric="exact match", **shares)
    >>> counted_words([row])
    'exact matches'
    """
    words = {"accuracy": "accuracy", "exact match": "exact matches"}
    return " or ".join(words[metric] for metric in sorted({row.metric for row in rows}))


def _alpha(rows: Sequence[SweepRow]) -> str:
    pairs = [(row.alpha, row.rank) for row in rows if row.alpha is not None and row.rank]
    alphas = sorted({alpha for alpha, _ in pairs})
    if not alphas:
        return "no LoRA run"
    if len(alphas) == 1:
        words = f"alpha_{alphas[0]:g} at every rank"
    elif len({alpha / rank for alpha, rank in pairs}) == 1:
        words = f"alpha_=_{pairs[0][0] / pairs[0][1]:g}r"
    else:
        words = f"alpha_{alphas[0]:g} to {alphas[-1]:g}"
    return words.replace("_", "\N{NO-BREAK SPACE}")


def _join_words(targets: str) -> str:
    return ", ".join(targets.split("+"))


def note_words(panels: Mapping[str, Sequence[SweepRow]], sets: Sequence[str]) -> str:
    """Say what is missing, what has one seed, and what lies off the scale."""
    counts = {len(row.test) for rows in panels.values() for row in rows if row.test}
    sentences = []
    if counts == {1}:
        sentences.append("One seed: no bars, and it does not tell which rank is nearly enough.")
    for data, rows in panels.items():
        place = f"{literal(data, 24)}, " if len(panels) > 1 else ""
        lacks = _list_lacks(rows, sets, several=counts != {1})
        sentences += [
            f"{place}{name}: {'; '.join(words)}" for name, words in lacks.items() if words
        ]
        levels, inside = reference_levels(rows).items(), levels_inside(rows)
        if off := [f"{literal(k, 16)} {v:.1f}_%" for k, (v, _) in levels if k not in inside]:
            words = ", ".join(off).replace("_%", "\N{NO-BREAK SPACE}%")
            sentences.append(f"{place}off the scale: {words}")
    if len(sentences) > _NOTES:
        sentences[_NOTES - 1 :] = [f"and {len(sentences) - _NOTES + 1} more such lines"]
    return "\n".join(sentences)


def _list_lacks(
    rows: Sequence[SweepRow], sets: Sequence[str], *, several: bool
) -> dict[str, list[str]]:
    """Say, of each target set and reference, where a run or a bar is missing."""
    curves = target_curves(rows)
    ranks = sorted({rank for curve in curves.values() for rank in curve})
    lacking = {}
    for targets in (each for each in sets if each in curves):
        groups: dict[str, list[str]] = {}
        for rank in ranks:
            groups.setdefault(_describe_lack(curves[targets].get(rank), several), []).append(
                str(rank)
            )
        phrases = [f"{words}: r = {', '.join(at)}" for words, at in groups.items() if words]
        lacking[literal(_join_words(targets), 48)] = phrases
    for row in (row for row in rows if row.rank is None):
        lacking[literal(row.method, 16)] = (
            [words] if (words := _describe_lack(row, several)) else []
        )
    return lacking


def _describe_lack(row: SweepRow | None, several: bool) -> str:
    if row is None:
        return "not run"
    if not row.test:
        return "failed"
    if row.failed:
        return f"a run failed, {len(row.test)} seed{'s' * (len(row.test) > 1)} left"
    return "one seed, no bar" if several and len(row.test) == 1 else ""


def legend_lines(
    table: Table6,
    panels: Iterable[Sequence[SweepRow]],
    sets: Sequence[str],
    fits: int,
    columns: int,
) -> list[Line2D]:
    """Return the legend: one column of target sets, one of what lines and marks mean."""
    rows = [row for row in table if row.rank is not None]
    many = any(len(row.test) > 1 for row in rows)
    black = {"color": "black", "marker": "o", "markersize": 3.8, **LINE}
    kinds: list[tuple[str, dict[str, Any]]] = []
    if any(row.test for row in rows):
        kinds.append(("test texts" + many * ", mean ± one standard deviation", black))
    if any(math.isfinite(in_percent(row.train)[0]) for row in rows):
        kinds.append(("training texts" + many * ", mean", black | TRAIN))
    if many and len(sets) <= CROWD:
        kinds.append(("test texts, each seed", {"color": "black", **SEED}))
    if any(nearly.rank is not None for nearly in table.nearly_enough):
        kinds.append((_ENOUGH, {"color": "black", **RING}))
    levels = [
        (name, spread)
        for panel_rows in panels
        for name, (_, spread) in levels_inside(panel_rows).items()
    ]
    kinds += [(_WORDS[name], level_style(name)) for name in _WORDS if name in dict(levels)]
    if any(math.isfinite(spread) for _, spread in levels):
        band = {"color": BAND, "linewidth": 3.5}
        kinds.append(("± one standard deviation of these", band))
    names = [
        Line2D([], [], label=literal(_join_words(targets), fits), **curve_style(k))
        for k, targets in enumerate(sets)
    ]
    marks = [Line2D([], [], label=wrap(label, fits), **style) for label, style in kinds]
    if columns == 1:
        return [*names, *marks]
    length = max(len(names), len(marks))
    empty = [Line2D([], [], linestyle="none", label="") for _ in range(length)]
    return [*(names + empty)[:length], *(marks + empty)[:length]]


def legend_height(handles: Sequence[Line2D], columns: int) -> int:
    """Return the lines of text of a legend."""
    length = math.ceil(len(handles) / columns)
    labels = [str(handle.get_label()) for handle in handles]
    return max(
        (
            sum(x.count("\n") + 1 for x in labels[k : k + length])
            for k in range(0, len(labels), length or 1)
        ),
        default=0,
    )
