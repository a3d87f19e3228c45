"""Three findings on a merge before it is made: whether it adds, cancels or leaves alone.

All follow from the energy of the weighted sum, its parts and their cosines, by the constants of
this file; every number stands beside what independent random updates give.
"""

from __future__ import annotations

import math
from enum import Enum
from statistics import median
from typing import TYPE_CHECKING

from subspace.errors import printable
from subspace.findings.numbers import modules, number, write_sentences

if TYPE_CHECKING:
    from collections.abc import Sequence

    from subspace.results import Interference, ModuleInterference, WholePair

# An energy this near to 1 leaves the adapters alone, however sure it is that it is not 1.
ALONE = 0.05
# Of an adapter that holds this share of the energy the merge is said to be nearly all.
LOUD = 0.9
# Of one that holds less it says nothing how far the merge goes along it: the others' rest is more.
DROWNED = 1e-4


def describe_interference(result: Interference) -> tuple[str, str, str]:
    """Say in three findings what a merge does, where, and what that does not show.

    Parameters
    ----------
    result
        Two or more adapters and the weights of their sum.

    Returns
    -------
    tuple of three str
        (1) Whether the merge adds up, cancels or leaves the adapters alone over the whole model,
        what each of them keeps, and whether one drowns the others. (2) In how many modules two
        point the same way, or against each other, significantly, and from where to where the
        energy of modules ranges. (3) What none of this shows. One printable line each.

    Notes
    -----
    A merge adds up where its energy over the sum of the adapters' energies is above 1.05, and
    cancels below 0.95, once the cosine of a pair over the whole model is significant (its p at
    most the level over the number of pairs). Modules count at a false discovery rate of the level.

    >>> from subspace.results import Interference
    >>> nan, pair = float("nan"), ("a", "b")
    >>> one = Interference(adapters=pair, weights=(1, 1), level=0.01, modules={}, pairs=(),
    ...                    norms=(0, 0), energy=nan, energy_error=nan, energy_std=nan, kept=())
    >>> describe_interference(one)[0]
    'Undefined: every update is exactly zero, so that nothing is merged.'
    """
    sentences = (_merge(result), _modules(result), _open(result))
    return printable(sentences[0]), printable(sentences[1]), printable(sentences[2])


class Effect(Enum):
    """What a merge does to the energy of its updates."""

    ADDS = 1
    CANCELS = 2
    LEAVES_ALONE = 3


def classify_effect(energy: float) -> Effect:
    """Say what a merge of this energy does.

    >>> classify_effect(1.3).name, classify_effect(0.4).name, classify_effect(1.01).name
    ('ADDS', 'CANCELS', 'LEAVES_ALONE')
    """
    if energy > 1 + ALONE:
        return Effect.ADDS
    return Effect.CANCELS if energy < 1 - ALONE else Effect.LEAVES_ALONE


def is_significant(result: Interference) -> bool:
    """Tell whether the cosine of any pair over the whole model is significant (Bonferroni)."""
    return any(pair.p <= result.level / len(result.pairs) for pair in result.pairs)


def _merge(result: Interference) -> str:
    if math.isnan(result.energy):
        if not any(result.norms):
            return "Undefined: every update is exactly zero, so that nothing is merged."
        return "Undefined: the terms of B A cancel so far that rounding leaves the energy open."
    sure = is_significant(result)
    effect = classify_effect(result.energy) if sure else Effect.LEAVES_ALONE
    names = _listed([f"'{name}'" for name in result.adapters])
    adding, cancelling = (
        sum(_is_sure(m) and classify_effect(m.energy) is each for m in result.values())
        for each in (Effect.ADDS, Effect.CANCELS)
    )
    balanced = effect is Effect.LEAVES_ALONE and adding + cancelling > 0
    what = {
        Effect.ADDS: f"{names} add up",
        Effect.CANCELS: f"{names} partly cancel",
        Effect.LEAVES_ALONE: f"{names} leave each other alone",
    }[effect]
    if balanced:
        what = (
            f"{names} add up in {adding} and cancel in {cancelling} of {modules(len(result))}, "
            "which balances over the whole model"
        )
    energy = f"{number(result.energy)} times the sum of their energies"
    level = f"{energy} (1 ± {result.energy_std:.2g} by chance)"
    if not sure:
        close = "no more than independent random updates would meet"
    elif effect is Effect.LEAVES_ALONE:
        close = "significant, yet too little to matter"
    else:
        close = "significant"
    each = list(zip(result.adapters, result.kept, result.weights, result.shares, strict=True))
    along = ", ".join(
        f"{number(k)} × {name!r} (weight {w:g})"
        for name, k, w, share in each
        if not math.isnan(k) and share >= DROWNED
    )
    drowned = [
        f"{name!r} is drowned: it holds {100 * share:.2g} % of the energy"
        for name, k, w, share in each
        if share < DROWNED and not math.isnan(k)
    ]
    return write_sentences(
        f"merged, {what}: the energy of the sum is {level}, {close}",
        f"along each one's own update it goes {along}{_loud(result)}",
        *drowned,
    )


