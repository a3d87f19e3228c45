"""Table 6 as the page draws it: every mark with its place and its words, for pointer and keys.

It draws what `subspace.plots.accuracy` does: Hu et al. 2021, arXiv:2106.09685, Table 6.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from subspace.errors import ArgumentError
from subspace.plots.accuracy.curves import (
    CROWD,
    apart,
    in_percent,
    levels_inside,
    reference_levels,
    scale_limits,
    target_curves,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from subspace.results import SweepRow, Table6

WIDE, HIGH = 560, 300
"""Of a panel, in the units of its drawing."""
LEFT, RIGHT, TOP, BOTTOM = 56, WIDE - 92, 12, HIGH - 42
_EDGE = math.log2(1.35)  # octaves from the outer ranks to the frame
_ASIDE = 11  # between two sets at one rank, where there is room
_LETTERS = 15  # the height that a reference's name needs, in the letters of a phone
_LISTED = 5  # seeds whose accuracies are named one by one

# A shape a set, about (0, 0), so that colours need not be told apart.
SHAPES = (
    "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0 -8 0z", "M-3.6 -3.6h7.2v7.2h-7.2z", "M0 -5L5 0L0 5L-5 0z",
    "M0 -5L4.6 3.4H-4.6z", "M0 5L4.6 -3.4H-4.6z",
    "M-1.7 -4.6h3.4v2.9h2.9v3.4h-2.9v2.9h-3.4v-2.9h-2.9v-3.4h2.9z",
    "M-4.4 -2L-2 -4.4L0 -2.2L2 -4.4L4.4 -2L2.2 0L4.4 2L2 4.4L0 2.2L-2 4.4L-4.4 2L-2.2 0z",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ChartMark:
    """One configuration: where it stands, and what is said of it."""

    x: float
    y: float
    ends: tuple[float, float] | None  # of its bar, mean plus and minus a standard deviation
    words: str
    row: int  # of the table
    column: int  # its rank's place on the axis; that of references is the last
    enough: bool = False


@dataclass(frozen=True, kw_only=True)
class ChartCurve:
    """One target set."""

    name: str
    style: int  # of `SHAPES`, and of the page's colours
    line: str  # the path of the means, with a gap where no run is
    train: str  # of the training texts
    trained: Sequence[tuple[float, float]]
    seeds: Sequence[tuple[float, float]]
    marks: Sequence[ChartMark]


@dataclass(frozen=True)
class ChartLevel:
    """What needs no rank: a reference, or the untrained model."""

    name: str
    y: float
    name_y: float  # pushed apart from the names beside it
    band: tuple[float, float] | None  # top and height: a standard deviation to both sides
    mark: ChartMark | None  # of a reference


@dataclass(frozen=True, kw_only=True)
class ChartPanel:
    """One data set."""

    data: str
    ranks: Sequence[tuple[float, int]]
    percents: Sequence[tuple[float, str]]
    curves: Sequence[ChartCurve]
    levels: Sequence[ChartLevel]
    alone: Sequence[str]  # references beyond the scale, in words


def place_panels(table: Table6) -> tuple[ChartPanel, ...]:
    """Place everything of a sweep, one panel a data set; none where no run has ended.

    Raises
    ------
    ArgumentError
        Two rows of one name, or more than seven target sets: only the table can show them.
    """
    rows: dict[str, list[tuple[int, SweepRow]]] = {}
    for n, row in enumerate(table):
        rows.setdefault(row.data, []).append((n, row))
    sets = tuple(target_curves(table.rows))
    return tuple(
        _make_panel(
            data,
            by_kind_of_panel,
            sets,
            {f.targets: f.rank for f in table.nearly_enough if f.data == data},
        )
        for data, by_kind_of_panel in rows.items()
        if math.isfinite(scale_limits([row for _, row in by_kind_of_panel])[0])
    )


def try_panels(table: Table6) -> tuple[tuple[ChartPanel, ...], str]:
    """Return `place_panels`, or none and why."""
    try:
        return place_panels(table), ""
    except ArgumentError as error:
        return (), str(error)


def _make_panel(
    data: str,
    panel_rows: Sequence[tuple[int, SweepRow]],
    sets: Sequence[str],
    enough: Mapping[str, int | None],
) -> ChartPanel:
    rows = [row for _, row in panel_rows]
    places = {id(row): n for n, row in panel_rows}
    curves = target_curves(rows)
    ranks = sorted({rank for curve in curves.values() for rank in curve})
    low, high = scale_limits(rows)

    def y(percent: float) -> float:
        return round(BOTTOM + (percent - low) / (high - low) * (TOP - BOTTOM), 1)

    first, last = (math.log2(r) for r in (ranks[0], ranks[-1])) if ranks else (0.0, 0.0)
    octave = (RIGHT - LEFT) / (last - first + 2 * _EDGE)
    at = [LEFT + octave * (math.log2(rank) - first + _EDGE) for rank in ranks]
    nearest = min((b - a for a, b in pairwise(at)), default=octave)
    step = min(_ASIDE, 0.6 * nearest / len(sets)) if sets else 0.0
    points = []
    for targets, curve in curves.items():
        k = sets.index(targets)
        aside = [x + step * (k - (len(sets) - 1) / 2) for x in at]
        points.append(
            _make_curve(
                [curve.get(rank) for rank in ranks], aside, k, y, places,
                enough.get(targets), dots=step / 2 if len(sets) <= CROWD else 0.0,
            )
        )  # fmt: skip
    inside = levels_inside(rows)
    return ChartPanel(
        data=data,
        ranks=tuple((round(x, 1), rank) for x, rank in zip(at, ranks, strict=True)),
        percents=_choose_ticks(low, high, y),
        curves=tuple(points),
        levels=_levels(inside, rows, y, places, len(ranks)),
        alone=tuple(
            f"{_named(name)} ({level:.1f} %) is beyond the scale"
            for name, (level, _) in reference_levels(rows).items()
            if name not in inside
        ),
    )


def _make_curve(
    curve: Sequence[SweepRow | None],
    at: Sequence[float],
    style: int,
    y: Callable[[float], float],
    places: Mapping[int, int],
    enough: int | None,
    *,
    dots: float,
) -> ChartCurve:
    name = next(row.targets for row in curve if row is not None)
    means, trains = ([_format_percent(row, what) for row in curve] for what in ("test", "train"))
    marks = []
    for column, (x, row) in enumerate(zip(at, curve, strict=True)):
        mean = means[column]
        if row is None or mean is None:
            continue
        spread = in_percent(row.test)[1]
        ends = (y(mean + spread), y(mean - spread)) if math.isfinite(spread) else None
        ring = row.rank is not None and row.rank == enough
        words = _describe_point(row) + ("; the smallest rank that is nearly enough" if ring else "")
        marks.append(
            ChartMark(
                x=round(x, 1), y=y(mean), ends=ends, words=words, row=places[id(row)],
                column=column, enough=ring,
            )
        )  # fmt: skip
    return ChartCurve(
        name=_spell_targets(name),
        style=style,
        line=_draw_path(zip(at, means, strict=True), y),
        train=_draw_path(zip(at, trains, strict=True), y),
        trained=tuple(
            (round(x, 1), y(v)) for x, v in zip(at, trains, strict=True) if v is not None
        ),
        seeds=tuple(
            (round(x + dots, 1), y(100 * value))
            for x, row in zip(at, curve, strict=True)
            if dots and row is not None and len(row.test) > 1
            for value in row.test
        ),
        marks=tuple(marks),
    )


def _levels(
    inside: Mapping[str, tuple[float, float]],
    rows: Sequence[SweepRow],
    y: Callable[[float], float],
    places: Mapping[int, int],
    column: int,
) -> tuple[ChartLevel, ...]:
    of: dict[str, SweepRow] = {row.method: row for row in rows if row.rank is None}
    ordered = sorted(inside.items(), key=lambda item: item[1][0])
    heights = apart([y(level) for _, (level, _) in reversed(ordered)], _LETTERS)[::-1]
    out = []
    for (name, (level, spread)), name_y in zip(ordered, heights, strict=True):
        band = (y(level + spread), y(level - spread)) if math.isfinite(spread) else None
        row = of.get(name)
        mark = (
            None
            if row is None
            else ChartMark(
                x=RIGHT,
                y=y(level),
                ends=band,
                words=_describe_point(row),
                row=places[id(row)],
                column=column,
            )
        )
        area = None if band is None else (band[0], round(band[1] - band[0], 1))
        out.append(ChartLevel(name, y(level), round(name_y, 1), area, mark))
    return tuple(out)


def _describe_point(row: SweepRow) -> str:
    """Say all that the table says of a configuration, and its seeds one by one."""
    mean, spread = in_percent(row.test)
    what = (
        _named(row.method)
        if row.rank is None
        else f"{_spell_targets(row.targets)}, rank {row.rank}"
    )
    if len(row.test) > 1:
        few = len(row.test) <= _LISTED
        each = f": {', '.join(f'{100 * v:.1f}' for v in row.test)}" if few else ""
        sentence = f"{mean:.1f} ± {spread:.1f} % of the test texts ({len(row.test)} seeds{each})"
    else:
        sentence = f"{mean:.1f} % of the test texts (one seed)"
    train, _ = in_percent(row.train)
    sentence += f", {train:.1f} % of the training texts" if math.isfinite(train) else ""
    alpha = "" if row.alpha is None else f", alpha {row.alpha:g}"
    return f"{what}: {sentence}; learning rate {row.learning_rate:g}{alpha}"


def _named(method: str) -> str:
    words = {
        "full": "full fine-tuning",
        "head": "the classifier alone",
        "untrained": "the untrained model",
    }
    return words.get(method, method)


def _spell_targets(targets: str) -> str:
    return ", ".join(targets.split("+"))


def _format_percent(row: SweepRow | None, what: str) -> float | None:
    value = in_percent(() if row is None else getattr(row, what))[0]
    return value if math.isfinite(value) else None


def _draw_path(points: Iterable[tuple[float, float | None]], y: Callable[[float], float]) -> str:
    words, after = [], False
    for x, value in points:
        if value is not None:
            words.append(f"{'L' if after else 'M'}{x:.1f} {y(value):.1f}")
        after = value is not None
    return "".join(words)


def _choose_ticks(
    low: float, high: float, y: Callable[[float], float]
) -> tuple[tuple[float, str], ...]:
    from matplotlib.ticker import MaxNLocator

    values = MaxNLocator(6, steps=[1, 2, 5, 10]).tick_values(low, high)
    return tuple((y(v), f"{v:g}") for v in values if low <= v <= min(high, 100))
