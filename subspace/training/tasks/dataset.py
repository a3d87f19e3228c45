"""What a task is: texts in three splits, each with a class or with the text that should follow."""

from __future__ import annotations

import json
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class TextSplit:
    """Texts and what belongs to each, index by index.

    Attributes
    ----------
    texts
        The texts to classify, or the prompts.
    labels
        The index of each text's class; empty for prompts.
    pairs
        The second text of each, where the task is about two; else empty.
    completions
        What should follow each prompt; else empty.
    """

    texts: tuple[str, ...]
    labels: tuple[int, ...]
    pairs: tuple[str, ...] = ()
    completions: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.texts)


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A task.

    Attributes
    ----------
    labels
        The classes' names, by index; empty where there are none.
    kind
        ``"classification"`` of a text or a pair of texts, or ``"completion"`` of a prompt.
    match
        When a completion counts as right: ``"text"`` compares all but the amount of white space;
        ``"sql"`` does not tell cases apart either, except between double quotes.
    """

    name: str
    labels: tuple[str, ...]
    train: TextSplit
    validation: TextSplit
    test: TextSplit
    kind: Literal["classification", "completion"] = "classification"
    match: Literal["text", "sql"] = "text"

    @property
    def digest(self) -> str:
        """SHA-256 over every text and label, in order: the same digest is the same task."""
        # Only what a split has is hashed, so that the digests of single texts in committed records
        # outlive the fields that came later.
        splits = [
            [s.texts, s.labels, *(more for more in (s.pairs, s.completions) if more)]
            for s in (self.train, self.validation, self.test)
        ]
        kind = [self.kind, self.match] if self.kind == "completion" else []
        return sha256(json.dumps([self.labels, splits, *kind]).encode()).hexdigest()


def sort_by_hash(items: Iterable[str], salt: str) -> list[str]:
    """Return `items` in an arbitrary order that no library or Python version changes."""
    return sorted(items, key=lambda item: sha256(f"{salt}\n{item}".encode()).digest())


def split_groups(groups: Iterable[str], salt: str, held_out: int = 10) -> dict[str, str]:
    """Return the split of each group: one in `held_out` to test, one to validation, by its hash.

    Each group is placed by itself alone: one more group in the file moves no other.

    >>> sorted(set(split_groups(map(str, range(99)), "doc").values()))
    ['test', 'train', 'validation']
    """
    home = {0: "test", 1: "validation"}
    digests = {g: sha256(f"{salt}\n{g}".encode()).digest() for g in groups}
    return {
        g: home.get(int.from_bytes(d[:8], "big") % held_out, "train") for g, d in digests.items()
    }


def build_labelled(
    name: str, labels: Sequence[str], rows: Mapping[str, Sequence[tuple[str, int]]]
) -> Dataset:
    """Return a task of single texts from (text, class) of each split."""
    train, validation, test = (
        TextSplit(tuple(t for t, _ in rows[s]), tuple(k for _, k in rows[s])) for s in SPLITS
    )
    return Dataset(name=name, labels=tuple(labels), train=train, validation=validation, test=test)


def build_paired(
    name: str, labels: Sequence[str], rows: Mapping[str, Sequence[tuple[str, str, int]]]
) -> Dataset:
    """Return a task of pairs from (first text, second text, class) of each split."""
    train, validation, test = (
        TextSplit(
            tuple(first for first, _, _ in rows[s]),
            tuple(label for _, _, label in rows[s]),
            pairs=tuple(second for _, second, _ in rows[s]),
        )
        for s in SPLITS
    )
    return Dataset(name=name, labels=tuple(labels), train=train, validation=validation, test=test)


def build_completion(
    name: str,
    rows: Mapping[str, Sequence[tuple[str, str]]],
    match: Literal["text", "sql"] = "text",
) -> Dataset:
    """Return a completion task from (prompt, completion) of each split."""
    train, validation, test = (
        TextSplit(tuple(p for p, _ in rows[s]), (), completions=tuple(c for _, c in rows[s]))
        for s in SPLITS
    )
    return Dataset(
        name=name,
        labels=(),
        train=train,
        validation=validation,
        test=test,
        kind="completion",
        match=match,
    )
