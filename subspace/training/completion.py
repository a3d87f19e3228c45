"""How well a decoder continues prompts: loss and accuracy of tokens, exact match of whole texts."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from subspace.training.encoding import IGNORED

if TYPE_CHECKING:
    from collections.abc import Iterator

_QUOTED = re.compile(r'("[^"]*")')


def normalise(text: str, match: str) -> str:
    """Return what counts of a completion; two are the same if this is.

    For ``"sql"`` the case of letters counts between double quotes alone: there stand values, and
    outside them keywords and names of columns (Zhong et al. 2017, arXiv:1709.00103, compare
    queries in this way as their logical form).

    >>> normalise('select  A from t where B = "New  York"', "sql")
    'select a from t where b = "New  York"'
    >>> normalise(" two  Words", "text")
    'two Words'
    """
    if match != "sql":
        return " ".join(text.split())
    parts = _QUOTED.split(text)
    outside = (re.sub(r"\s+", " ", part).casefold() for part in parts[::2])
    quoted = [*parts[1::2], ""]
    return "".join(o + q for o, q in zip(outside, quoted, strict=True)).strip()


def sum_tokens(logits: Any, labels: Any) -> Any:  # noqa: ANN401 - tensors
    """Return (texts, 3): of each, the loss summed, the tokens right, and the tokens counted.

    The Trainer keeps what this returns of every text; the scores of a vocabulary it could not.
    """
    import torch
    from torch.nn.functional import cross_entropy

    logits = logits[0] if isinstance(logits, tuple) else logits
    scores, wanted = logits[:, :-1].float(), labels[:, 1:]
    loss = cross_entropy(scores.transpose(1, 2), wanted, reduction="none", ignore_index=IGNORED)
    counted = wanted != IGNORED
    right = (scores.argmax(-1) == wanted) & counted
    return torch.stack([loss.sum(1), right.sum(1).to(loss), counted.sum(1).to(loss)], 1)


def average_tokens(predicted: Any) -> dict[str, float]:  # noqa: ANN401 - transformers' EvalPrediction
    """Return the loss of a token and the share of tokens right, over all tokens of all texts.

    The Trainer's own loss is a mean of batches, which depends on how texts fell into batches.
    """
    loss, right, counted = np.asarray(predicted.predictions, np.float64).sum(0)
    return {"nll": float(loss / counted), "token_accuracy": float(right / counted)}


def measure_exact_match(
    model: Any,  # noqa: ANN401 - a peft model
    tokenizer: Any,  # noqa: ANN401
    examples: list[dict[str, Any]],
    *,
    match: str,
    batch: int,
) -> float:
    """Return the share of examples whose completion the model writes word for word.

    Greedy, and no longer than the longest completion of its batch: a longer one is wrong already.
    """
    import torch

    right = 0
    model.eval()
    with torch.no_grad():
        for part in _batches(model, examples, batch):
            prompts = [_prompt(example) for example in part]
            width = max(map(len, prompts))
            pad = tokenizer.pad_token_id
            # On the left: what follows a prompt must follow it at once.
            ids = torch.tensor([[pad] * (width - len(p)) + p for p in prompts])
            mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
            written = model.generate(
                input_ids=ids.to(model.device),
                attention_mask=mask.to(model.device),
                generation_config=_greedy(tokenizer, max(map(_length, part))),
            )[:, width:]
            texts = tokenizer.batch_decode(
                written, skip_special_tokens=True, clean_up_tokenization_spaces=False
            )
            right += sum(
                normalise(text, match) == normalise(example["completion"], match)
                for text, example in zip(texts, part, strict=True)
            )
    return right / len(examples)


def _prompt(example: dict[str, Any]) -> list[int]:
    ids: list[int] = example["input_ids"][: example["labels"].count(IGNORED)]
    return ids


def _length(example: dict[str, Any]) -> int:
    return len(example["labels"]) - int(example["labels"].count(IGNORED))


def _batches(
    model: Any,  # noqa: ANN401
    examples: list[dict[str, Any]],
    batch: int,
) -> Iterator[list[dict[str, Any]]]:
    # Each fits into the model's positions alone; a long prompt beside a long completion may not.
    positions = getattr(model.config, "max_position_embeddings", None) or 1 << 30
    part: list[dict[str, Any]] = []
    for example in sorted(examples, key=lambda e: (len(_prompt(e)), len(e["input_ids"]))):
        longest = max(map(_length, [*part, example]))
        if part and (len(part) == batch or len(_prompt(example)) + longest > positions):
            yield part
            part = []
        part.append(example)
    if part:
        yield part


def _greedy(tokenizer: Any, tokens: int) -> Any:  # noqa: ANN401
    from transformers import GenerationConfig

    # All that changes what greedy search writes is named: the model's own settings fill the rest.
    return GenerationConfig(
        max_new_tokens=tokens,
        max_length=None,
        min_length=0,
        do_sample=False,
        num_beams=1,
        repetition_penalty=1.0,
        no_repeat_ngram_size=0,
        use_cache=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        return_dict_in_generate=False,
    )
