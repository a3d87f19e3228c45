"""The rows of Table 7 that a figure draws, and whose Table 7 it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from subspace.errors import UnknownModuleError
from subspace.plots.parts.names import literal

if TYPE_CHECKING:
    from subspace.results import Amplification, ModuleAmplification


def rows_by_module(result: Amplification) -> dict[str, list[ModuleAmplification]]:
    """Return each module's rows, ranks ascending.

    Raises
    ------
    UnknownModuleError
        There is no row.
    """
    rows: dict[str, list[ModuleAmplification]] = {}
    for row in sorted(result.rows, key=lambda row: row.rank):
        rows.setdefault(row.module, []).append(row)
    if not rows:
        raise UnknownModuleError("there is no module to draw: this amplification has no row")
    return {module: rows[module] for module in dict.fromkeys(row.module for row in result.rows)}


def describe_source(result: Amplification, fits: int) -> str:
    """Say whose Table 7 it is, and whether delta W has its scale: the factor depends on it."""
    adapter, base = (literal(name, max(8, fits // 2 - 4)) for name in (result.adapter, result.base))
    scale = "ΔW with its scale α/r" if result.scaled else "ΔW without its scale α/r"
    one = f"{adapter} on {base}; {scale}"
    return one if len(one) <= fits else f"{adapter} on {base}\n{scale}"
