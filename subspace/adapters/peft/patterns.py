"""Each module's alpha and rank by the config's patterns: PEFT's rule for all its methods.

The rule changed: up to 0.13 the first key of both tables that matched served for both, so that an
alpha of its own was lost where a key of ``rank_pattern`` matched first; before 0.15 a key with
``^`` matched nothing (``get_pattern_key`` and ``tuners/lora/model.py`` of these releases).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from subspace.adapters.peft.regex import match_patterns
from subspace.adapters.peft.release import ANCHORS, SEPARATE_PATTERNS
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
    of_rank, of_alpha = (
        match_patterns(list(table), targets.values(), where=f"{lora.where}: {field}")
        for field, table in (
            ("rank_pattern", lora.rank_pattern),
            ("alpha_pattern", lora.alpha_pattern),
        )
    )

    def values(
        table: Mapping[str, float], matched: Mapping[str, list[str]], default: float | None
    ) -> dict[str, list[Any]]:
        # PEFT looks the module's own path up where no pattern matches.
        return {
            module: [table[key] for key in matched[target]] or [table.get(target, default)]
            for module, target in targets.items()
        }

    alphas = values(lora.alpha_pattern, of_alpha, lora.alpha)
    ranks = values(lora.rank_pattern, of_rank, lora.r)
    today = {module: each[0] for module, each in alphas.items()}
    before = {
        module: _find_alpha_before(target, [*of_rank[target], *of_alpha[target]], lora)
        for module, target in targets.items()
    }
    notes = []
    unsure = [module for module, each in alphas.items() if len(set(each)) > 1]
    if unsure:
        notes.append(
            f"{some(unsure)}: several entries of alpha_pattern match; the first in the file is "
            "taken, as PEFT does on loading, but PEFT sorts them on saving: training may have "
            "used another"
        )
    differ = [module for module in targets if before[module] != today[module]]
    if not differ or (lora.release is not None and lora.release >= ANCHORS):
        return today, ranks, notes
    first = differ[0]
    both = f"{before[first]:g} and not {today[first]:g} for the first"
    if lora.release is None:
        notes.append(
            f"{some(differ)}: the config does not tell the release of PEFT that wrote it; before "
            f"0.15 alpha_pattern and rank_pattern gave another alpha, {both}; today's is taken "
            "(--peft-release 0.13 takes the other)"
        )
        return today, ranks, notes
    notes.append(
        f"{some(differ)}: alpha is what PEFT before 0.15, which wrote the config, took from "
        f"alpha_pattern and rank_pattern, {both}; today's PEFT takes the other"
    )
    return today | before, ranks, notes


def _find_alpha_before(target: str, matched: list[str], lora: LoraConfig) -> float:
    """Return alpha by the rule of the release that wrote the config, or of 0.13 if none is told."""
    keys = [key for key in matched if not key.startswith("^")]
    own = lora.alpha_pattern
    if lora.release is not None and lora.release >= SEPARATE_PATTERNS:
        keys = [key for key in keys if key in own]
    # The keys of rank_pattern come first, as PEFT chained them.
    return own.get(keys[0] if keys else target, lora.alpha)
