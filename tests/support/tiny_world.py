"""A tiny BERT with its tokenizer, and texts whose label one word gives away."""

import json

import torch

WORDS = ["heart", "valve", "lung", "cough", "skin", "rash", "acute", "mild", "old", "new"]


def write_world(folder):
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=15, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=20, max_position_embeddings=16,
        initializer_range=0.3,  # at 0.02 nothing reaches the first token, from which the head reads
    )  # fmt: skip
    BertModel(config).save_pretrained(folder / "tiny-bert")
    vocabulary = "\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS])
    (folder / "tiny-bert" / "vocab.txt").write_text(vocabulary)
    rows = [
        {"text": f"{a} {WORDS[2 * k + n]} {b}", "label": ("heart", "lung", "skin")[k]}
        for k in range(3) for n in range(2) for a in WORDS[6:] for b in WORDS[6:]
    ]  # fmt: skip
    (folder / "texts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def tiny_config(folder, **changed):
    """A short run on that world; what a test is about is among `changed`."""
    from subspace.training import TrainConfig

    options = {
        "model": str(folder / "tiny-bert"), "data": str(folder / "texts.jsonl"), "rank": 2,
        "seed": 5, "alpha": 6, "steps": 12, "warmup": 2, "batch": 8, "learning_rate": 2e-2,
        "eval_every": 6, "eval_texts": 9,
    }  # fmt: skip
    return TrainConfig(**options | changed)
