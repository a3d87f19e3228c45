"""Sentences on what results show, chosen from their numbers by stated thresholds."""

from __future__ import annotations

from subspace.findings.amplified import amplified
from subspace.findings.claims import Claim, Verdict, claims
from subspace.findings.interfering import interfering
from subspace.findings.ranks import ranked
from subspace.findings.subspaces import findings

__all__ = ["Claim", "Verdict", "amplified", "claims", "findings", "interfering", "ranked"]
