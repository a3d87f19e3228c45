"""Table 7 as a terminal shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from subspace.cli.shared.printing import common_path, echo_table, say

if TYPE_CHECKING:
    from subspace.results import Amplification, ModuleAmplification

HEADER = (
    "module", "r", "|W|", "|ΔW|", "in ΔW", "in W", "random", "factor", "by chance", "x chance",
)  # fmt: skip


def show(result: Amplification) -> None:
    """Print Table 7 with what chance gives."""
    found = [row for row in result if row.w_in_w_method == "krylov" and row.w_in_w > 0]
    bound = max((row.w_in_w_error / row.w_in_w for row in found), default=None)
    above = _head(result)
    echo_table(HEADER, rows_of(result, above))
    say("in X: |U^T W V| with U, V from delta W, from W's own top r, from random directions")
    say("x chance: how many times more of W than a random update meets; * outside its central 95 %")
    if bound is not None:
        say(
            f"in W: by block Krylov, each singular value found to {bound:.0e} or better; a lower "
            "bound, since no residual proves that none was missed"
        )
    _say_notes(result)


def _say_notes(result: Amplification) -> None:
    notes = dict.fromkeys((row.module, row.note) for row in result if row.note)
    for module, note in notes:
        say(f"note: {module}: {note}")


def echo_directions(result: Amplification) -> None:
    """Print one line a direction; of several ranks the largest, whose first ones the others are."""
    above = _head(result)
    rows = []
    for row in {row.module: row for row in result}.values():
        for k, d in enumerate(row.directions, start=1):
            cells = [_number(x) for x in (d.sigma, d.w, row.w_by_chance, d.ratio, d.gain)]
            rows.append([row.module.removeprefix(f"{above}."), str(k), *cells])
    echo_table(["module", "k", "sigma", "w", "|w| by chance", "sigma/|w|", "gain"], rows)
    say("w = u_k^T W v_k; gain = 1 + sigma/w: what W does along it is multiplied by this")
    _say_notes(result)


def rows_of(result: Amplification, above: str = "") -> list[list[str]]:
    """Return the cells of `HEADER`, module names without the path `above`."""
    return [
        [
            row.module.removeprefix(f"{above}."),
            str(row.rank),
            _number(row.w_norm),
            _number(row.delta_norm),
            _number(row.w_in_delta),
            _number(row.w_in_w),
            _number(row.w_in_random),
            _number(row.factor),
            _by_chance(row),
            _times(row),
        ]
        for row in result
    ]


def _head(result: Amplification) -> str:
    scale = "with" if result.scaled else "without"
    say(f"amplification by {result.adapter} of {result.base}, delta W {scale} its scale alpha/r")
    above = common_path([row.module for row in result])
    if above:
        say(f"modules of {above}")
    return above


def _by_chance(row: ModuleAmplification) -> str:
    if row.chance_factor != row.chance_factor:
        return "-"
    return f"{row.chance_factor:.3g} ({row.chance_low:.3g}-{row.chance_high:.3g})"


def _times(row: ModuleAmplification) -> str:
    return "-" if row.finding is None else f"{row.quotient:.2f}{'*' if row.finding else ' '}"


def _number(value: float | None) -> str:
    return "-" if value is None or value != value else f"{value:.3g}"
