"""A task of pairs out of ICD-10-CM's hierarchy, in the role that MultiNLI has in Hu et al. 2021.

Two diagnosis titles: is the second a kind of the first, the first a kind of the second, are they
siblings, or unrelated? As in MultiNLI (Williams et al. 2018, arXiv:1704.05426) the answer is meant
to lie in the two texts together and not in either. A hierarchy sets a bound to that, since the
title above is always the more general of the two; within it, four things keep single texts silent:

- the four classes are made from the same links of a title to the one above it, each link giving
  one pair to each class, so that each class has general and special titles on both sides;
- in half of the links the special title is the longer one, in half it is not;
- titles with words that only the bottom of the hierarchy has (unspecified, other, left, right)
  are left out;
- half of the unrelated pairs are of one block of the classification, and so of one subject (or of
  one chapter, where the split has no more of the block).

What is left was measured by logistic regression on words and pairs of words: the first text alone
gives 0.34, the second 0.33, both side by side 0.42, lengths alone 0.38, lengths and the number of
common words 0.60 (chance 0.25); tests/test_tasks_pairs.py holds naive Bayes on either text to 0.38.

Whole three-character categories are held out, and a title that two codes have is left out: no text
is in two splits. Everything follows from hashes of codes, no random number. Texts and licence are
those of `icd10`.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from functools import lru_cache
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

from subspace.errors import ArgumentError, MissingExtraError, install
from subspace.training.tasks.dataset import (
    SPLITS,
    Dataset,
    build_paired,
    sort_by_hash,
    split_groups,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

LABELS = ("second is a kind of first", "first is a kind of second", "siblings", "unrelated")
PAIRS = {"train": 1500, "validation": 150, "test": 150}  # of each class
HELD_OUT_CATEGORIES = 6  # one in this many goes to test, one to validation
LINKS_A_CATEGORY = 6  # or injuries, with their thousands of codes, would be half of all pairs
_TELLS = re.compile(
    r"\b(unspecified|others?|not elsewhere|nos|nec|without|right|left|bilateral)\b", re.IGNORECASE
)


class _Code(NamedTuple):
    code: str
    title: str
    above: str  # the code of its parent
    block: str
    chapter: str

    @property
    def category(self) -> str:
        return self.code[:3]


_Link = tuple[_Code, _Code]  # a title, and one of the next level that is a kind of it


def icd10_pairs(source: Path | None = None) -> Dataset:
    """Tell how two diagnosis titles stand to one another in ICD-10-CM (4 classes)."""
    if source is not None:
        raise ArgumentError(
            f"the task 'icd10-pairs' brings its texts along; leave out {source.name!r}"
        )
    return _pairs()


@lru_cache(maxsize=1)
def _pairs() -> Dataset:
    codes = _codes()
    below: dict[str, list[_Code]] = defaultdict(list)
    for code in codes.values():
        below[code.above].append(code)
    links: dict[str, list[_Link]] = defaultdict(list)  # by category
    for code in codes.values():
        upper = codes.get(code.above)
        if upper is not None and upper.category == code.category:
            links[code.category].append((upper, code))
    home = split_groups(links, "icd10-pairs", HELD_OUT_CATEGORIES)
    rows = {}
    for split in SPLITS:
        parts = (links[category] for category in links if home[category] == split)
        chosen = chain.from_iterable(_in_order(part)[:LINKS_A_CATEGORY] for part in parts)
        rows[split] = _of_split(_in_order(chosen), below, PAIRS[split])
    return build_paired("icd10-pairs", LABELS, rows)


def _codes() -> dict[str, _Code]:
    """Every category and subcategory whose title is its own and has no word that tells."""
    try:
        import simple_icd_10_cm as icd
    except ImportError as error:
        raise MissingExtraError(
            f"the task 'icd10-pairs' needs simple-icd-10-cm: {install('demo')}"
        ) from error
    codes = []
    for code in icd.get_all_codes(with_dots=True):
        if icd.is_category(code) or icd.is_subcategory(code, False):
            above = icd.get_ancestors(code)
            block = next(a for a in above if not icd.is_category(a) and not icd.is_subcategory(a))
            title = " ".join(icd.get_description(code).split())
            codes.append(_Code(code, title, above[0], block, above[-1]))
    count = Counter(code.title.casefold() for code in codes)
    return {
        code.code: code
        for code in codes
        if count[code.title.casefold()] == 1 and not _TELLS.search(code.title)
    }


def _in_order(links: Iterable[_Link]) -> list[_Link]:
    named = {f"{upper.code} {lower.code}": (upper, lower) for upper, lower in links}
    return [named[name] for name in sort_by_hash(named, "link")]


def _of_split(
    links: list[_Link], below: dict[str, list[_Code]], most: int
) -> list[tuple[str, str, int]]:
    """Return one pair of each class from each of at most `most` links."""
    kinds: dict[bool, list[tuple[_Link, _Link]]] = {True: [], False: []}  # longer below, or not
    met: set[frozenset[str]] = set()
    for link in links:
        # Every second time of two siblings of the upper title, where it has one: those look
        # general too.
        longer = len(link[1].title) > len(link[0].title)
        ends = link if len(kinds[longer]) % 2 else link[::-1]
        pair = next(filter(None, (_sibling(end, below, met) for end in ends)), None)
        if pair is not None:
            met.add(frozenset(code.code for code in pair))
            kinds[longer].append((link, pair))
    least = min(most // 2, *map(len, kinds.values()))
    rows = []
    chosen = [one for two in zip(*(k[:least] for k in kinds.values()), strict=True) for one in two]
    for k, ((upper, lower), siblings) in enumerate(chosen):
        # k counts links of both lengths by turns: its second bit is free of the length.
        near, turned = k // 2 % 2 == 0, k // 4 % 2 == 0
        unrelated = _unrelated((upper, lower), links, near=near)
        for label, (first, second) in enumerate(
            ((upper, lower), (lower, upper), _turn(siblings, turned), _turn(unrelated, turned))
        ):
            rows.append((first.title, second.title, label))
    return rows


def _turn(pair: tuple[_Code, _Code], turned: bool) -> tuple[_Code, _Code]:
    return (pair[1], pair[0]) if turned else pair


def _sibling(
    code: _Code, below: dict[str, list[_Code]], met: set[frozenset[str]]
) -> tuple[_Code, _Code] | None:
    if "." not in code.code:
        return None  # a category: what shares its block is of one subject, and may be held out
    others = {c.code: c for c in below[code.above] if c is not code}
    fresh = (n for n in sort_by_hash(others, code.code) if frozenset((n, code.code)) not in met)
    name = next(fresh, None)
    return None if name is None else (code, others[name])


def _unrelated(link: _Link, links: list[_Link], *, near: bool) -> tuple[_Code, _Code]:
    """Return one end of `link` and the other end of a link from elsewhere in the hierarchy."""
    upper, lower = link
    tests: list[Callable[[_Code], bool]] = [lambda c: c.block != lower.block]
    if near:
        tests = [lambda c: c.block == lower.block, lambda c: c.chapter == lower.chapter, *tests]
    for test in tests:
        far = {c.code: (u, c) for u, c in links if c.category != lower.category and test(c)}
        if far:
            first, *_ = sort_by_hash(far, lower.code)
            other_upper, other_lower = far[first]
            even = sort_by_hash("01", lower.code)[0] == "0"
            return (upper, other_lower) if even else (other_upper, lower)
    raise ArgumentError("icd10-pairs: the package's hierarchy has one category alone")
