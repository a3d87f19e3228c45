"""What each number on the page is, and where its definition comes from."""

from __future__ import annotations

from typing import NamedTuple


class Definition(NamedTuple):
    """One term: `key` is its anchor on the page."""

    key: str
    term: str
    text: str
    source: str


_PAPER = "Hu et al. 2021, arXiv:2106.09685"

DEFINITIONS = (
    Definition(
        "phi",
        "φ(i, j)",
        "‖U_aᵀU_b‖² / min(i, j), with U_a the leading i directions of the first adapter and U_b "
        "the leading j of the second: 1 where they span the same space, 0 where they are "
        "orthogonal. Undefined where a cut falls within a cluster of equal singular values, or "
        "beyond what the rounding of the stored factors leaves.",
        f"Eq. 4, section 7.2 and appendix G, {_PAPER}",
    ),
    Definition(
        "chance",
        "chance and p",
        "What two independent random subspaces of these sizes give: max(i, j)/d on average; p is "
        "the probability that they give as much or more. Beyond chance is not yet the task: any A "
        "picks up the large directions of a transformer's inputs, and a control trained on "
        "shuffled labels shows how much that is.",
        "closed form for Haar-distributed subspaces; Beta tail",
    ),
    Definition(
        "agreeing",
        "directions that agree",
        "Leading directions of either adapter that lie within the other's beyond chance, counted "
        "from the first until one does not, with Benjamini-Hochberg over modules. A lower bound "
        "on what is shared.",
        f"after the reading of Figures 3 and 4, section 7.2, {_PAPER}",
    ),
    Definition(
        "side",
        "sides",
        "A: right singular vectors of A, as in the paper. B: left ones of B. Both depend on how "
        "ΔW is split into B and A. in, out: right and left singular vectors of ΔW = s·BA, which "
        "do not. delta-A: of A minus its start.",
        "",
    ),
    Definition(
        "norm",
        "‖ΔW‖",
        "Frobenius norm of the update, its scale (alpha / r) included.",
        f"Eq. 3, {_PAPER}",
    ),
    Definition(
        "ranks",
        "ranks of the spectrum",
        "Stable: ‖ΔW‖²_F / ‖ΔW‖²₂. By entropy: exp of the entropy of the singular values over "
        "their sum. 90 %: the fewest directions with that share of ‖ΔW‖²_F. They say how the "
        "energy is spread, not what was learned.",
        "Roy & Vetterli 2007 for the entropy",
    ),
    Definition(
        "replicable",
        "replicable rank",
        "How many leading directions two runs of one configuration, of different seeds, share "
        "beyond chance; over more than two the median over their pairs, with its range. "
        "Recommended: rounded up, and 1 at least. Adapters of the same modules, ranks and scales "
        "are taken for such runs; two tasks trained alike look the same from their files.",
        f"after the comparison of seeds, Figure 4, section 7.2, {_PAPER}",
    ),
    Definition(
        "factor",
        "amplification factor",
        "‖ΔW‖_F / ‖UᵀWV‖_F, with U and V the singular vectors of ΔW: how large the update is "
        "beside what W does in the same directions.",
        f"Table 7, section 7.3, {_PAPER}",
    ),
    Definition(
        "quotient",
        "× chance",
        "How many times more of W the update meets than a random one of the same norm: the "
        "factor that chance gives over the factor found. Above 1 it lies more along W's "
        "directions than chance; a star marks what is outside the central 95 % of chance.",
        "simulated from W's own singular values",
    ),
)
