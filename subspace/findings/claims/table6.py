"""Table 6 of the paper: a very small rank does, and a large one does no better."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import mean, stdev
from typing import TYPE_CHECKING

from subspace.chance import paired_interval
from subspace.findings.paper import TABLE6, TABLE6_RANKS, matrices
from subspace.results import Claim, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from subspace.results import NearlyEnough, SweepRow, Table6

# A rank up to this is very small: if it does, the claim holds.
SMALL = 2
# The matrices of which the paper itself has its best at r = 4, and what is small there.
ALONE, SMALL_ALONE = "Wq", 4
# Up to so many times the small rank the claim holds in part; only a sweep that goes beyond tells.
IN_PART = 2
# Accuracy that decides nothing, however sure: in the paper's own Table 6 r = 1 lacks up to 0.5
# points of the best, and is called competitive.
COMPETITIVE = 0.005
# Standard errors up to which a larger rank is no better than a smaller one: the rule of 'nearly
# enough'. The best of several is chosen after the fact: that favours what is said of the largest
# rank a little, and what is said of the smallest not.
NO_BETTER = 1.0
# What a rank may lack of the best and still do: this share of what was learned (over the head
# alone, or untrained). A verdict needs the whole interval of the paired difference on one side.
MARGIN = 0.1
# What the paper adapts where it speaks of r = 1; quoted where our matrices are none of its sets.
QUOTED = "Wq, Wv"


def check_small_rank(table: Table6) -> list[Claim]:
    """Return two claims a data set and target set: a small rank is enough, a large one no better.

    A rank does where the 95 % interval of what it lacks of the best (Student's, paired over seeds)
    ends below `MARGIN` of what was learned, and fails where that begins above `COMPETITIVE` and
    ends beyond the margin. The first claim agrees where a rank up to `SMALL` does, holds in part
    where one up to `IN_PART` times that does, and does not hold where all of them fail. The second
    asks the same of the best smaller rank beside the largest one. A gain that is sure and within
    the margin holds in part. All else is inconclusive at this number of seeds.

    >>> from subspace.results import Table6
    >>> for claim in check_small_rank(Table6((), ())):
    ...     print(f"{claim.verdict}: {claim.here}")
    open: Undefined: no run of a sweep over ranks ended
    open: Undefined: no run of a sweep over ranks ended
    """
    if not table.nearly_enough:
        none = "Undefined: no run of a sweep over ranks ended"
        return [Claim("Table 6", say(QUOTED), none, "open") for say in (_name_small, _name_large)]
    return [
        claim
        for nearly in table.nearly_enough
        for claim in _check_task(_Curve.of(table, nearly), nearly)
    ]


@dataclass(frozen=True)
class _Curve:
    """Accuracy over rank, of one data set and target set."""

    name: str
    named: str | None  # as the paper names the matrices
    rows: Mapping[int, SweepRow]  # by rank, those with a test accuracy
    floor: str  # what the head alone reaches, or the untrained model
    gain: tuple[float, float]  # of the best rank over it: paired difference, standard error

    @classmethod
    def of(cls, table: Table6, nearly: NearlyEnough) -> _Curve:
        here = [row for row in table if row.data == nearly.data and math.isfinite(row.mean)]
        rows = {
            row.rank: row
            for row in here
            if row.method == "lora" and row.targets == nearly.targets and row.rank is not None
        }
        name, named = f"{nearly.data}, {nearly.targets}", matrices(nearly.targets)
        if not rows:
            return cls(name, named, rows, "", (math.nan, math.nan))
        best = rows[_best(rows)]
        head = next((row for row in here if row.method == "head"), None)
        if head is not None:
            words, under = f"the head alone {_format_spread(head)}", _list_by_seed(head)
        else:
            under = {
                s: a for s, a in zip(best.seeds, best.before, strict=False) if math.isfinite(a)
            }
            words = f"untrained {_format_percent(mean(under.values()))}" if under else ""
        gain = _difference(_list_by_seed(best), under)
        if under and math.isnan(gain[0]):
            gain = best.mean - mean(under.values()), 0.0
        return cls(name, named, rows, words, gain)

    @property
    def small(self) -> int:
        return SMALL_ALONE if self.named == ALONE else SMALL

    @property
    def ranks(self) -> list[int]:
        return sorted(self.rows)

    def unfit(self) -> str:
        """Say why this curve cannot tell; empty if it can."""
        if not self.rows:
            return "no run ended"
        if self.ranks[-1] <= IN_PART * self.small or len(self.rows) == 1:
            return f"no larger rank to compare with, such as {TABLE6_RANKS[-1]}"
        gain, error = self.gain
        if gain <= error:
            return f"nothing was learned that could need a rank ({self.floor})"
        return ""


def _check_task(curve: _Curve, nearly: NearlyEnough) -> Iterator[Claim]:
    unfit = curve.unfit()
    for say, judge in ((_name_small, _judge_small), (_name_large, _judge_large)):
        words, verdict = judge(curve, nearly) if curve.rows else ("", None)
        here = f"{curve.name}: {'; '.join(part for part in (unfit, words) if part)}"
        yield Claim("Table 6", say(curve.named), here, "open" if unfit or not verdict else verdict)


def _judge_small(curve: _Curve, nearly: NearlyEnough) -> tuple[str, Verdict]:
    ranks, rows = curve.ranks, curve.rows
    best, least = _best(rows), ranks[0]
    words, verdict = (
        ("too few seeds tell which rank is nearly enough", _FEW)
        if nearly.rank is None
        else _judge_enough(curve, nearly, nearly.rank)
    )
    means = [row.mean for row in rows.values()]
    words += f"; r = {least} has {_format_spread(rows[least])}"
    words += (
        ", the best" if best == least else f", the best, r = {best}, {_format_spread(rows[best])}"
    )
    over = f"r = {least} to {ranks[-1]}" if len(ranks) > 1 else f"r = {least}"
    words += f"; the means of {over} lie within {100 * (max(means) - min(means)):.1f} points"
    return words + (f" ({curve.floor})" if curve.floor else ""), verdict


def _judge_enough(curve: _Curve, nearly: NearlyEnough, rank: int) -> tuple[str, Verdict]:
    ranks, rows = curve.ranks, curve.rows
    best, least = _best(rows), ranks[0]
    behind = {r: _paired(rows[best], rows[r]) for r in ranks}
    does = min(r for r in ranks if r in (best, rank) or _no_better(*behind[r]))
    if does < rank:
        lacks = _format_points(*behind[does])
        words = f"r = {does} does, {lacks} points behind the best (nearly enough: r = {rank})"
    elif rank == best != least:
        words = f"no smaller rank is nearly as good as r = {rank}"
    else:
        words = f"r = {rank} is nearly enough{_describe_behind(nearly)}"
    unknown = does == least and does > curve.small
    words += ", and no smaller one was trained" if unknown else ""

    # Beside the best larger one: whether a rank that is itself the best needs more is the question.
    ends = {
        r: _interval(rows[_best({k: rows[k] for k in ranks if k > r})], rows[r])
        for r in ranks[:-1]
        if r <= IN_PART * curve.small
    }
    judged = {r: _judge(curve, *ends[r]) for r in ends}
    does_small = [r for r in judged if r <= curve.small and judged[r] == "agrees"]
    if does_small:
        return words, "agrees"
    if any(verdict in ("agrees", "in part") for verdict in judged.values()):
        return words, "in part"
    if not judged:
        return words, "open"
    if all(verdict == "does not" for verdict in judged.values()):
        return words, "does not"
    r = max(judged, key=lambda r: rows[r].mean)
    return f"{words}; {_describe_interval(f'r = {r} lacks', *ends[r])}", "inconclusive"


_FEW: Verdict = "inconclusive"


def _judge(curve: _Curve, low: float, high: float) -> Verdict:
    """Judge the interval of what a smaller rank lacks."""
    if math.isnan(low):
        return "inconclusive"
    margin = max(COMPETITIVE, MARGIN * curve.gain[0])
    if high <= margin:
        return "in part" if low > COMPETITIVE else "agrees"
    return "does not" if low > COMPETITIVE else "inconclusive"


def _describe_interval(what: str, low: float, high: float) -> str:
    if math.isnan(low):
        return "one seed has no interval"
    return f"{what} {100 * low:.1f} to {100 * high:.1f} points at 95 %, too wide for a verdict"


def _no_better(gain: float, error: float) -> bool:
    return gain <= max(COMPETITIVE, NO_BETTER * error)


def _describe_behind(nearly: NearlyEnough) -> str:
    if nearly.rank == nearly.best or not math.isfinite(nearly.behind + nearly.error):
        return ""
    return f", {_format_points(nearly.behind, nearly.error)} points behind the best"


def _judge_large(curve: _Curve, _: NearlyEnough) -> tuple[str, Verdict]:
    rows, largest = curve.rows, curve.ranks[-1]
    smaller = {rank: row for rank, row in rows.items() if rank < largest}
    if not smaller:
        return f"r = {largest} alone has {_format_spread(rows[largest])}", "open"
    best = _best(smaller)
    words = (
        f"r = {largest} has {_format_spread(rows[largest])} where the best smaller one, r = "
        f"{best}, has "
        f"{_format_spread(smaller[best])}"
    )
    gain, error = _paired(rows[largest], smaller[best])
    if math.isnan(gain):
        return f"{words}; they share too few seeds to tell a difference", "inconclusive"
    seeds = len(set(rows[largest].seeds) & set(smaller[best].seeds))
    words += f", paired over {seeds} seeds {_format_points(gain, error, sign='+')} points"
    low, high = _interval(rows[largest], smaller[best])
    verdict = _judge(curve, low, high)
    if verdict == "inconclusive":
        words += f"; {_describe_interval(f'r = {largest} gains', low, high)}"
    return words, verdict


def _best(rows: Mapping[int, SweepRow]) -> int:
    """Return the rank of the highest mean, the smaller of equal ones."""
    return max(rows, key=lambda rank: (rows[rank].mean, -rank))


def _paired(a: SweepRow, b: SweepRow) -> tuple[float, float]:
    return _difference(_list_by_seed(a), _list_by_seed(b))


def _interval(a: SweepRow, b: SweepRow) -> tuple[float, float]:
    """Return the ends of the 95 % interval of a's accuracy less b's, paired over seeds."""
    return paired_interval(_subtract(_list_by_seed(a), _list_by_seed(b)))


def _list_by_seed(row: SweepRow) -> dict[int, float]:
    return dict(zip(row.seeds, row.test, strict=False))


def _difference(a: Mapping[int, float], b: Mapping[int, float]) -> tuple[float, float]:
    """Return the mean difference over common seeds and its standard error; NaN below two."""
    both = _subtract(a, b)
    if len(both) < 2:
        return math.nan, math.nan
    return mean(both), stdev(both) / math.sqrt(len(both))


def _subtract(a: Mapping[int, float], b: Mapping[int, float]) -> list[float]:
    return [a[seed] - b[seed] for seed in a if seed in b]


def _format_percent(accuracy: float) -> str:
    return f"{100 * accuracy:.1f} %"


def _format_spread(row: SweepRow) -> str:
    return _format_percent(row.mean) + ("" if math.isnan(row.std) else f" ± {100 * row.std:.1f}")


def _format_points(value: float, error: float, sign: str = "") -> str:
    return f"{100 * value:{sign}.1f} ± {100 * error:.1f}"


def _name_small(named: str | None) -> str:
    sets, other = named or QUOTED, "" if named else ", though of other matrices than these"
    parts = []
    for data, figures in TABLE6.items():
        first, best = figures[sets][TABLE6_RANKS.index(1)], max(figures[sets])
        rank = TABLE6_RANKS[figures[sets].index(best)]
        at_best = f"where r = {rank} has {best:.1f} %" if rank != 1 else ", the best,"
        parts.append(f"{first:.1f} % {at_best} on {data}")
    what = (
        f"For {sets} alone a rank of about {SMALL_ALONE} does"
        if sets == ALONE
        else f"A very small rank does for {sets}{other}"
    )
    return f"{what}: r = 1 has {', and '.join(parts)}".replace(" ,", ",")


def _name_large(named: str | None) -> str:
    sets, other = named or QUOTED, "" if named else " (other matrices than these)"
    at = [TABLE6_RANKS.index(rank) for rank in (64, 8)]
    parts = [
        f"{figures[sets][at[0]]:.1f} % against {figures[sets][at[1]]:.1f} % on {data}"
        for data, figures in TABLE6.items()
    ]
    return (
        f"More rank brings no more: of {sets}{other} r = 64 beside r = 8 has {', and '.join(parts)}"
    )
