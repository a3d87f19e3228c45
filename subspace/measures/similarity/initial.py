"""How far did training move A? Each module's A beside its initial A."""

from __future__ import annotations

from typing import TYPE_CHECKING

from subspace.adapters import Adapter, LowRankUpdate
from subspace.measures.similarity.measure import similarity

if TYPE_CHECKING:
    from subspace.results import Similarity


def compare_with_initial(adapter: Adapter) -> tuple[dict[str, float], Similarity]:
    """Compare A with initial A, module by module.

    Parameters
    ----------
    adapter
        An adapter that holds the initial A of every module.

    Returns
    -------
    ``|A - A0|_F / |A0|_F`` of each module, where A0 is its initial A; and the similarity of the
    adapter and one with A0 in A's place, on side A.

    Raises
    ------
    KeyError
        A module's initial A is not stored.
    """
    before = {
        name: LowRankUpdate(name, adapter.initial[name], update.B, update.scale)
        for name, update in adapter.items()
    }
    distances = {
        name: float((u.A - adapter.initial[name]).norm() / adapter.initial[name].norm())
        for name, u in adapter.items()
    }
    initial = Adapter.from_updates(before, name=f"initial A of {adapter.name}")
    return distances, similarity(adapter, initial, side="A")
