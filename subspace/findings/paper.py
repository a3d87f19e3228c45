"""Figures of the paper that ours stand beside: Hu et al. 2021, arXiv:2106.09685."""

from __future__ import annotations

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

_PARTS = {
    "q": ("query", "q_proj", "q", "q_lin"),
    "k": ("key", "k_proj", "k", "k_lin"),
    "v": ("value", "v_proj", "v", "v_lin"),
    "o": ("attention.output.dense", "o_proj", "out_proj", "o", "out_lin", "dense"),
}


def matrices(targets: str) -> str | None:
    """Name a target set as the paper does; None where it is none of its sets.

    >>> matrices("query+value"), matrices("q_proj+k_proj+v_proj+o_proj"), matrices("up_proj")
    ('Wq, Wv', 'Wq, Wk, Wv, Wo', None)
    """
    found = []
    for target in targets.split("+"):
        part = next((p for p, names in _PARTS.items() if target in names), None)
        if part is None:
            return None
        found.append(part)
    named = ", ".join(f"W{part}" for part in sorted(set(found), key="qkvo".index))
    return named if named in TABLE6["WikiSQL (±0.5)"] else None
