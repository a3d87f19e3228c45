"""SNLI: whether a second sentence follows from the first, contradicts it, or neither.

In the role that MultiNLI (Williams et al. 2018, arXiv:1704.05426) has in Hu et al. 2021: natural
language inference. The pairs are Bowman et al. 2015 (arXiv:1508.05326), CC BY-SA 4.0, and not part
of this package. About three hypotheses share a premise: whole premises are held out. A hypothesis
can still be met twice, as short ones ("a man is outside") were written for many premises.

The embedded MiniLM was itself trained on pairs of SNLI and MultiNLI: what an adapter reaches on it
is not evidence that the adapter learned the task.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from subspace.errors import FormatError
from subspace.training.tasks.dataset import Dataset, build_paired
from subspace.training.tasks.sources import place_in_splits, source_records, thin
from subspace.training.tasks.textfiles import read_text

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from subspace.training.tasks.sources import Records

LABELS = ("entailment", "neutral", "contradiction")
TRAIN_TEXTS = 60_000  # more than a run here ever reads; all 550 000 take minutes to encode
HELD_OUT_TEXTS = 2_000  # of validation and of test: the standard error is 1.1 points
# Our copies' names, and those in the publishers' own files.
_FIELDS = (("premise", "hypothesis", "label"), ("sentence1", "sentence2", "gold_label"))


@dataclass(frozen=True)
class _Pair:
    premise: str
    hypothesis: str
    label: str


def snli(source: Path | None = None) -> Dataset:
    """Tell entailment, neutral and contradiction (3 classes) from premise and hypothesis.

    Parameters
    ----------
    source
        A file with the fields premise, hypothesis, label; or a folder with ``snli*train*``,
        ``snli*dev*``, ``snli*test*`` (dev and test alone: dev is trained on); or None for
        ``stanfordnlp/snli`` on the Hugging Face hub.
    """
    by_split = source_records("snli", source, prefix="snli", hub="stanfordnlp/snli")
    parts = {part: list(_pairs(records)) for part, records in by_split.items()}
    splits = place_in_splits("snli", parts, lambda pair: (_key(pair.premise),))
    most = {"train": TRAIN_TEXTS, "validation": HELD_OUT_TEXTS, "test": HELD_OUT_TEXTS}
    rows = {
        split: [
            (pair.premise, pair.hypothesis, LABELS.index(pair.label))
            for pair in thin(pairs, lambda p: f"{p.premise}\n{p.hypothesis}", most[split])
        ]
        for split, pairs in splits.items()
    }
    return build_paired("snli", LABELS, rows)


def _pairs(records: Records) -> Iterator[_Pair]:
    for where, record in records:
        first, second, third = _FIELDS["gold_label" in record]
        label = read_text(where, record, third)
        if label == "-":
            continue  # the annotators did not agree
        if label not in LABELS:
            raise FormatError(f"{where}: label {label!r} is none of {', '.join(LABELS)}")
        if record.get(second) in ("", "n/a"):
            continue  # a few hypotheses of the original were never written
        yield _Pair(read_text(where, record, first), read_text(where, record, second), label)


def _key(text: str) -> str:
    return " ".join(text.casefold().split())
