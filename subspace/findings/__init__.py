"""Sentences on what results show, chosen from their numbers by stated thresholds.

Each result has a file of its name with a function `describe_…`; `claims` holds the paper's section
7 against one's own runs. Start reading with `similarity`.
"""

from __future__ import annotations

from subspace.findings.amplification import describe_amplification
from subspace.findings.claims.check import Claim, Verdict, check_claims
from subspace.findings.interference import describe_interference
from subspace.findings.rank import describe_rank
from subspace.findings.similarity import describe_similarity

__all__ = [
    "Claim",
    "Verdict",
    "check_claims",
    "describe_amplification",
    "describe_interference",
    "describe_rank",
    "describe_similarity",
]