def _is_sure(module: ModuleInterference) -> bool:
    return any(pair.finding for pair in module.pairs)


def _loud(result: Interference) -> str:
    share, name = max(zip(result.shares, result.adapters, strict=True))
    if share < LOUD:
        return ""
    return f"; {name!r} holds {100 * share:.3g} % of the energy, so that the merge is nearly it"


def _modules(result: Interference) -> str:
    pairs = [pair for pair in result.pairs if pair.modules]
    if not pairs:
        why = "; ".join(sorted({m.note for m in result.values() if m.note})) or "none is shared"
        return f"Undefined: no cosine in any of {modules(len(result))} ({why})."
    if len(pairs) == 1:
        one = pairs[0]
        sentence = (
            f"In {one.same} of {modules(one.modules)} the two significantly point the same way, in "
            f"{one.opposite} against each other; over the whole model their cosine is "
            f"{number(one.cosine)}, where chance gives 0 ± {one.null_std:.2g}"
        )
        covered = one.coverage()
        if covered:
            sentence += f" (of {covered}; the rest meets nothing)"
    else:
        ordered = sorted(pairs, key=lambda pair: pair.cosine)
        sentence = (
            f"Of {len(pairs)} pairs {_named(ordered[0])} have the lowest cosine and "
            f"{_named(ordered[-1])} the highest; of {sum(p.modules for p in pairs)} comparisons "
            f"of a module {sum(p.same for p in pairs)} significantly point the same way and "
            f"{sum(p.opposite for p in pairs)} against each other"
        )
    sentence += f" (level {result.level:g}, Benjamini-Hochberg over modules)"
    energies = sorted((m.energy, name) for name, m in result.items() if m.energy == m.energy)
    low, high = energies[0], energies[-1]
    cancelling = sum(classify_effect(e) is Effect.CANCELS for e, _ in energies)
    adding = sum(classify_effect(e) is Effect.ADDS for e, _ in energies)
    energy = (
        f"the energy falls below {1 - ALONE:g} in {cancelling} and exceeds {1 + ALONE:g} in "
        f"{adding} of {modules(len(energies))}"
    )
    if len(energies) > 1:
        energy += f", from {number(low[0])} ({low[1]}) to {number(high[0])} ({high[1]})"
    out = sum(all(math.isnan(pair.cosine) for pair in m.pairs) for m in result.values())
    left = f"left out as undefined: {out} of {modules(len(result))}" if out else ""
    return write_sentences(sentence, energy, left)


def _named(pair: WholePair) -> str:
    a, b = pair.adapters
    return f"{a!r} and {b!r} ({number(pair.cosine)}, by chance 0 ± {pair.null_std:.2g})"


def _open(result: Interference) -> str:
    compared = [p for m in result.values() for p in m.pairs]
    sides = {"row": [p.rows for p in compared], "column": [p.columns for p in compared]}
    defined_spaces = {word: [s for s in spaces if s.phi == s.phi] for word, spaces in sides.items()}
    overlap = ""
    if all(defined_spaces.values()):
        phi = "; of ".join(
            f"{word} spaces {number(median(s.phi for s in spaces))}, chance "
            f"{number(median(s.null_mean for s in spaces))}"
            for word, spaces in defined_spaces.items()
        )
        overlap = (
            ": two updates of cosine 0 may still read the same inputs or write the same outputs "
            f"(median φ of {phi})"
        )
    same = sum(bool(pair.modules) for pair in result.same_initial or ())
    caution = (
        f"; caution: {same} of {len(result.pairs)} pair{'' if len(result.pairs) == 1 else 's'} "
        "had the same initial A, which widens the null"
        if same
        else ""
    )
    return (
        f"Not shown: whether the merged model does its tasks (try it){overlap}; chance is that of "
        "random updates, and any two adapters of one base share the few large directions of its "
        f"inputs{caution}."
    )


def _listed(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}"
