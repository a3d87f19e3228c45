"""Figures of the paper that ours stand beside: Hu et al. 2021, arXiv:2106.09685."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from subspace.modules.words import find_roles, list_words

if TYPE_CHECKING:
    from subspace.modules.words import Role

TABLE6_RANKS = (1, 2, 4, 8, 64)
"""Columns of Table 6 (section 7.2): validation accuracy of GPT-3 175B in percent."""

TABLE6 = {
    "WikiSQL (±0.5)": {
        "Wq": (68.8, 69.6, 70.5, 70.4, 70.0),
        "Wq, Wv": (73.4, 73.3, 73.7, 73.8, 73.5),
        "Wq, Wk, Wv, Wo": (74.1, 73.7, 74.0, 74.0, 73.9),
    },
    "MultiNLI (±0.1)": {
        "Wq": (90.7, 90.9, 91.1, 90.7, 90.7),
        "Wq, Wv": (91.3, 91.4, 91.3, 91.6, 91.4),
        "Wq, Wk, Wv, Wo": (91.2, 91.7, 91.7, 91.5, 91.4),
    },
}
"""Data set, with the standard deviation over seeds that the paper gives it, and matrices."""

FIGURE3 = 0.5
"""phi(1, 1) of r = 8 and r = 64 is above this, for Wq and Wv (section 7.2, Figure 3)."""

FIGURE8, FIGURE8_TOP = 0.2, 0.1
"""phi of delta Wq's first 4 directions and Wq's top tenth is hardly above 0.2 (appendix H.3)."""


class Table7Column(NamedTuple):
    """Table 7 at one rank (section 7.3): Wq of the 48th layer of GPT-3, Frobenius norms."""

    delta_norm: float  # of delta W
    in_delta: float  # of U^T W V^T with the directions of delta W
    in_w: float  # with W's own
    in_random: float  # with random ones
    factor: float  # delta_norm / in_delta, as printed


TABLE7 = {
    4: Table7Column(6.91, 0.32, 21.67, 0.02, 21.5),
    64: Table7Column(3.57, 1.90, 37.71, 0.33, 1.9),
}
"""Rank and column."""

_LETTERS: dict[Role, str] = {"query": "q", "key": "k", "value": "v", "output": "o"}
_QUERY, _VALUE = frozenset(list_words("query")), frozenset(list_words("value"))


def matrices(targets: str) -> str | None:
    """Name a target set as the paper does; None where it is none of its sets.

    >>> matrices("query+value"), matrices("wq+wk+wv+wo"), matrices("up_proj"), matrices("to_q")
    ('Wq, Wv', 'Wq, Wk, Wv, Wo', None, 'Wq')
    """
    roles = find_roles(targets.split("+"))
    if roles is None or not _LETTERS.keys() >= set(roles):
        return None
    letters = sorted({_LETTERS[role] for role in roles}, key="qkvo".index)
    named = ", ".join(f"W{letter}" for letter in letters)
    return named if named in TABLE6["WikiSQL (±0.5)"] else None


def query_or_value(module: str) -> Literal["q", "v"] | None:
    """Say which of the two a module's path ends in; None where it is neither.

    >>> query_or_value("encoder.layer.0.attention.self.query"), query_or_value("h.0.attn.v_proj")
    ('q', 'v')
    """
    last = module.rpartition(".")[2]
    return "q" if last in _QUERY else "v" if last in _VALUE else None
