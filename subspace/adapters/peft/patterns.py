"""Each module's alpha and rank by the config's patterns: PEFT's rule for all its methods."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from subspace.adapters.peft.regex import match_patterns
from subspace.adapters.source import some

if TYPE_CHECKING:
    from collections.abc import Mapping

    from subspace.adapters.peft.config import LoraConfig


def apply_patterns(
    targets: Mapping[str, str], lora: LoraConfig
) -> tuple[dict[str, float], dict[str, list[int]], list[str]]:
    """Give each module its alpha, the ranks that the config may mean, and what is unsure.

    Parameters
    ----------
    targets
        Module -> the path that PEFT matches patterns against.
    lora
        The config.
    """

    def values(
        field: str, table: Mapping[str, float], default: float | None
    ) -> dict[str, list[Any]]:
        found = match_patterns(list(table), targets.values(), where=f"{lora.where}: {field}")
        # PEFT looks the module's own path up where no pattern matches.
        return {
            module: [table[key] for key in found[target]] or [table.get(target, default)]
            for module, target in targets.items()
        }

    alphas = values("alpha_pattern", lora.alpha_pattern, lora.alpha)
    ranks = values("rank_pattern", lora.rank_pattern, lora.r)
    unsure = [module for module, found in alphas.items() if len(set(found)) > 1]
    notes = []
    if unsure:
        notes.append(
            f"{some(unsure)}: several entries of alpha_pattern match; the first in the file is "
            "taken, as PEFT does on loading, but PEFT sorts them on saving: training may have "
            "used another"
        )
    return {m: found[0] for m, found in alphas.items()}, ranks, notes
