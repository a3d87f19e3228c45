"""Findings on what runs share because they learned it, and what because of how they began.

Each pair of runs is compared on every side; runs of one seed and runs on shuffled labels tell what
a shared seed and shared texts alone give. The sentences follow from the medians over modules.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import median
from typing import TYPE_CHECKING

from subspace.findings.numbers import Middle
from subspace.results import Shared, SharedByRuns, Side, Similarity

if TYPE_CHECKING:
    from collections.abc import Sequence

SIDES: tuple[Side, ...] = ("A", "delta-A", "in", "B", "out")
"""The sides on which a pair of runs is compared."""

BySide = Mapping[Side, Similarity]
"""One pair of runs on every one of `SIDES`."""


def summarise_pair(runs: tuple[str, str], pair: BySide) -> SharedByRuns:
    """Return what two runs share on each side, and what their initial A share."""
    initial = next((each.initial for each in pair.values() if each.initial is not None), None)
    sides = {side: _summarise_modules(result) for side, result in pair.items()}
    return SharedByRuns(runs, sides, None if initial is None else _summarise_modules(initial))


def describe_inheritance(
    ranks: BySide,
    seeds: BySide,
    *,
    one_seed: BySide | None = None,
    shuffled: BySide | None = None,
    crossed: BySide | None = None,
) -> tuple[str, ...]:
    """Say what of the shared directions is owed to initial A, to the seed and to the texts.

    Parameters
    ----------
    ranks
        Two runs of different rank and seed.
    seeds
        Two runs of one rank and different seeds.
    one_seed
        Two runs of different rank and one seed.
    shuffled
        Two runs of different seeds, both on shuffled labels.
    crossed
        A run of the task, and one of another seed on shuffled labels.

    Returns
    -------
    One sentence for each comparison that is there; names in them are not printed.
    """
    sentences = [
        f"Of two ranks a median of {_count_agreeing(ranks['A'])} directions agree on side A, and "
        f"{_count_agreeing(ranks['delta-A'])} with initial A taken out; of two seeds "
        f"{_count_agreeing(seeds['A'])} and {_count_agreeing(seeds['delta-A'])}. What A keeps of "
        "initial A is shared with no other run, and side A counts it as unshared."
    ]
    initial = None if one_seed is None else one_seed["A"].initial
    if one_seed is not None and initial is not None:
        sentences.append(
            f"Two ranks of one seed are at φ(1,1) {_find_first(one_seed['A'])}, two ranks of two "
            f"seeds at {_find_first(ranks['A'])}, the initial A of one seed at "
            f"{_find_first(initial)}. A seed also gives the order of the texts, and that is in "
            "the directions too."
        )
    if shuffled is not None:
        sentences.append(
            f"Two seeds on shuffled labels share {_count_agreeing(shuffled['delta-A'])} "
            "directions on side delta-A, two of the task "
            f"{_count_agreeing(seeds['delta-A'])}. Runs of one training find the same directions, "
            "whatever it has to teach: the rank recommended above is not owed to the task alone."
        )
    if crossed is not None:
        sentences.append(
            "A run of the task and one on shuffled labels share "
            f"{_count_agreeing(crossed['delta-A'])} directions. On side A they are at φ(1,1) "
            f"{_find_first(crossed['A'])}, two of the task at {_find_first(seeds['A'])}. So much "
            "is shared without the labels. What is beyond it need not be owed to them: two runs "
            "on different shufflings share directions too."
        )
    return tuple(sentences)


def describe_movement(name: str, distances: Sequence[float], from_initial: Similarity) -> str:
    """Say how far training moved A.

    Parameters
    ----------
    name
        The adapter's name.
    distances
        ``|A - A0|_F / |A0|_F`` of each module, with initial A for A0.
    from_initial
        The adapter compared with one of its own initial A, on side A.
    """
    first = Middle.of(m.phi[0, 0] for m in from_initial.values())
    whole = Middle.of(m.phi[-1, -1] for m in from_initial.values())
    return (
        f"A of {name} moved by a median of {median(distances):.2f} of its own size; between it "
        f"and its initial A φ(1, 1) is {first} and φ(r, r) {whole} (median over modules)."
    )


def _summarise_modules(result: Similarity) -> Shared:
    phi = [float(m.phi[0, 0]) for m in result.values() if m.phi[0, 0] == m.phi[0, 0]]
    agreeing = [m.agreeing for m in result.values() if m.agreeing is not None]
    return Shared(
        median(phi) if phi else math.nan,
        # Modules in which φ is undefined have no directions to count either.
        float(median(agreeing)) if agreeing and phi else math.nan,
    )


def _find_first(result: Similarity) -> str:
    phi = _summarise_modules(result).phi
    return f"{phi:.3f}" if phi == phi else "undefined"


def _count_agreeing(result: Similarity) -> str:
    agreeing = [m.agreeing for m in result.values() if m.agreeing is not None]
    most = max((min(m.rank_a, m.rank_b) for m in result.values()), default=0)
    return f"{median(agreeing):g} of {most}" if agreeing else "an undefined number"
