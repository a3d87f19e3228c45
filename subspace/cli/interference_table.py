"""Interference as a terminal shows it, and as rows for model cards and papers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from subspace.cli.shared.printing import common_path, echo_table, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from subspace.results import Interference, PairInterference, WholePair

_COSINE = ("cos", "chance", "p", "in φ", "chance", "out φ", "chance")
_TWO = ("module", *_COSINE, "energy")
_MANY = ("module", "adapters", *_COSINE)
_PAIRS = (
    "adapters",
    "cos",
    "chance",
    "p",
    "modules",
    "same",
    "opposite",
    "lowest cos",
    "in module",
)
_ADAPTERS = ("adapter", "weight", "|ΔW|", "share", "along")
_WORST = ("module", "energy", "chance", "lowest cos", "between")
WHOLE = "whole model"
LISTED = 6  # modules of lowest energy that are printed of more than two adapters
_NAMED = 3  # modules of one note


def show(result: Interference, *, each: bool = False) -> None:
    """Print the tables, the sentences, and what a reader must know to read them.

    Parameters
    ----------
    result
        Two adapters have one line a module; more have one a pair and the modules of lowest energy.
    each
        Of more than two adapters, one line a module and pair.
    """
    from subspace.findings import describe_interference

    say(f"interference in {_sum(result)}: what a merge by weighted sum of delta W would do")
    above = common_path(list(result))
    if above:
        say(f"modules of {above}")
    many = len(result.adapters) > 2
    header, rows = table(result, each=each, above=above)
    echo_table(header, rows, left=2 if many and each else 1)
    if many and not each:
        say(f"modules of lowest energy, {min(LISTED, len(result))} of {len(result)}")
        echo_table(_WORST, _worst(result, above))
    echo_table(_ADAPTERS, _adapters(result))
    _legend(result, each=each)
    for sentence in describe_interference(result):
        say(sentence)
    said: dict[str, list[str]] = {}
    for name, m in result.items():
        if m.note:
            said.setdefault(m.note, []).append(name)
    for note, names in said.items():
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        say(f"note: {', '.join(names[:_NAMED])}{more}: {note}")
    for note in result.notes:
        say(f"note: {note}")


def _sum(result: Interference) -> str:
    if all(weight == 1 for weight in result.weights):
        return " + ".join(result.adapters)
    pairs = zip(result.weights, result.adapters, strict=True)
    return " + ".join(f"{weight:g} x {name}" for weight, name in pairs)


def _legend(result: Interference, *, each: bool) -> None:
    say(
        "cos: <dW1, dW2> / (|dW1| |dW2|), weights' signs included; * beyond chance (level "
        f"{result.level:g}, Benjamini-Hochberg over modules)"
    )
    if len(result.adapters) > 2 and not each:
        say("same, opposite: modules beyond chance with a cosine above and below 0")
    else:
        say("in φ, out φ: overlap of all row spaces and of all column spaces of delta W")
    say(
        "energy: |sum|^2 / sum |w dW|^2: 1 orthogonal, less cancels, more reinforces; share: of "
        "sum |w dW|^2; along: <sum, dW> / |dW|^2, the weight where nothing interferes"
    )


def table(
    result: Interference, *, each: bool = False, above: str = ""
) -> tuple[tuple[str, ...], list[list[str]]]:
    """Return header and rows of the main table, module names without the path `above`."""
    if len(result.adapters) == 2:
        rows = [
            [name.removeprefix(f"{above}."), *_cells(m.pairs[0]), _number(m.energy)]
            for name, m in result.items()
        ]
        whole = result.pairs[0]
        end = [*_whole(whole), "", "", "", "", _number(result.energy)]
        return _TWO, [*rows, [WHOLE, *end]]
    if each:
        return _MANY, [
            [name.removeprefix(f"{above}."), " + ".join(pair.adapters), *_cells(pair)]
            for name, m in result.items()
            for pair in m.pairs
        ]
    return _PAIRS, [_pair(result, pair, above) for pair in result.pairs]


def _cells(pair: PairInterference) -> list[str]:
    star = "*" if pair.finding else ""
    return [
        f"{_number(pair.cosine)}{star}",
        f"±{pair.chance_std:.2g}",
        _p(pair.p),
        *(
            _number(value)
            for space in (pair.rows, pair.columns)
            for value in (space.phi, space.chance)
        ),
    ]


def _whole(pair: WholePair) -> list[str]:
    return [_number(pair.cosine), f"±{pair.chance_std:.2g}", _p(pair.p)]


def _pair(result: Interference, pair: WholePair, above: str) -> list[str]:
    found = [(p.cosine, name) for name, m in result.items() if (p := m.pair(pair.adapters))]
    known = sorted(each for each in found if not math.isnan(each[0]))
    low, where = known[0] if known else (math.nan, "-")
    counts = [str(n) for n in (pair.modules, pair.same, pair.opposite)]
    name = where.removeprefix(f"{above}.")
    return [" + ".join(pair.adapters), *_whole(pair), *counts, _number(low), name]


def _worst(result: Interference, above: str) -> list[list[str]]:
    rows = []
    known = [m for m in result.values() if not math.isnan(m.energy)]
    for m in sorted(known, key=lambda m: m.energy)[:LISTED]:
        pairs = [p for p in m.pairs if not math.isnan(p.cosine)]
        low = min(pairs, key=lambda p: p.cosine) if pairs else None
        rows.append([
            m.module.removeprefix(f"{above}."),
            _number(m.energy),
            f"1±{m.energy_std:.2g}",
            *(("-", "-") if low is None else (_number(low.cosine), " + ".join(low.adapters))),
        ])  # fmt: skip
    return rows


def _adapters(result: Interference) -> list[list[str]]:
    facts: Sequence[tuple[str, float, float, float, float]] = list(
        zip(result.adapters, result.weights, result.norms, result.shares, result.kept, strict=True)
    )
    return [
        [name, f"{weight:g}", f"{norm:.3g}", _number(share), _number(kept)]
        for name, weight, norm, share, kept in facts
    ]


def _number(x: float) -> str:
    return "-" if math.isnan(x) else f"{x:.3f}"


def _p(p: float) -> str:
    return "-" if math.isnan(p) else "< 1e-12" if p < 1e-12 else f"{p:.1e}"
