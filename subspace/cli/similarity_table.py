"""Phi of two adapters as a terminal shows it: one line a module."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from subspace.cli.shared.options import BASE_WORDS, SIDE_WORDS
from subspace.cli.shared.printing import common_path, echo_table, say

if TYPE_CHECKING:
    from subspace.results import ModuleSimilarity, Similarity


def show(result: Similarity) -> None:
    """Print one line a module, and what a reader must know to read it."""
    a, b = result.adapters
    words = BASE_WORDS if result.of_base else SIDE_WORDS
    say(f"phi of {a} (i) and {b} (j), side {result.side}: {words[result.side]}")
    above = common_path(list(result))
    if above:
        say(f"modules of {above}")
    echo_table(*table(result, above))
    say(
        f"agree: leading directions shared beyond chance (level {result.level:g}, "
        f"Benjamini-Hochberg over {len(result)} modules)"
    )
    if result.initial is not None:
        say("start: φ(1,1) between the two initial A")
    if result.control is not None:
        say(f"control: φ(1,1) of {a} and {result.control.adapters[1]}")
    for name, m in result.items():
        if m.note:
            say(f"note: {name}: {m.note}")
    for note in result.notes:
        say(f"note: {note}")
    for adapter, names in zip(result.adapters, result.unmatched, strict=True):
        if names:
            more = f" and {len(names) - 6} more" if len(names) > 6 else ""
            say(f"note: only {adapter} has {', '.join(names[:6])}{more}")


def table(result: Similarity, above: str = "") -> tuple[list[str], list[list[str]]]:
    """Return header and rows, module names without the path `above`."""
    ranks = {(m.rank_a, m.rank_b) for m in result.values()}
    last = "φ({},{})".format(*next(iter(ranks))) if len(ranks) == 1 else "φ(r,r)"
    header = ["module", "φ(1,1)", "chance", "p", last, "chance", "agree"]
    angles = any(m.angles is not None for m in result.values())
    header += ["least angle", "chance"] if angles else []
    header += ["start"] if result.initial is not None else []
    header += ["control", "agree"] if result.control is not None else []
    rows = []
    for name, m in result.items():
        real = (m.numerical_rank_a, m.numerical_rank_b)
        i, j = (rank - 1 for rank in real) if all(real) else (-1, -1)
        row = [name.removeprefix(f"{above}."), _phi(m.phi[0, 0]), f"{m.null_mean[0, 0]:.3f}"]
        row += [_p(m.pvalue[0, 0]), _phi(m.phi[i, j]), f"{m.null_mean[i, j]:.3f}", _agreeing(m)]
        if angles:
            row += [_degrees(None if m.angles is None else m.angles[0]), _degrees(m.angle_edge)]
        if result.initial is not None:
            row.append(_phi(result.initial[name].phi[0, 0]))
        if result.control is not None:
            there = result.control.modules.get(name)
            row += ["-", "-"] if there is None else [_phi(there.phi[0, 0]), _agreeing(there)]
        rows.append(row)
    return header, rows


def _degrees(angle: float | None) -> str:
    return "-" if angle is None else f"{math.degrees(angle):.1f}°"


def _agreeing(m: ModuleSimilarity) -> str:
    if m.agreeing is None:
        return "-"
    return f"{m.agreeing}/{min(m.numerical_rank_a, m.numerical_rank_b)}"


def _phi(value: float) -> str:
    return "-" if value != value else f"{value:.3f}"


def _p(value: float) -> str:
    return "-" if value != value else "< 1e-12" if value < 1e-12 else f"{value:.1e}"
