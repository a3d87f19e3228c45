"""What each number on the page is, and where its definition comes from: as its field says."""

from __future__ import annotations

from typing import NamedTuple

from subspace.results import ModuleAmplification, ModuleRank, ModuleSimilarity
from subspace.results.fields import described


class Definition(NamedTuple):
    """One term: `key` is its anchor on the page."""

    key: str
    term: str
    text: str
    source: str


DEFINITIONS = tuple(
    Definition(each.key, each.title, each.field.definition, each.field.source)
    for row in (ModuleSimilarity, ModuleRank, ModuleAmplification)
    for each in described(row).values()
    if each.field.definition
)
