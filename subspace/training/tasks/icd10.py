"""The bundled task's texts: ICD-10-CM diagnoses and the chapter that each belongs to.

The classification is a work of the US government (public domain), read from the MIT-licensed
package simple-icd-10-cm. Texts are the titles and inclusion terms of categories and subcategories;
the variants of a seventh character ("..., initial encounter") are left out. Whole three-character
categories are held out for validation and test, since the texts of one are near-duplicates.
Everything follows from hashes of the texts: no random number, the same splits everywhere.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import sha256
from typing import TYPE_CHECKING

from subspace.errors import ArgumentError, MissingExtraError, install
from subspace.training.tasks.dataset import Dataset, build_labelled

if TYPE_CHECKING:
    from pathlib import Path

TRAIN_TEXTS = 600  # a chapter, at most
HELD_OUT_TEXTS = 60  # a chapter, for validation and again for test
HELD_OUT_CATEGORIES = 6  # one in this many goes to test, one to validation

Texts = tuple[tuple[str, ...], dict[str, list[tuple[str, int]]]]


def icd10(source: Path | None = None) -> Dataset:
    """Sort a diagnosis text into its ICD-10-CM chapter (21 classes)."""
    if source is not None:
        raise ArgumentError(f"the task 'icd10' brings its texts along; leave out {source.name!r}")
    labels, splits = icd10_texts()
    return build_labelled("icd10", labels, splits)


@lru_cache(maxsize=1)
def icd10_texts() -> Texts:
    """Return the chapters' titles, and (text, chapter index) of each split.

    Raises
    ------
    MissingExtraError
        simple-icd-10-cm is not installed.
    """
    try:
        import simple_icd_10_cm as icd
    except ImportError as error:
        raise MissingExtraError(
            f"the task 'icd10' needs simple-icd-10-cm: {install('demo')}"
        ) from error

    chapters: dict[str, dict[str, list[str]]] = {}  # chapter -> category -> texts
    categories_of: dict[str, set[str]] = {}
    for code in icd.get_all_codes(with_dots=True):
        if not icd.is_category(code) and not icd.is_subcategory(code, False):
            continue  # a chapter, a block, or a seven-character variant
        chapter, category = icd.get_ancestors(code)[-1], code[:3]
        texts = chapters.setdefault(chapter, {}).setdefault(category, [])
        for text in (icd.get_description(code), *icd.get_inclusion_term(code)):
            key = _key(text)
            if category not in categories_of.setdefault(key, set()):
                texts.append(" ".join(text.split()))
            categories_of[key].add(category)
    # Chapter 22, codes for special purposes, has two categories: too few to hold any out.
    chapters = {
        c: inside for c, inside in chapters.items() if len(inside) >= 3 * HELD_OUT_CATEGORIES
    }

    splits: dict[str, list[tuple[str, int]]] = {"train": [], "validation": [], "test": []}
    for label, categories in enumerate(chapters.values()):
        # A text that stands in two categories might stand in two splits: it is left out.
        unique = {
            c: [t for t in ts if len(categories_of[_key(t)]) == 1] for c, ts in categories.items()
        }
        for split, texts in _split(unique).items():
            splits[split].extend((text, label) for text in texts)
    return tuple(icd.get_description(chapter) for chapter in chapters), splits


def _split(categories: dict[str, list[str]]) -> dict[str, list[str]]:
    order = sorted(categories, key=_hash)
    share = -(-len(order) // HELD_OUT_CATEGORIES)
    parts = {}
    for split in ("test", "validation"):
        texts: list[str] = []
        taken = 0
        while taken < share or len(texts) < HELD_OUT_TEXTS:
            texts.extend(categories[order.pop(0)])
            taken += 1
        parts[split] = sorted(texts, key=_hash)[:HELD_OUT_TEXTS]
    parts["train"] = sorted((t for c in order for t in categories[c]), key=_hash)[:TRAIN_TEXTS]
    return parts


def _key(text: str) -> str:
    return " ".join(text.casefold().split())


def _hash(text: str) -> bytes:
    return sha256(text.encode()).digest()
