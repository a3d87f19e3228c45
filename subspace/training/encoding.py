"""From texts to token ids: single texts, pairs, and prompts with their completions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from subspace.errors import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Callable

    from subspace.training.tasks.dataset import Dataset, TextSplit

IGNORED = -100  # the label that cross-entropy leaves out
# Between prompt and completion, and between two texts where the tokenizer puts nothing: without it
# a decoder cannot tell where one ends.
_BREAK = "\n"


def encode(tokenizer: Any, data: Dataset, split: TextSplit, limit: int) -> list[dict[str, Any]]:  # noqa: ANN401
    """Return one example a text, of at most `limit` tokens.

    A classified text has ``label``; the longer text of a pair is cut first. A prompt has
    ``labels``, one a token, ignored in the prompt, and ``completion``, the text itself; prompts
    are cut at their beginning, completions never.

    Raises
    ------
    ArgumentError
        The tokenizer makes nothing of a text, or a completion is longer than the limit.
    """
    # Some tokenizers name a limit of their own, some 10**30.
    limit = min(limit, getattr(tokenizer, "model_max_length", limit))
    if data.kind == "completion":
        return _encode_continuation(tokenizer, split, limit)
    texts, pairs = list(split.texts), list(split.pairs) or None
    if pairs and not _separates(tokenizer):
        pairs = [_BREAK + pair for pair in pairs]
    encoded = tokenizer(texts, pairs, truncation="longest_first", max_length=limit)
    keys = [key for key in encoded if key in ("input_ids", "attention_mask", "token_type_ids")]
    examples = [
        {key: encoded[key][k] for key in keys} | {"label": label}
        for k, label in enumerate(split.labels)
    ]
    _check([example["input_ids"] for example in examples])
    return examples


def _separates(tokenizer: Any) -> bool:  # noqa: ANN401
    add = tokenizer.num_special_tokens_to_add
    return bool(add(pair=True) > add(pair=False))


def _check(ids: list[list[int]]) -> None:
    if not all(ids):
        raise ArgumentError("the tokenizer makes nothing of some texts; is it this model's own?")


def _encode_continuation(tokenizer: Any, split: TextSplit, limit: int) -> list[dict[str, Any]]:  # noqa: ANN401
    end = tokenizer.eos_token_id
    prompts = tokenizer([text + _BREAK for text in split.texts])["input_ids"]
    answers = tokenizer(list(split.completions), add_special_tokens=False)["input_ids"]
    _check(prompts)
    _check(answers)
    examples = []
    for prompt, answer, text in zip(prompts, answers, split.completions, strict=True):
        kept = prompt[:-1] if prompt[-1] == end and len(prompt) > 1 else prompt
        room = limit - len(answer) - 1
        if room < 1:
            raise ArgumentError(
                f"a completion has {len(answer)} tokens, and with its prompt and end it may have "
                f"{limit}: raise the maximal length, or leave it out: {text[:60]!r}"
            )
        if len(kept) > room:
            # The end of a prompt says what to do; a first token that every text has stays.
            first = kept[:1] if kept[0] == tokenizer.bos_token_id and room > 1 else []
            kept = first + kept[len(kept) - room + len(first) :]
        ids = [*kept, *answer, end]
        examples.append(
            {
                "input_ids": ids,
                "attention_mask": [1] * len(ids),
                "labels": [IGNORED] * len(kept) + [*answer, end],
                "completion": text,
            }
        )
    return examples


def make_collator(tokenizer: Any, data: Dataset) -> Callable[[list[dict[str, Any]]], Any]:  # noqa: ANN401
    """Return what makes a batch of examples: padded to its longest, unlabelled there."""
    if data.kind == "classification":
        from transformers import DataCollatorWithPadding

        padded: Callable[[list[dict[str, Any]]], Any] = DataCollatorWithPadding(tokenizer)
        return padded
    return lambda examples: _padded(examples, tokenizer.pad_token_id)


def _padded(examples: list[dict[str, Any]], pad: int) -> dict[str, Any]:
    import torch

    width = max(len(example["input_ids"]) for example in examples)
    fill = {"input_ids": pad, "attention_mask": 0, "labels": IGNORED}
    return {
        key: torch.tensor([e[key] + [value] * (width - len(e[key])) for e in examples])
        for key, value in fill.items()
    }
